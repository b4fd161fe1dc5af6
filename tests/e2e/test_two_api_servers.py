"""Two API servers over one etcd serve one cluster: each sees at once what was written through the other, and either may
be killed at any time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from navarch.cluster.neighbours import free_port

from ..store.etcd_server import MISSING, Etcd, etcd_binary
from .conftest import Cluster
from .rest import Rest

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"

# The API server's process as the supervisor starts it, without the supervisor.
_SERVER = """
import asyncio, sys
from pathlib import Path
from navarch.cluster.config import ClusterConfig
from navarch.cluster.run_apiserver import run

asyncio.run(run(ClusterConfig.load(Path(sys.argv[1]))))
"""


class Second(Cluster):
    """Another API server of the same cluster: the same keys, a port of its own."""

    def __init__(self, first: Cluster, home: Path) -> None:
        super().__init__(first.name, home)
        folder = home / first.name
        folder.mkdir()
        shutil.copytree(first.config.pki, folder / "pki")
        settings = json.loads((first.config.root / "cluster.json").read_text())
        port = free_port(first.config.port + 1, set())
        (folder / "cluster.json").write_text(json.dumps({**settings, "data_dir": str(folder), "port": port}))
        for kubeconfig in (folder / "pki").glob("*.kubeconfig"):
            text = kubeconfig.read_text()
            text = text.replace(f"127.0.0.1:{first.config.port}", f"127.0.0.1:{port}")
            kubeconfig.write_text(text.replace(str(first.config.pki), str(folder / "pki")))
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        with open(self.home / "log", "ab") as log:
            command = [sys.executable, "-c", _SERVER, str(self.config.root)]
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        return self.process

    def wait(self) -> None:
        self.wait_until(lambda: self.kubectl("get", "--raw", "/readyz") == "ok", 60, (self.home / "log").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Pair:
    first: Cluster
    second: Second

    def first_pid(self) -> int:
        state = json.loads((self.first.config.run / "state.json").read_text())
        return int(state["components"]["apiserver"]["pid"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if etcd_binary() is None:
        pytest.skip(MISSING)
    home = tmp_path_factory.mktemp("ha")
    with Etcd() as etcd:
        first = Cluster("e2e-ha", home)
        second = None
        try:
            first.navarch(
                "up", "--name", first.name, "-d", "--wait", "90s", "--runtime", "simulated", "--nodes", "2",
                "--store", f"{etcd.url}/ha",
            )  # fmt: skip
            second = Second(first, tmp_path_factory.mktemp("ha-second"))
            second.wait()
            yield Pair(first, second)
        finally:
            if second is not None:
                second.kill()
            first.navarch("down", "--name", first.name, "--purge", "--grace", "1s")


def test_each_sees_at_once_what_the_other_wrote(pair: Pair) -> None:
    """A read right after the answer to a write, through the other server, is consistent."""
    servers = [Rest(pair.first), Rest(pair.second)]
    for number in range(40):
        writer, reader = servers[number % 2], servers[1 - number % 2]
        name = f"seen-{number}"
        written = writer.ok("POST", CONFIG_MAPS, {"metadata": {"name": name}, "data": {"n": str(number)}})
        found = reader.ok("GET", f"{CONFIG_MAPS}/{name}")
        assert found == written
        listed = reader.ok("GET", CONFIG_MAPS)
        assert name in [item["metadata"]["name"] for item in listed["items"]]
        reader.ok("DELETE", f"{CONFIG_MAPS}/{name}")
        writer.refused(404, "GET", f"{CONFIG_MAPS}/{name}")


def test_a_watch_of_one_shows_what_is_written_through_the_other(pair: Pair) -> None:
    one, other = Rest(pair.first), Rest(pair.second)
    revision = one.ok("GET", CONFIG_MAPS)["metadata"]["resourceVersion"]
    events = one.watch(CONFIG_MAPS, resourceVersion=revision)
    other.ok("POST", CONFIG_MAPS, {"metadata": {"name": "watched"}})
    other.ok("DELETE", f"{CONFIG_MAPS}/watched")

    assert [(event["type"], event["object"]["metadata"]["name"]) for event in (next(events), next(events))] == [
        ("ADDED", "watched"),
        ("DELETED", "watched"),
    ]


def test_updates_through_both_at_once_lose_nothing(pair: Pair) -> None:
    """Both count up one number, each with the revision that it read."""
    Rest(pair.first).ok("POST", CONFIG_MAPS, {"metadata": {"name": "counter"}, "data": {"n": "0"}})
    conflicts = 0

    def count(cluster: Cluster) -> None:
        nonlocal conflicts
        rest = Rest(cluster)
        done = 0
        while done < 30:
            found = rest.ok("GET", f"{CONFIG_MAPS}/counter")
            found["data"]["n"] = str(int(found["data"]["n"]) + 1)
            status, _ = rest.send("PUT", f"{CONFIG_MAPS}/counter", found)
            assert status in (200, 409)
            done += status == 200
            conflicts += status == 409

    counting = [threading.Thread(target=count, args=(cluster,)) for cluster in (pair.first, pair.second)]
    for thread in counting:
        thread.start()
    for thread in counting:
        thread.join()
    assert Rest(pair.second).ok("GET", f"{CONFIG_MAPS}/counter")["data"]["n"] == "60"
    Rest(pair.first).ok("DELETE", f"{CONFIG_MAPS}/counter")


def test_either_may_be_killed_under_load(pair: Pair) -> None:
    """While one is killed, the other takes writes without a failure; nothing that was acknowledged is lost, and the
    workloads go on."""
    stop = threading.Event()
    acknowledged: dict[str, set[str]] = {"first": set(), "second": set()}
    failures: dict[str, list[tuple[float, str]]] = {"first": [], "second": []}

    def write(label: str, cluster: Cluster) -> None:
        rest = Rest(cluster)
        number = 0
        while not stop.is_set():
            name = f"{label}-{number}"
            number += 1
            try:
                status, answer = rest.send("POST", CONFIG_MAPS, {"metadata": {"name": name}})
            except Exception as error:
                failures[label].append((time.monotonic(), str(error)))
                time.sleep(0.1)
                continue
            if status == 201:
                acknowledged[label].add(name)
            else:
                failures[label].append((time.monotonic(), str(answer)))

    writers = [threading.Thread(target=write, args=each) for each in (("first", pair.first), ("second", pair.second))]
    for thread in writers:
        thread.start()
    try:
        time.sleep(1)
        pair.second.kill()
        second_down = time.monotonic()
        time.sleep(2)
        pair.second.start()
        pair.second.wait()
        second_up = time.monotonic()
        time.sleep(1)
        os.kill(pair.first_pid(), signal.SIGKILL)
        pair.first.wait_until(lambda: pair.first.kubectl("get", "--raw", "/readyz") == "ok")
        time.sleep(1)
    finally:
        stop.set()
        for thread in writers:
            thread.join()

    assert not [failure for failure in failures["first"] if second_down <= failure[0] <= second_up]
    for cluster in (pair.first, pair.second):
        stored = {item["metadata"]["name"] for item in Rest(cluster).ok("GET", CONFIG_MAPS)["items"]}
        for label in acknowledged:
            assert acknowledged[label] <= stored
            assert len(acknowledged[label]) > 20
    pair.second.kubectl("create", "deployment", "web", "--image=nginx", "--replicas=3")
    pair.first.wait_until(lambda: pair.first.get("deployment", "web")["status"].get("readyReplicas") == 3)
    pair.first.kubectl("delete", "deployment", "web")
    Rest(pair.first).ok("DELETE", CONFIG_MAPS)
