"""kubectl reaching into containers: run, logs, exec, attach, cp, port-forward, debug, proxy, describe, events."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import re
import select
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from navarch.cli.kubectl import find_kubectl

from .batch import Batch, container_status
from .conftest import Cluster
from .objects import BUSYBOX, deployment

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
BATCH = Batch()
FOREVER = "trap exit TERM; while :; do sleep 0.1; done"
SERVE = "mkdir /w; echo fine > /w/index.html; httpd -p 8080 -h /w; "

BATCH.pod("shell", f"{SERVE}{FOREVER}", container={"ports": [{"name": "web", "containerPort": 8080}]})
BATCH.pod("chatty", "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; sleep 2; echo last")
BATCH.pod(
    "several",
    initContainers=[{"name": "first", "image": BUSYBOX, "command": ["echo", "from first"]}],
    containers=[
        {"name": "one", "image": BUSYBOX, "command": ["sh", "-c", f"echo from one; {FOREVER}"]},
        {"name": "two", "image": BUSYBOX, "command": ["sh", "-c", f"echo from two; {FOREVER}"]},
    ],
)
BATCH.pod(
    "interactive",
    'echo hello; while read line; do echo "got $line"; done',
    container={"stdin": True, "tty": False},
)
BATCH.need("Service", "web", spec={"selector": {"app": "shell"}, "ports": [{"port": 80, "targetPort": "web"}]})
DEPLOYMENT = deployment("served", image=BUSYBOX, command=["sh", "-c", SERVE + FOREVER])
DEPLOYMENT["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
BATCH.objects.append(DEPLOYMENT)


@pytest.fixture(scope="module")
def batch(containers: Cluster) -> Iterator[Batch]:
    yield from BATCH.run(containers)


def command(batch: Batch, *arguments: str) -> list[str]:
    kubeconfig = str(batch.cluster.config.admin_kubeconfig)
    return [find_kubectl(), "--kubeconfig", kubeconfig, "-n", batch.namespace, *arguments]


def binary(batch: Batch, *arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(command(batch, *arguments), input=stdin, capture_output=True, timeout=60, check=True)
    return done.stdout


# Logs.


def test_logs_by_lines_bytes_and_time(batch: Batch) -> None:
    batch.ended("chatty")
    every = [f"{stream} {number}" for number in range(1, 6) for stream in ("out", "err")]

    assert sorted(batch.kubectl("logs", "chatty").splitlines()) == sorted([*every, "last"])
    assert batch.kubectl("logs", "chatty", "--tail=1") == "last\n"
    assert batch.kubectl("logs", "chatty", "--limit-bytes=1") in ("o", "e")
    stamped = batch.kubectl("logs", "chatty", "--tail=1", "--timestamps")
    when, text = stamped.strip().split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", when)
    assert text == "last"
    assert batch.kubectl("logs", "chatty", f"--since-time={when}") == "last\n"
    assert len(batch.kubectl("logs", "chatty", "--since=1h").splitlines()) == 11


def test_logs_of_some_and_of_all_containers(batch: Batch) -> None:
    batch.ready("several")

    assert batch.kubectl("logs", "several", "-c", "two") == "from two\n"
    assert batch.kubectl("logs", "several", "-c", "first") == "from first\n"
    told = batch.kubectl("logs", "several", "--all-containers", "--prefix").splitlines()
    assert sorted(told) == [
        "[pod/several/first] from first",
        "[pod/several/one] from one",
        "[pod/several/two] from two",
    ]
    defaulted = batch.cluster.try_kubectl("-n", batch.namespace, "logs", "several")
    assert 'Defaulted container "one" out of: one, two, first (init)' in defaulted.stderr
    assert defaulted.stdout == "from one\n"
    missing = batch.cluster.try_kubectl("-n", batch.namespace, "logs", "several", "-c", "nope")
    assert "container nope is not valid for pod several" in missing.stderr
    assert batch.kubectl("logs", "-l", "app=several", "-c", "one") == "from one\n"


def test_followed_logs_arrive_as_they_are_written_and_end_with_the_container(batch: Batch) -> None:
    batch.cluster.kubectl(
        "-n", batch.namespace, "run", "ticking", f"--image={BUSYBOX}", "--restart=Never", "--",
        "sh", "-c", "for i in 1 2 3; do echo tick; sleep 0.5; done",
    )  # fmt: skip
    batch.until("ticking", lambda pod: pod["status"].get("phase") in ("Running", "Succeeded"))

    began_s = time.monotonic()
    told = batch.kubectl("logs", "-f", "ticking")

    assert told == "tick\n" * 3
    assert time.monotonic() - began_s < 20, "it ends with the container, not with a limit on waiting"


def test_previous_logs(batch: Batch) -> None:
    missing = batch.cluster.try_kubectl("-n", batch.namespace, "logs", "shell", "--previous")
    assert 'previous terminated container "main" in pod "shell" not found' in missing.stderr


# Exec.


def test_exec_gives_output_and_exit_code(batch: Batch) -> None:
    batch.ready("shell")

    done = batch.cluster.try_kubectl(
        "-n", batch.namespace, "exec", "shell", "--", "sh", "-c", "echo out; echo err >&2; exit 42"
    )

    assert (done.returncode, done.stdout) == (42, "out\n")
    assert done.stderr == "err\ncommand terminated with exit code 42\n"
    assert batch.kubectl("exec", "deploy/served", "--", "hostname").startswith("served-")


def test_exec_of_what_does_not_exist(batch: Batch) -> None:
    batch.ready("shell")

    nothing = batch.cluster.try_kubectl("-n", batch.namespace, "exec", "shell", "--", "/no/such")
    assert nothing.returncode != 0
    assert "no such file or directory" in nothing.stderr
    nobody = batch.cluster.try_kubectl("-n", batch.namespace, "exec", "nobody", "--", "true")
    assert 'pods "nobody" not found' in nobody.stderr


def test_exec_passes_standard_input_and_binary_data(batch: Batch) -> None:
    batch.ready("shell")
    data = os.urandom(300_000)

    assert binary(batch, "exec", "-i", "shell", "--", "cat", stdin=data) == data
    assert batch.kubectl("exec", "-i", "shell", "--", "wc", "-c", stdin="four").strip() == "4"


def test_exec_carries_ten_megabytes(batch: Batch) -> None:
    batch.ready("shell")

    data = binary(batch, "exec", "shell", "--", "sh", "-c", "head -c 10485760 /dev/zero | tr '\\0' x")

    assert len(data) == 10 << 20
    assert set(data) == {ord("x")}


def read_until(master: int, wanted: bytes, timeout_s: float = 15) -> bytes:
    seen = b""
    give_up_s = time.monotonic() + timeout_s
    while wanted not in seen:
        ready, _, _ = select.select([master], [], [], max(give_up_s - time.monotonic(), 0))
        if not ready:
            raise AssertionError(f"{wanted!r} not in {seen!r}")
        try:
            seen += os.read(master, 4096)
        except OSError:
            break
    return seen


@contextlib.contextmanager
def terminal(batch: Batch, *arguments: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """kubectl with a terminal of 40 lines and 100 columns; gives our end of it."""
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(command(batch, *arguments), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        yield master, process
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_exec_with_a_terminal(batch: Batch) -> None:
    batch.ready("shell")

    with terminal(batch, "exec", "-it", "shell", "--", "sh") as (master, process):
        os.write(master, b"tty; sleep 0.3; stty size; exit 7\n")
        seen = read_until(master, b"exit code 7")
        assert process.wait(10) == 7

    assert b"/dev/pts/" in seen
    assert b"40 100" in seen


# Run and attach.


def test_run_attached_gives_output_and_exit_code(batch: Batch) -> None:
    name = "attached"
    done = batch.cluster.try_kubectl(
        "-n", batch.namespace, "run", name, f"--image={BUSYBOX}", "--restart=Never", "--rm", "-i", "-q", "--",
        "sh", "-c", "cat; exit 3", stdin="through and through\n",
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (3, "through and through\n")
    assert batch.cluster.try_kubectl("-n", batch.namespace, "get", "pod", name).returncode == 1


def test_attach_reaches_the_main_process(batch: Batch) -> None:
    batch.ready("interactive")

    process = subprocess.Popen(
        command(batch, "attach", "-i", "-q", "interactive"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdin
        assert process.stdout
        time.sleep(0.5)
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got one\n"
    finally:
        process.kill()
        process.wait()
    assert "got one" in batch.kubectl("logs", "interactive")


# Copy.


def test_files_are_copied_both_ways(batch: Batch, tmp_path: Path) -> None:
    batch.ready("shell")
    there = tmp_path / "there"
    (there / "sub").mkdir(parents=True)
    (there / "sub" / "binary").write_bytes(os.urandom(2_000_000))
    (there / "text").write_text("text")

    batch.kubectl("cp", str(there), "shell:/tmp/copied")
    batch.kubectl("cp", "shell:/tmp/copied", str(tmp_path / "back"))

    wanted = hashlib.md5((there / "sub" / "binary").read_bytes()).hexdigest()
    assert wanted in batch.exec("shell", "md5sum /tmp/copied/sub/binary")
    assert (tmp_path / "back" / "sub" / "binary").read_bytes() == (there / "sub" / "binary").read_bytes()
    assert (tmp_path / "back" / "text").read_text() == "text"


# Ports.


@contextlib.contextmanager
def listening(batch: Batch, *arguments: str) -> Iterator[int]:
    """A kubectl that listens on a port of its choice."""
    process = subprocess.Popen(command(batch, *arguments), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        found = re.search(r":(\d+)", process.stdout.readline())
        assert found
        yield int(found[1])
    finally:
        process.kill()
        process.wait()


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("target", "port"),
    [("pod/shell", "8080"), ("pod/shell", "web"), ("service/web", "80"), ("deployment/served", "8080")],
)
def test_ports_are_forwarded(batch: Batch, target: str, port: str) -> None:
    batch.ready("shell")
    batch.kubectl("rollout", "status", "deployment/served", "--timeout=30s")

    with listening(batch, "port-forward", target, f":{port}") as local:
        assert [fetch(f"http://127.0.0.1:{local}/") for _ in range(5)] == ["fine\n"] * 5


def test_a_forwarded_port_that_nobody_serves_closes_the_connection(batch: Batch) -> None:
    batch.ready("shell")

    with (
        listening(batch, "port-forward", "pod/shell", ":9") as local,
        socket.create_connection(("127.0.0.1", local)) as one,
    ):
        one.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert one.recv(10) == b""


def test_proxy_reaches_pods_services_and_nodes(batch: Batch) -> None:
    batch.ready("shell")
    node = batch.get("nodes")["items"][0]["metadata"]["name"]

    with listening(batch, "proxy", "--port=0") as local:
        base = f"http://127.0.0.1:{local}/api/v1"
        here = f"{base}/namespaces/{batch.namespace}"
        batch.cluster.wait_until(lambda: batch.get("endpoints", "web").get("subsets"), 20)
        assert fetch(f"{here}/pods/shell:8080/proxy/index.html") == "fine\n"
        assert fetch(f"{here}/services/web:80/proxy/") == "fine\n"
        assert fetch(f"{here}/services/web/proxy/index.html") == "fine\n"
        assert fetch(f"{base}/nodes/{node}/proxy/healthz") == "ok"
        with pytest.raises(urllib.error.HTTPError) as refused:
            fetch(f"{here}/pods/shell:8080/proxy/absent")
        assert refused.value.code == 404


# Debug.


def test_debug_adds_a_container_to_a_running_pod(batch: Batch) -> None:
    pod = batch.ready("shell")

    batch.kubectl(
        "debug", "shell", f"--image={BUSYBOX}", "-c", "helper", "--target=main", "--profile=general", "--",
        "sh", "-c", "ps -o args; echo seen; sleep 30",
    )  # fmt: skip

    batch.cluster.wait_until(lambda: "seen" in batch.kubectl("logs", "shell", "-c", "helper"), 20)
    assert "httpd" in batch.kubectl("logs", "shell", "-c", "helper")
    after = batch.get("pod", "shell")
    assert "running" in container_status(after, "helper")["state"]
    assert container_status(after)["containerID"] == container_status(pod)["containerID"]
    batch.kubectl("debug", "shell", f"--image={BUSYBOX}", "-c", "second", "--profile=general", "--", "true")
    batch.until("shell", lambda pod: "terminated" in container_status(pod, "second")["state"])
    assert len(batch.get("pod", "shell")["spec"]["ephemeralContainers"]) == 2


def test_debug_of_the_node_sees_its_files(batch: Batch) -> None:
    node = batch.get("nodes")["items"][0]["metadata"]["name"]

    told = batch.kubectl("debug", f"node/{node}", f"--image={BUSYBOX}", "--profile=general", "--", "ls", "/host")
    name = re.search(r"pod (\S+)", told)
    assert name

    assert "etc" in batch.said(name[1], "debugger").split()
    assert batch.get("pod", name[1])["spec"]["hostNetwork"] is True


def test_debug_of_a_copy_leaves_the_pod_alone(batch: Batch) -> None:
    batch.ready("shell")

    batch.kubectl(
        "debug",
        "shell",
        "--copy-to=copied",
        f"--image={BUSYBOX}",
        "-c",
        "extra",
        "--profile=general",
        "--",
        "sleep",
        "60",
    )

    pod = batch.until("copied", lambda pod: "running" in container_status(pod, "extra")["state"])
    assert {one["name"] for one in pod["spec"]["containers"]} == {"main", "extra"}
    batch.kubectl("delete", "pod", "copied", "--wait=false")


# What is told.


def test_describe_tells_how_a_pod_is(batch: Batch) -> None:
    batch.ready("shell")

    told = batch.kubectl("describe", "pod", "shell")

    for words in (
        "Status:           Running",
        "State:          Running",
        "Ready:          True",
        "ContainersReady             True",
        "QoS Class:                   BestEffort",
        "Successfully assigned",
        "Container started" if "Container started" in told else "Started container main",
    ):
        assert words in told, told
    node = batch.get("pod", "shell")["spec"]["nodeName"]
    told = batch.kubectl("describe", "node", node)
    assert "KubeletReady" in told
    assert f"{batch.namespace:<25}" in told.replace("\t", " ") or batch.namespace in told


def test_events_and_wait(batch: Batch) -> None:
    assert "condition met" in batch.kubectl("wait", "--for=condition=Ready", "pod/shell", "--timeout=30s")
    assert "condition met" in batch.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/shell")
    reasons = {line.split()[2] for line in batch.kubectl("events", "--for", "pod/shell", "--no-headers").splitlines()}

    assert {"Scheduled", "Pulled", "Created", "Started"} <= reasons


def test_a_rollout_replaces_running_pods_and_can_be_undone(batch: Batch) -> None:
    batch.kubectl("rollout", "status", "deployment/served", "--timeout=30s")
    batch.kubectl("set", "env", "deployment/served", "VERSION=2")
    batch.kubectl("rollout", "status", "deployment/served", "--timeout=30s")
    batch.cluster.wait_until(
        lambda: "2" in batch.kubectl("exec", "deploy/served", "--", "sh", "-c", "echo $VERSION"), 20
    )

    batch.kubectl("rollout", "undo", "deployment/served")
    batch.kubectl("rollout", "status", "deployment/served", "--timeout=30s")
    batch.cluster.wait_until(lambda: len(batch.get("pods", "-l", "app=served")["items"]) == 1, 20)

    assert batch.kubectl("exec", "deploy/served", "--", "sh", "-c", "echo $VERSION").strip() == ""
    batch.kubectl("rollout", "restart", "deployment/served")
    batch.kubectl("rollout", "status", "deployment/served", "--timeout=30s")


def test_replace_by_force_makes_the_pod_anew(batch: Batch) -> None:
    import json

    batch.kubectl("run", "replaced", f"--image={BUSYBOX}", "--restart=Never", "--", "sleep", "60")
    old = batch.ready("replaced")
    new = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "replaced"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "replaced", "image": BUSYBOX, "command": ["echo", "new"]}],
        },
    }

    batch.kubectl("replace", "--force", "--grace-period=0", "-f", "-", stdin=json.dumps(new))

    assert batch.said("replaced", "replaced") == "new\n"
    assert batch.get("pod", "replaced")["metadata"]["uid"] != old["metadata"]["uid"]
