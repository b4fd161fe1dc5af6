"""What a cluster with real containers leaves on the machine when it is taken down: nothing, whatever was killed before.

Others may run containers beside it, so the test does not count what the machine has: it notes everything that belongs
to the cluster while it runs, and looks for each of these things afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from navarch.cluster import strays
from navarch.cluster.state import start_ticks
from navarch.node.containerd import ContainerdPaths, shims_of, why_unavailable
from navarch.node.images.archives import Platform, busybox_files, host_architecture, write_image
from navarch.node.names import HostNames
from navarch.node.runtime.base import State
from navarch.node.runtime.cri import CRIRuntime

from .conftest import Cluster, _running
from .objects import BUSYBOX

pytestmark = [pytest.mark.e2e, pytest.mark.containers]

_SPACES = ("net", "mnt", "ipc", "uts", "pid", "cgroup")
_STATE = tuple(map(Path, ("/var/lib/cni", "/run/netns", "/run/containerd")))


@dataclass
class Footprint:
    """Everything of a running cluster that is not a file in its own folder."""

    names: HostNames
    folder: Path
    pods: set[str] = field(default_factory=set)
    containers: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    spaces: set[str] = field(default_factory=set)
    processes: set[tuple[int, int]] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)
    routes: set[str] = field(default_factory=set)

    @property
    def words(self) -> set[str]:
        """What lines and paths that are the cluster's have in them."""
        return {self.names.whole, self.names.bridge, str(self.folder), *self.pods, *self.containers}

    def left(self) -> list[str]:
        """Which of it is still on the machine."""
        found = [f"mount {line}" for line in lines("/proc/self/mountinfo") if self._is_ours(line)]
        found += [f"table {line}" for line in output("nft", "list", "tables") if self._is_ours(line)]
        # `os.walk` goes on where the groups of other clusters vanish meanwhile.
        groups = (f"{folder}/{name}" for folder, names, _ in os.walk("/sys/fs/cgroup") for name in names)
        found += [f"cgroup {place}" for place in groups if self._is_ours(place.rpartition("/")[2])]
        found += [f"link {name}" for name in self.links if Path("/sys/class/net", name).exists()]
        found += [f"route {line}" for line in self.routes & set(output("ip", "route"))]
        found += [f"process {pid} {command(pid)}" for pid, ticks in self.processes if start_ticks(pid) == ticks]
        found += [f"process {stray}" for stray in strays.processes_of(self.folder)]
        found += [f"shim {pid}" for pid in shims(self.folder)]
        found += [f"namespace {space} of {pid}" for pid, space in spaces_of_processes() if space in self.spaces]
        found += [f"file {file}" for file in self.files if file.exists() or file.is_symlink()]
        found += [f"file {file}" for place in _STATE for file in place.rglob("*") if self._is_ours(file.name)]
        return found

    def _is_ours(self, text: str) -> bool:
        return any(word in text for word in self.words) or any(f" {space} " in text for space in self.spaces)


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def output(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def shims(folder: Path) -> list[int]:
    return shims_of(ContainerdPaths(folder / "node", folder / "run"))


def spaces_of_processes() -> Iterator[tuple[int, str]]:
    """Of those that live: one that has ended and that init has yet to reap still names its PID namespace."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and start_ticks(int(entry.name)):
            for kind in _SPACES:
                with contextlib.suppress(OSError):
                    yield int(entry.name), os.readlink(entry / "ns" / kind)


async def _ids(socket: Path) -> tuple[set[str], set[str]]:
    runtime = CRIRuntime(socket)
    try:
        pods, containers = await runtime.list_sandboxes(), await runtime.list_containers()
        running = {container.id for container in containers if container.state == State.RUNNING}
        return {pod.id for pod in pods}, running
    finally:
        await runtime.close()


def footprint(cluster: Cluster) -> Footprint:
    config = cluster.config
    made = Footprint(HostNames(config.name, config.node_name), config.root)
    made.pods, made.containers = asyncio.run(_ids(config.run / "containerd.sock"))
    own = {os.readlink(f"/proc/self/ns/{kind}") for kind in _SPACES}
    in_pods = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and made.names.whole in (entry / "cgroup").read_text():
                in_pods.add(int(entry.name))
    made.spaces = {space for pid, space in spaces_of_processes() if pid in in_pods} - own
    everyone = {*in_pods, *shims(config.root), *(stray.pid for stray in strays.processes_of(config.root))}
    made.processes = {(pid, ticks) for pid in everyone if (ticks := start_ticks(pid))}
    bridged = Path(f"/sys/class/net/{made.names.bridge}/brif")
    made.links = {made.names.bridge, *(os.listdir(bridged) if bridged.is_dir() else ())}
    made.routes = {line for line in output("ip", "route") if made.names.bridge in line}
    for bundle in config.run.glob("containerd/*/*/*/address"):
        made.files |= {Path(found) for found in re.findall(r"/run/containerd/s/\w+", bundle.read_text())}
    return made


def script(said: Path, on_term: str) -> list[str]:
    return ["sh", "-c", f"trap '{on_term}' TERM; while :; do sleep 0.1; done"]


def pods(place: Path) -> list[dict[str, object]]:
    """One that ends when it is told to, with a hook, and one that never would."""
    mount = {"name": "place", "mountPath": "/place"}
    volumes = [{"name": "place", "hostPath": {"path": str(place)}}]
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo > /place/hook"]}}}
    polite = {"name": "main", "image": BUSYBOX, "command": script(place, "echo > /place/term; exit 0"),
              "lifecycle": hook, "volumeMounts": [mount]}  # fmt: skip
    stubborn = {"name": "main", "image": BUSYBOX, "command": script(place, "echo")}
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
         "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 300}}
        for name, container in (("polite", polite), ("stubborn", stubborn))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that is taken down and comes back."""
    why = why_unavailable()
    if why:
        pytest.skip(why)
    home = tmp_path_factory.mktemp("tr")
    archive, place = home / "busybox.tar", home / "place"
    place.mkdir()
    write_image(archive, BUSYBOX, [Platform(host_architecture(), tuple(busybox_files(Path("/bin/busybox"))))])
    name = f"tr-{os.getpid()}"
    # Not one that another run's cluster takes while this one is down.
    port = str(20_000 + os.getpid() % 10_000)
    for cluster in _running(name, home, "--runtime", "containerd", "--port", port):
        cluster.navarch("image", "load", "--name", name, str(archive))
        cluster.apply(*pods(place))
        yield cluster


@pytest.fixture
def running(ours: Cluster) -> tuple[Cluster, Footprint]:
    """It runs, and its pods do, too."""
    ours.navarch("up", "--name", ours.name, "--detach", "--wait", "60s")
    ours.kubectl("wait", "--for=condition=Ready", "pod/polite", "pod/stubborn", "--timeout=90s")
    # What the API says may be from before the cluster was taken down.
    ours.wait_until(lambda: len(asyncio.run(_ids(ours.config.run / "containerd.sock"))[1]) == 2, what="two containers")
    for file in (ours.home / "place").iterdir():
        file.unlink()
    made = footprint(ours)
    assert len(made.pods) >= 2
    assert len(made.containers) >= 2
    assert len(made.links) >= 3
    assert len(made.spaces) >= 6
    assert made.files
    kinds = {line.split()[0] for line in made.left()}
    assert kinds == {"mount", "table", "cgroup", "link", "route", "process", "shim", "namespace", "file"}
    return ours, made


def kill(find: Callable[[], list[int]]) -> None:
    """Until none is left: processes start one another anew."""
    give_up_s = time.monotonic() + 30
    while pids := find():
        assert time.monotonic() < give_up_s
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_down_ends_pods_as_they_ask_to_be_and_leaves_nothing(running: tuple[Cluster, Footprint]) -> None:
    cluster, made = running
    began_s = time.monotonic()

    done = cluster.navarch("down", "--name", cluster.name, "--grace", "3s")

    took_s = time.monotonic() - began_s
    assert made.left() == []
    assert {file.name for file in (cluster.home / "place").iterdir()} == {"hook", "term"}
    assert 3 <= took_s < 40, "the stubborn one has what --grace gives it, whatever it asks for"
    assert "could not" not in done.stderr


def test_nothing_is_left_when_its_processes_were_killed(running: tuple[Cluster, Footprint]) -> None:
    cluster, made = running
    kill(lambda: [stray.pid for stray in strays.processes_of(cluster.config.root)])
    assert shims(cluster.config.root)

    cluster.navarch("down", "--name", cluster.name, "--grace", "2s")

    assert made.left() == []
    assert {file.name for file in (cluster.home / "place").iterdir()} == {"hook", "term"}


def test_nothing_is_left_when_everything_was_killed(running: tuple[Cluster, Footprint]) -> None:
    cluster, made = running
    kill(lambda: [stray.pid for stray in strays.processes_of(cluster.config.root)] + shims(cluster.config.root))

    cluster.navarch("down", "--name", cluster.name, "--grace", "2s")

    assert made.left() == []


def test_nothing_is_left_where_containerd_is_gone(running: tuple[Cluster, Footprint], tmp_path: Path) -> None:
    cluster, made = running
    kill(lambda: [stray.pid for stray in strays.processes_of(cluster.config.root)])
    for tool in ("nft", "ip", "iptables"):
        (tmp_path / tool).symlink_to(output("sh", "-c", f"command -v {tool}")[0])
    path, cluster.env["PATH"] = cluster.env["PATH"], str(tmp_path)
    try:
        cluster.navarch("down", "--name", cluster.name, "--grace", "1s")
    finally:
        cluster.env["PATH"] = path

    assert made.left() == []
