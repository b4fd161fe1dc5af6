"""`kill -9` of containers, of the kubelet and of containerd, and a cluster stopped and started: pods go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.cluster.state import ClusterState, alive, start_ticks
from navarch.node.containerd import why_unavailable
from navarch.node.images.archives import Platform, busybox_files, host_architecture, write_image

from ..ports import free_port
from .batch import container_status, is_ready
from .conftest import Cluster, _running
from .objects import BUSYBOX, deployment, pod

pytestmark = [pytest.mark.e2e, pytest.mark.containers]
# Found on the machine by its argument.
SECONDS = "98765432"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that other tests do not mind losing for moments, with a pod and a deployment."""
    why = why_unavailable()
    if why:
        pytest.skip(why)
    home = tmp_path_factory.mktemp("rec")
    archive = home / "busybox.tar"
    write_image(archive, BUSYBOX, [Platform(host_architecture(), tuple(busybox_files(Path("/bin/busybox"))))])
    for cluster in _running("e2e-rec", home, "--runtime", "containerd", "--port", str(free_port())):
        cluster.navarch("image", "load", "--name", "e2e-rec", str(archive))
        web = deployment("web", 2, image=BUSYBOX, command=["sleep", "1000000"])
        web["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
        cluster.apply(pod("kept", "sleep", SECONDS), web)
        cluster.kubectl("wait", "--for=condition=Ready", "pod/kept", "--timeout=30s")
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
        yield cluster


def process() -> tuple[int, int]:
    """The pid and the start of the pod's process."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if entry.read_bytes() == f"sleep\0{SECONDS}\0".encode():
                return int(entry.parent.name), start_ticks(int(entry.parent.name))
        except OSError:
            continue
    return 0, 0


def kill_component(cluster: Cluster, name: str) -> None:
    pid = ClusterState.load(cluster.config.run).components[name].pid
    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        component = ClusterState.load(cluster.config.run).components[name]
        return component.pid != pid and alive(component)

    cluster.wait_until(replaced, 20, f"{name} is replaced")


def kept(cluster: Cluster) -> dict[str, Any]:
    return dict(cluster.get("pod", "kept"))


@pytest.mark.parametrize("component", ["node", "containerd", "apiserver", "controllers"])
def test_containers_outlive_every_process_of_the_cluster(cluster: Cluster, component: str) -> None:
    before, status = process(), container_status(kept(cluster))
    assert before[0]

    kill_component(cluster, component)

    cluster.wait_until(lambda: cluster.kubectl("exec", "kept", "--", "echo", "here") == "here\n", 30, "exec works")
    assert process() == before
    after = container_status(kept(cluster))
    assert (after["containerID"], after["restartCount"]) == (status["containerID"], status["restartCount"])
    name = f"after-{component}"
    cluster.apply(pod(name, "sleep", "1000"))
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")
    cluster.kubectl("delete", "pod", name)
    assert is_ready(kept(cluster))


def test_a_killed_container_is_started_again(cluster: Cluster) -> None:
    pid, _ = process()
    count = container_status(kept(cluster))["restartCount"]

    os.kill(pid, signal.SIGKILL)

    cluster.wait_until(lambda: container_status(kept(cluster))["restartCount"] == count + 1 and is_ready(kept(cluster)))
    ended = container_status(kept(cluster))["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "Error")
    assert process()[0] not in (0, pid)


def test_what_happened_while_the_kubelet_was_away_is_caught_up_with(cluster: Cluster) -> None:
    cluster.apply(pod("doomed", "sleep", "1000"), pod("ending", "sleep", "2", restartPolicy="Never"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/doomed", "pod/ending", "--timeout=30s")
    os.kill(ClusterState.load(cluster.config.run).components["node"].pid, signal.SIGSTOP)
    try:
        cluster.kubectl("delete", "pod", "doomed", "--wait=false")
        cluster.apply(pod("late", "sleep", "1000"))
    finally:
        kill_component(cluster, "node")

    cluster.kubectl("wait", "--for=condition=Ready", "pod/late", "--timeout=30s")
    cluster.kubectl("wait", "--for=delete", "pod/doomed", "--timeout=30s")
    cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/ending", "--timeout=30s")
    cluster.kubectl("delete", "pod", "late", "ending")


def test_a_stopped_and_started_cluster_runs_the_same_pods(cluster: Cluster) -> None:
    def web() -> dict[str, dict[str, Any]]:
        return {item["metadata"]["uid"]: item for item in cluster.get("pods", "-l", "app=web")["items"]}

    before, uid = web(), kept(cluster)["metadata"]["uid"]

    cluster.navarch("down", "--name", cluster.name)
    cluster.navarch("up", "--name", cluster.name, "--detach", "--wait", "60s")

    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    cluster.wait_until(lambda: is_ready(kept(cluster)), 40)
    cluster.wait_until(lambda: cluster.kubectl("exec", "kept", "--", "echo", "here") == "here\n", 30)
    assert kept(cluster)["metadata"]["uid"] == uid
    assert process()[0]
    assert set(web()) == set(before)
    assert all(is_ready(item) for item in web().values())
    addresses = [item["status"]["podIP"] for item in (*web().values(), kept(cluster))]
    assert len(set(addresses)) == 3
