"""`kill -9` of each process in turn under load: every acknowledged write is there, and the cluster comes back."""

from __future__ import annotations

import json
import os
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from navarch.cluster.state import ClusterState, alive

from .conftest import Cluster, _running
from .objects import deployment


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that other tests do not mind losing for moments."""
    home: Path = tmp_path_factory.mktemp("victim")
    yield from _running("victim", home, "--runtime", "simulated", "--nodes", "2")


class Writer(threading.Thread):
    """Creates ConfigMaps one after the other and remembers which of them the server acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        pki = cluster.config.pki
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
        self._url = f"{cluster.config.server_url}/api/v1/namespaces/default/configmaps"
        self.acknowledged: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            number += 1
            name = f"load-{number}"
            body = json.dumps({"metadata": {"name": name}, "data": {"number": str(number)}}).encode()
            request = urllib.request.Request(self._url, body, {"content-type": "application/json"}, method="POST")
            try:
                with urllib.request.urlopen(request, context=self._tls, timeout=20) as answer:
                    if answer.status == 201:
                        self.acknowledged.append(name)
            except OSError:
                time.sleep(0.02)


def test_acknowledged_writes_survive_the_death_of_every_process(victim: Cluster) -> None:
    victim.apply(deployment("web", 4))
    victim.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    writer = Writer(victim)
    writer.start()
    for _ in range(2):
        for name in ("apiserver", "controllers", "supervisor"):
            _kill(victim, name)
            _wait_until_well(victim)
    writer.stopped.set()
    writer.join(30)

    stored = {item["metadata"]["name"] for item in victim.get("configmaps", "-n", "default")["items"]}

    assert len(writer.acknowledged) > 50
    assert set(writer.acknowledged) <= stored
    victim.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    pods = victim.get("pods", "-l", "app=web")["items"]
    assert sum(pod["status"]["phase"] == "Running" for pod in pods) == 4


def test_everything_killed_at_once_comes_back_with_up(victim: Cluster) -> None:
    victim.kubectl("create", "configmap", "before")
    state = ClusterState.load(victim.config.run)
    for pid in [state.supervisor_pid, *(component.pid for component in state.components.values())]:
        os.kill(pid, signal.SIGKILL)

    victim.navarch("up", "--name", victim.name, "--detach")

    assert victim.get("configmap", "before")["metadata"]["name"] == "before"
    _wait_until_well(victim)


def test_a_cluster_stopped_and_started_is_the_same(victim: Cluster) -> None:
    uid = victim.get("namespace", "default")["metadata"]["uid"]
    victim.navarch("down", "--name", victim.name)
    assert victim.try_kubectl("get", "nodes").returncode == 1

    victim.navarch("up", "--name", victim.name, "--detach")

    assert victim.get("namespace", "default")["metadata"]["uid"] == uid


def _kill(cluster: Cluster, name: str) -> None:
    state = ClusterState.load(cluster.config.run)
    pid = state.supervisor_pid if name == "supervisor" else state.components[name].pid
    os.kill(pid, signal.SIGKILL)
    cluster.wait_until(lambda: _replaced(cluster, name, pid), what=f"{name} is replaced", timeout_s=30)


def _replaced(cluster: Cluster, name: str, pid: int) -> bool:
    state = ClusterState.load(cluster.config.run)
    if name == "supervisor":
        return state.supervisor_pid != pid and state.supervisor_alive
    component = state.components[name]
    return component.pid != pid and alive(component)


def _wait_until_well(cluster: Cluster) -> None:
    cluster.wait_until(
        lambda: cluster.navarch("status", "--name", cluster.name, check=False).returncode == 0,
        what="the cluster is ready again",
    )
