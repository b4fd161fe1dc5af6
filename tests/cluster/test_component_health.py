"""How the components are, as `kubectl get componentstatuses` shows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from navarch.api.meta import Obj
from navarch.cluster import component_health
from navarch.testing.embedded import EmbeddedCluster

_ALL = ["controller-manager", "scheduler", "etcd-0"]


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[None]:
    task = asyncio.create_task(component_health.serve(folder))
    try:
        async with asyncio.timeout(30):
            while not any(folder.iterdir()):
                await asyncio.sleep(0.01)
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Deeper than the path of a socket may be long."""
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    deep.mkdir(parents=True)
    return deep


async def test_components_that_run_are_well_and_others_are_not(folder: Path) -> None:
    probes = component_health.probes(folder)
    gone = {name: f"{name} does not answer: No such file or directory" for name in probes}
    assert {name: await probe() for name, probe in probes.items()} == gone

    async with serving(folder):
        assert {name: await probe() for name, probe in probes.items()} == dict.fromkeys(probes, "")
        assert await component_health.ask(folder, "kubelet") == "there is no such component"

    assert await probes["scheduler"]()


async def test_a_process_that_is_killed_leaves_a_socket_that_the_next_one_takes(folder: Path) -> None:
    async with serving(folder):
        (socket,) = folder.iterdir()
        kept = folder.parent / "kept"
        kept.hardlink_to(socket)
    kept.rename(socket)
    assert await component_health.ask(folder, "scheduler") == "scheduler does not answer: Connection refused"

    async with serving(folder):
        async with asyncio.timeout(30):
            while await component_health.ask(folder, "scheduler"):
                await asyncio.sleep(0.01)


async def test_all_are_listed_with_what_is_wrong() -> None:
    async with EmbeddedCluster() as cluster:

        async def listed() -> list[Obj]:
            answer = orjson.loads(await cluster.client.request("GET", "/api/v1/componentstatuses"))
            items: list[Obj] = answer["items"]
            return items

        items = await listed()
        assert [item["metadata"]["name"] for item in items] == _ALL
        well = [{"type": "Healthy", "status": "True", "message": "ok"}]
        assert all(item["conditions"] == well for item in items)

        async def problem() -> str:
            return "it is stuck"

        cluster.server.core.components = {**cluster.server.core.components, "scheduler": problem}
        one = orjson.loads(await cluster.client.request("GET", "/api/v1/componentstatuses/scheduler"))
        assert one["conditions"] == [{"type": "Healthy", "status": "False", "message": "", "error": "it is stuck"}]
