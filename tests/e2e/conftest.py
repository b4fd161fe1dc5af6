"""Running clusters for the tests that act as a user would: through the command line, kubectl and client libraries.

`simulated` is a cluster with simulated nodes (no root needed); `containers` one with real containers, with the image
`localhost/busybox:1` loaded; `three_nodes` one with three real nodes, and the image on each. They live for the whole
run and leave nothing behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.cli.kubectl import find_kubectl
from navarch.cluster import workers
from navarch.cluster.config import ClusterConfig
from navarch.node.containerd import why_unavailable
from navarch.node.names import HostNames, bridge_of

BUSYBOX = "localhost/busybox:1"
NAVARCH = [sys.executable, "-m", "navarch.cli.main"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder drives running clusters."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


class KubectlError(AssertionError):
    """kubectl failed; the message is what it said."""


class Cluster:
    """A running cluster and the ways to talk to it."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.home = home
        self.env = {**os.environ, "NAVARCH_HOME": str(home), "KUBECONFIG": str(home / "kubeconfig")}
        self.env.pop("NAVARCH_NAME", None)

    def navarch(self, *arguments: str, check: bool = True, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*NAVARCH, *arguments], env=self.env, text=True, capture_output=True, timeout=timeout_s, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"navarch {' '.join(arguments)}: {done.stderr}{done.stdout}\n{self.logs()}")
        return done

    def logs(self) -> str:
        lines: list[str] = []
        for file in sorted(self.config.logs.glob("*.log")):
            lines += [f"--- {file.name}", *file.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(lines)

    @property
    def config(self) -> ClusterConfig:
        return ClusterConfig.load(self.home / self.name)

    def try_kubectl(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        command = [find_kubectl(), "--kubeconfig", str(self.config.admin_kubeconfig), *arguments]
        return subprocess.run(
            command, env=self.env, text=True, input=stdin, capture_output=True, timeout=timeout_s, check=False
        )

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """What kubectl printed on stdout; raises KubectlError with its stderr where it failed."""
        done = self.try_kubectl(*arguments, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: Any, namespace: str = "default") -> str:
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(document))

    def wait_until(self, condition: Callable[[], Any], timeout_s: float = 60, what: str = "") -> Any:
        """The condition's first true value; a failing kubectl counts as not yet."""
        give_up_s = time.monotonic() + timeout_s
        last: Exception | None = None
        while time.monotonic() < give_up_s:
            try:
                if value := condition():
                    return value
                last = None
            except KubectlError as error:
                last = error
            time.sleep(0.1)
        raise AssertionError(f"did not happen within {timeout_s} s: {what or condition} {last or ''}")


def _running(name: str, home: Path, *flags: str) -> Iterator[Cluster]:
    cluster = Cluster(name, home)
    try:
        cluster.navarch("up", "--name", name, "--detach", "--wait", "60s", *flags)
        yield cluster
    finally:
        if (home / name / "cluster.json").exists():
            cluster.navarch("down", "--name", name, "--purge", "--grace", "1s")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three simulated nodes."""
    home = tmp_path_factory.mktemp("navarch")
    yield from _running("e2e-sim", home, "--runtime", "simulated", "--nodes", "3")


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that runs real containers."""
    why = why_unavailable()
    if why:
        pytest.skip(why)
    from navarch.node.images.archives import Platform, busybox_files, host_architecture, write_image

    home = tmp_path_factory.mktemp("nav")
    archive = home / "busybox.tar"
    files = tuple(busybox_files(Path("/bin/busybox")))
    write_image(archive, BUSYBOX, [Platform(host_architecture(), files)])
    # Several runs share a machine, and what a cluster puts there has its name.
    name = f"e2e-{os.getpid()}"
    for cluster in _running(name, home, "--runtime", "containerd"):
        cluster.navarch("image", "load", "--name", name, str(archive))
        yield cluster


@pytest.fixture(scope="session")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three real nodes on this machine; one that is cut off is given up within some seconds."""
    why = why_unavailable()
    if why:
        pytest.skip(why)
    from navarch.node.images.archives import Platform, busybox_files, host_architecture, write_image

    home = tmp_path_factory.mktemp("three")
    archive = home / "busybox.tar"
    write_image(archive, BUSYBOX, [Platform(host_architecture(), tuple(busybox_files(Path("/bin/busybox"))))])
    kubelet = home / "kubelet.yaml"
    kubelet.write_text(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nnodeLeaseDurationSeconds: 8\n"
        # Machines of developers swap, and their disks are full.
        "failSwapOn: false\nevictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}\n"
    )
    settings = home / "cluster.yaml"
    settings.write_text(
        "apiVersion: navarch.dev/v1\nkind: Cluster\nspec:\n  workers: 2\n  runtime: containerd\n"
        f"  kubeletConfig: {kubelet}\n"
        "  controllerManager: {node-monitor-grace-period: 10s, node-monitor-period: 1s}\n"
    )
    name = f"three-{os.getpid()}"
    for cluster in _running(name, home, "--config", str(settings)):
        cluster.navarch("image", "load", "--name", name, str(archive))
        nodes = [HostNames(name, node) for node in (cluster.config.node_name, *workers.names(cluster.config))]
        assert left_of(nodes)
        yield cluster
    assert left_of(nodes) == []


def left_of(nodes: list[HostNames]) -> list[str]:
    """What of a cluster's nodes is on this machine: links, network namespaces, tables, cgroups."""
    wholes = [node.whole for node in nodes]
    links = {bridge_of(nodes[0].cluster), *(link for node in nodes for link in (node.bridge, node.uplink))}
    found = [link for link in os.listdir("/sys/class/net") if link in links]
    found += [space for space in wholes if Path("/run/netns", space).exists()]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout.split()
    found += [word for word in tables if word.startswith(f"navarch-{nodes[0].cluster}_")]
    return found + [str(place) for whole in wholes for place in Path("/sys/fs/cgroup").rglob(f"{whole}*")]


@pytest.fixture
def nodes_namespace(three_nodes: Cluster) -> Iterator[str]:
    """A namespace of its own in the cluster of three nodes, for one test."""
    yield from _namespace(three_nodes)


def _namespace(cluster: Cluster) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    # Made by a controller a moment later; until then pods are held up and tokens refused.
    cluster.wait_until(lambda: cluster.get("serviceaccount", "default", "-n", name), 10, "the default service account")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(simulated: Cluster) -> Iterator[str]:
    """A namespace of its own in the simulated cluster, for one test."""
    yield from _namespace(simulated)


@pytest.fixture
def real_namespace(containers: Cluster) -> Iterator[str]:
    """A namespace of its own in the cluster with containers, for one test."""
    yield from _namespace(containers)
