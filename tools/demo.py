"""`make demo`: a cluster named `demo` with the guestbook in it, and a page fetched through the service's virtual IP.

As root the pods are real containers, whose image is made here from Debian's busybox; otherwise nodes are simulated. A
second run finds everything in place and changes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "demo"
IMAGE = "localhost/guestbook:1"
NAVARCH = [sys.executable, "-m", "navarch.cli.main"]


def say(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)


def kubectl(*arguments: str, capture: bool = False) -> str:
    command = [*NAVARCH, "kubectl", "--name", NAME, *arguments]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE if capture else None)
    return done.stdout or ""


def load_image() -> None:
    """Build the guestbook's image, one layer with busybox, and load it unless it is there."""
    from navarch.node.images.archives import Platform, busybox_files, host_architecture, write_image

    listed = subprocess.run(
        [*NAVARCH, "image", "ls", "--name", NAME, "-o", "json"], check=True, text=True, stdout=subprocess.PIPE
    )
    if any(entry["name"] == IMAGE for entry in json.loads(listed.stdout)):
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "guestbook.tar")
        platform = Platform(host_architecture(), tuple(busybox_files(Path("/bin/busybox"))))
        write_image(archive, IMAGE, [platform])
        subprocess.run([*NAVARCH, "image", "load", "--name", NAME, str(archive)], check=True)


def fetch(address: str) -> str:
    """The guestbook's page; the service answers a moment after its pods are ready."""
    give_up_s = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/cgi-bin/index", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.3)


def sign(address: str, entry: str) -> None:
    request = urllib.request.Request(f"http://{address}/cgi-bin/sign", entry.encode(), method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:
        answer.read()


def main() -> int:
    subprocess.run([*NAVARCH, "up", "--name", NAME, "--detach"], check=True)
    status = json.loads(
        subprocess.run(
            [*NAVARCH, "status", "--name", NAME, "-o", "json"], check=True, text=True, stdout=subprocess.PIPE
        ).stdout
    )
    real = status["runtime"] == "containerd"
    if real:
        load_image()
    else:
        why = "this user is not root" if os.geteuid() else "containers cannot run on this machine"
        say(f"Nodes are simulated, because {why}: pods get no containers, and the page is not fetched.")
    kubectl("apply", "-k", str(ROOT / "examples" / "guestbook"))
    for deployment in ("storage", "frontend"):
        kubectl("rollout", "status", f"deployment/{deployment}", "--timeout=180s")
    say()
    kubectl("get", "pods,services,endpointslices", "-o", "wide")
    if real:
        address = kubectl("get", "service", "frontend", "-o", "jsonpath={.spec.clusterIP}", capture=True)
        say(f"\nhttp://{address}/ answers:")
        page = fetch(address)
        if "Hello" not in page:
            sign(address, f"Hello from {os.uname().nodename}")
            page = fetch(address)
        print(page.strip())
    say(
        f"""
Try next:
  .venv/bin/navarch kubectl --name {NAME} get pods --watch
  .venv/bin/navarch kubectl --name {NAME} scale deployment/frontend --replicas=10
  .venv/bin/navarch kubectl --name {NAME} logs deployment/frontend
  .venv/bin/navarch status --name {NAME}
  .venv/bin/navarch down --name {NAME} --purge     to delete it; `make clean` deletes every cluster of yours"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
