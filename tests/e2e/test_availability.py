"""Nothing is lost while things change: rollouts, scaling, deleted pods and killed processes under a load of requests.

The load comes from the node, through the service's virtual IP, with a connection per request and with one that stays.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.cluster.state import ClusterState, alive
from navarch.node.containerd import why_unavailable
from navarch.node.images.archives import Platform, busybox_files, host_architecture, write_image

from .conftest import Cluster, _running
from .load import Echo, Load, Outcome, fetch, resolve
from .objects import BUSYBOX, deployment, pod, service
from .podnet import process_of

# Alone: no request may be lost, and one that waits too long for its turn is.
pytestmark = [pytest.mark.e2e, pytest.mark.containers, pytest.mark.alone]

# Names itself; ends at once when it is told to.
SERVER = (
    "mkdir /www; echo ${VERSION}-$(hostname) > /www/index.html; trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait"
)
READY = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
DRAIN = {"preStop": {"exec": {"command": ["sleep", "2"]}}}


@pytest.fixture(scope="module")
def sturdy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with containers whose processes are killed."""
    why = why_unavailable()
    if why:
        pytest.skip(why)
    home: Path = tmp_path_factory.mktemp("sturdy")
    name = f"sturdy-{os.getpid()}"
    write_image(
        home / "busybox.tar", BUSYBOX, [Platform(host_architecture(), tuple(busybox_files(Path("/bin/busybox"))))]
    )
    for cluster in _running(name, home, "--runtime", "containerd"):
        cluster.navarch("image", "load", "--name", name, str(home / "busybox.tar"))
        cluster.apply(web("web", 3, lifecycle=DRAIN), service("web"), echo(), service("echo", 7, 7000))
        cluster.kubectl("wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")
        rolled_out(cluster)
        yield cluster


