"""The cluster inside a test: what people build their own tests on."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.apiserver import bootstrap
from navarch.apiserver.user import User
from navarch.client.base import Client
from navarch.client.config import load_kubeconfig
from navarch.client.resources import DEPLOYMENTS, NAMESPACES, NODES, PODS, SERVICES
from navarch.scheduler.scheduler import Scheduler
from navarch.testing.embedded import ComponentFailed, EmbeddedCluster


def deployment(name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": "example/web:1"}]},
            },
        },
    }


async def test_a_deployments_pods_become_ready(navarch_cluster: EmbeddedCluster) -> None:
    client = navarch_cluster.client

    await client.create(DEPLOYMENTS, deployment("web", 3))

    async with asyncio.timeout(20):
        async for event in client.watch(DEPLOYMENTS, "default"):
            if event.object.get("status", {}).get("readyReplicas") == 3:
                break
    assert len((await client.list(PODS, "default", labels="app=web")).items) == 3


async def test_what_no_cluster_can_be_without_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "KEEP_EVERY_S", 0.05)
    async with EmbeddedCluster(nodes=0) as cluster:
        client = cluster.client
        for resource, name, namespace in ((NAMESPACES, "kube-node-lease", ""), (SERVICES, "kubernetes", "default")):
            first = await client.get(resource, name, namespace)
            await client.delete(resource, name, namespace)

            async with asyncio.timeout(20):
                async for event in client.watch(resource, namespace):
                    anew = event.object
                    if anew["metadata"].get("name") == name and anew["metadata"]["uid"] != first["metadata"]["uid"]:
                        break

            assert anew["metadata"]["labels"] == first["metadata"]["labels"]
            assert anew["spec"].get("clusterIP") == first["spec"].get("clusterIP")


async def test_another_user_may_do_nothing(navarch_cluster: EmbeddedCluster) -> None:
    stranger = navarch_cluster.client_as(User("jane", ("system:authenticated",)))

    with pytest.raises(StatusError) as refused:
        await stranger.list(PODS, "default")

    assert refused.value.code == 403
    assert 'User "jane" cannot list resource "pods"' in str(refused.value)


async def test_nodes_are_as_many_as_asked_for() -> None:
    async with EmbeddedCluster(nodes=5) as cluster:
        assert len((await cluster.client.list(NODES)).items) == 5


async def test_it_serves_programs_that_need_a_port() -> None:
    async with EmbeddedCluster(nodes=0) as cluster:
        client = Client(load_kubeconfig(await cluster.serve()))
        try:
            assert (await client.list(PODS)).items == []
        finally:
            await client.close()


def test_one_without_a_port_loads_no_http_client_or_server() -> None:
    script = """
import asyncio, sys
from navarch.testing.embedded import EmbeddedCluster
async def main():
    async with EmbeddedCluster(nodes=1):
        print("aiohttp" in sys.modules)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=True, timeout=120)

    assert done.stdout == "False\n"


class Broken(Exception):
    """What the test makes the scheduler fail with."""


@pytest.fixture
def dying_scheduler(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """A scheduler that fails when the event is set."""
    told = asyncio.Event()

    async def run(self: Scheduler) -> None:
        await told.wait()
        raise Broken("on purpose")

    monkeypatch.setattr(Scheduler, "run", run)
    return told


async def test_a_component_that_dies_is_logged_and_fails_the_test(
    dying_scheduler: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(ComponentFailed, match=r"scheduler.*on purpose") as failure:  # noqa: PT012
        async with EmbeddedCluster():
            dying_scheduler.set()
            async with asyncio.timeout(20):
                while "the part 'scheduler' of the embedded cluster failed" not in caplog.text:
                    await asyncio.sleep(0.01)

    assert isinstance(failure.value.__cause__, Broken)


async def test_the_tests_own_error_wins_and_says_what_else_failed(dying_scheduler: asyncio.Event) -> None:
    with pytest.raises(AssertionError) as failure:  # noqa: PT012
        async with EmbeddedCluster():
            dying_scheduler.set()
            await asyncio.sleep(0.05)
            raise AssertionError("no pod was bound")

    assert "scheduler" in failure.value.__notes__[0]


async def test_an_error_in_the_block_leaves_nothing_running() -> None:
    before = asyncio.all_tasks()

    with pytest.raises(ZeroDivisionError):
        async with EmbeddedCluster(nodes=2):
            raise ZeroDivisionError

    assert asyncio.all_tasks() == before


async def test_nodes_are_of_the_version_that_is_served() -> None:
    async with EmbeddedCluster(nodes=1, kubernetes_version="1.33") as older:
        async with asyncio.timeout(20):
            while not (found := (await older.client.list(NODES)).items):
                await asyncio.sleep(0.05)

    assert found[0]["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.33.")


def test_runs_that_begin_at_once_share_the_keys_that_are_kept(tmp_path: Path) -> None:
    async def authority() -> bytes:
        async with EmbeddedCluster(controllers=False, keys=tmp_path / "keys") as cluster:
            return (cluster.config.pki / "ca.crt").read_bytes()

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: asyncio.run(authority()), range(16)))

    assert set(made) == {(tmp_path / "keys" / "ca.crt").read_bytes()}


async def test_nodes_have_what_they_are_said_to_have() -> None:
    async with EmbeddedCluster(node_capacity={"cpu": "64", "example.com/gpu": "4"}) as cluster:
        (node,) = (await cluster.client.list(NODES)).items

        assert node["status"]["allocatable"]["cpu"] == "64"
        assert node["status"]["capacity"]["example.com/gpu"] == "4"
        assert node["status"]["capacity"]["memory"]