def web(name: str, replicas: int, version: str = "one", **container: Any) -> dict[str, Any]:
    obj = deployment(
        name,
        replicas,
        BUSYBOX,
        command=["sh", "-c", SERVER],
        env=[{"name": "VERSION", "value": version}],
        readinessProbe=READY,
        **container,
    )
    obj["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    return obj


def echo() -> dict[str, Any]:
    return pod("echo", "nc", "-ll", "-p", "7000", "-e", "cat")


def rolled_out(cluster: Cluster, name: str = "web") -> None:
    cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")


def ip_of(cluster: Cluster, name: str = "web") -> str:
    return str(cluster.get("service", name)["spec"]["clusterIP"])


def dns_ip(cluster: Cluster) -> str:
    return str(cluster.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIP"])


def running_pods(cluster: Cluster, name: str = "web") -> list[dict[str, Any]]:
    items = cluster.get("pods", "-l", f"app={name}")["items"]
    return [item for item in items if "deletionTimestamp" not in item["metadata"]]


def settle(cluster: Cluster, replicas: int = 3) -> None:
    """Until the service has exactly these endpoints and all of them answer."""
    cluster.wait_until(lambda: len(running_pods(cluster)) == replicas, what=f"{replicas} pods")
    rolled_out(cluster)


def assert_all_answered(outcome: Outcome, least: int = 100) -> None:
    assert outcome.failures == [], f"{len(outcome.failures)} of {outcome.requests}: {outcome.failures[:5]}"
    assert outcome.requests >= least


def test_a_rolling_update_loses_no_request(sturdy: Cluster) -> None:
    with Load(ip_of(sturdy)) as load, Echo(ip_of(sturdy, "echo"), 7) as echo:
        sturdy.kubectl("set", "env", "deployment/web", "VERSION=two")
        rolled_out(sturdy)
        time.sleep(2.5)

    assert_all_answered(load.outcome)
    assert {body.split("-")[0] for body in load.outcome.answers} == {"one", "two"}
    assert fetch(ip_of(sturdy)).startswith("two-")
    assert not echo.broken


def test_a_restarted_rollout_loses_no_request(sturdy: Cluster) -> None:
    with Load(ip_of(sturdy)) as load:
        sturdy.kubectl("rollout", "restart", "deployment/web")
        rolled_out(sturdy)
        time.sleep(2.5)

    assert_all_answered(load.outcome)
    assert len(load.outcome.answers) >= 6


def test_a_connection_to_a_pod_that_drains_lives_until_the_pod_ends(sturdy: Cluster) -> None:
    sturdy.apply(deployment("old", 1, BUSYBOX, command=["nc", "-ll", "-p", "7000", "-e", "cat"], lifecycle=DRAIN))
    sturdy.apply(service("old", 7, 7000))
    rolled_out(sturdy, "old")
    sturdy.wait_until(lambda: running_pods(sturdy, "old")[0]["status"]["podIP"])
    sturdy.wait_until(lambda: connects(ip_of(sturdy, "old"), 7), what="the echo service answers")
    with Echo(ip_of(sturdy, "old"), 7) as echo:
        sturdy.kubectl("rollout", "restart", "deployment/old")
        rolled_out(sturdy, "old")
        time.sleep(0.5)
        said = echo.said
        assert not echo.broken
    assert said > 10
    sturdy.kubectl("delete", "deployment/old", "service/old", "--wait=false")


def connects(address: str, port: int) -> bool:
    try:
        Echo(address, port)._connection.close()
    except OSError:
        return False
    return True


def test_scaling_up_and_down_loses_no_request(sturdy: Cluster) -> None:
    sturdy.kubectl("scale", "deployment/web", "--replicas=1")
    settle(sturdy, 1)
    with Load(ip_of(sturdy)) as load:
        sturdy.kubectl("scale", "deployment/web", "--replicas=20")
        rolled_out(sturdy)
        sturdy.kubectl("scale", "deployment/web", "--replicas=3")
        sturdy.wait_until(lambda: len(sturdy.get("pods", "-l", "app=web")["items"]) == 3, what="three pods left")

    assert_all_answered(load.outcome)
    assert len(load.outcome.answers) > 15, "all of the twenty took part"


def test_a_deleted_pod_is_replaced_without_a_lost_request(sturdy: Cluster) -> None:
    settle(sturdy)
    gone = running_pods(sturdy)[0]["metadata"]["name"]
    with Load(ip_of(sturdy)) as load:
        sturdy.kubectl("delete", "pod", gone)
        settle(sturdy)

    assert_all_answered(load.outcome)


def test_a_killed_container_costs_only_what_it_was_answering(sturdy: Cluster) -> None:
    settle(sturdy)
    victim = running_pods(sturdy)[0]
    with Load(ip_of(sturdy)) as load:
        time.sleep(0.5)
        killed_s = time.monotonic()
        os.kill(main_pid(victim), signal.SIGKILL)
        sturdy.wait_until(lambda: restarts(sturdy, victim) == 1, what="the container is started again")
        sturdy.kubectl("wait", "--for=condition=Ready", f"pod/{victim['metadata']['name']}", "--timeout=30s")
        time.sleep(0.5)

    # Until the kubelet has seen the death and the endpoint is withdrawn, a third of the requests finds nobody.
    late = [failure for failure in load.outcome.failures if failure.at_s > killed_s + 1.0]
    assert not late, late[:5]
    assert len(load.outcome.failures) < 100


def main_pid(obj: dict[str, Any]) -> int:
    """The process of a pod's container."""
    return process_of(obj["status"]["containerStatuses"][0]["containerID"])


def restarts(cluster: Cluster, obj: dict[str, Any]) -> int:
    status = cluster.get("pod", obj["metadata"]["name"])["status"]
    return int(status["containerStatuses"][0]["restartCount"])


def test_without_a_drain_only_the_moment_of_the_end_is_lost(sturdy: Cluster) -> None:
    sturdy.apply(web("abrupt", 3), service("abrupt"))
    rolled_out(sturdy, "abrupt")
    with Load(ip_of(sturdy, "abrupt")) as load:
        sturdy.kubectl("set", "env", "deployment/abrupt", "VERSION=two")
        rolled_out(sturdy, "abrupt")
        time.sleep(1)

    # Three pods end, each a blink before its endpoint is withdrawn: what Kubernetes has preStop hooks for.
    assert len(load.outcome.failures) <= 0.05 * load.outcome.requests, load.outcome.failures[:5]
    sturdy.kubectl("delete", "deployment/abrupt", "service/abrupt", "--wait=false")


@pytest.mark.parametrize("process", ["node", "apiserver", "controllers", "containerd", "supervisor"])
def test_killed_processes_cost_neither_requests_nor_containers(sturdy: Cluster, process: str) -> None:
    settle(sturdy)
    before = {item["metadata"]["name"]: main_pid(item) for item in running_pods(sturdy)}
    started = {name: start_time(pid) for name, pid in before.items()}
    names = Load(dns_ip(sturdy), 53, threads=1, request=resolve)
    with Load(ip_of(sturdy)) as load, Echo(ip_of(sturdy, "echo"), 7) as echo, names:
        for _ in range(2):
            kill(sturdy, process)
            sturdy.wait_until(lambda: well(sturdy), what="the cluster is ready again")
        time.sleep(0.5)

    assert_all_answered(load.outcome)
    assert names.outcome.failures == []
    assert not echo.broken
    after = {item["metadata"]["name"]: main_pid(item) for item in running_pods(sturdy)}
    assert after == before
    assert {name: start_time(pid) for name, pid in after.items()} == started
    sturdy.wait_until(lambda: all(is_ready(item) for item in running_pods(sturdy)), what="all pods ready")
    assert all(item["status"]["containerStatuses"][0]["restartCount"] <= 1 for item in running_pods(sturdy))


def test_a_rollout_goes_through_while_processes_die(sturdy: Cluster) -> None:
    settle(sturdy)
    with Load(ip_of(sturdy)) as load:
        sturdy.kubectl("set", "env", "deployment/web", f"VERSION=v{time.time_ns()}")
        for process in ("controllers", "node", "apiserver"):
            time.sleep(0.7)
            kill(sturdy, process)
        sturdy.wait_until(lambda: well(sturdy), what="the cluster is ready again")
        rolled_out(sturdy)
        time.sleep(2.5)

    assert_all_answered(load.outcome)


def start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def is_ready(obj: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in obj["status"].get("conditions") or ())


def kill(cluster: Cluster, process: str) -> None:
    state = ClusterState.load(cluster.config.run)
    pid = state.supervisor_pid if process == "supervisor" else state.components[process].pid
    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        now = ClusterState.load(cluster.config.run)
        if process == "supervisor":
            return now.supervisor_pid != pid and now.supervisor_alive
        return now.components[process].pid != pid and alive(now.components[process])

    cluster.wait_until(replaced, 30, f"{process} is replaced")


def well(cluster: Cluster) -> bool:
    done = cluster.navarch("status", "--name", cluster.name, "-o", "json", check=False)
    return done.returncode == 0 and bool(json.loads(done.stdout)["ready"])
