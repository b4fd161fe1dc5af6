"""Resources and users that come and go for as long as a server lives: nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator

import pytest

from navarch.apiserver.served import ServedKind
from navarch.apiserver.user import LOOPBACK
from navarch.client.transport import Request
from navarch.testing.embedded import EmbeddedCluster
from tests.apiserver.conftest import CONFIG_MAPS, Api

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "fleeting.example.com"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with EmbeddedCluster(controllers=False) as cluster:
        yield Api(cluster.server)


def definition() -> dict[str, object]:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"mayflies.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "mayflies", "kind": "Mayfly"},
            "versions": [version],
        },
    }


async def status(api: Api, path: str) -> int:
    return (await api("GET", path))[0]


async def test_of_a_resource_that_is_gone_nothing_stays(api: Api) -> None:
    path = f"/apis/{GROUP}/v1/namespaces/default/mayflies"
    await api.ok("POST", DEFINITIONS, definition())
    async with asyncio.timeout(30):
        while await status(api, path) != 200:
            await asyncio.sleep(0.01)
    await api.ok("POST", path, {"apiVersion": f"{GROUP}/v1", "kind": "Mayfly", "metadata": {"name": "a"}})
    assert await status(api, f"{path}/a") == 200
    assert 'resource="mayflies"' in await api.ok("GET", "/metrics")

    await api.ok("DELETE", f"{path}/a")
    await api.ok("DELETE", f"{DEFINITIONS}/mayflies.{GROUP}")
    async with asyncio.timeout(30):
        while await status(api, path) != 404:
            await asyncio.sleep(0.01)
    assert 'resource="mayflies"' not in await api.ok("GET", "/metrics")

    def left() -> list[str]:
        gc.collect()
        kinds = [each for each in gc.get_objects() if isinstance(each, ServedKind)]
        return [each.resource.plural for each in kinds if each.resource.group == GROUP]

    async with asyncio.timeout(30):
        while left():
            await asyncio.sleep(0.05)


async def test_users_with_long_names_are_not_remembered(api: Api) -> None:
    async def ask(number: int) -> None:
        headers = {"impersonate-user": f"{number}" + "x" * 100_000, "accept": "application/json"}
        response = await api.server.handle(Request("GET", CONFIG_MAPS, (), headers), LOOPBACK)
        assert response.status == 403

    await ask(0)
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, 60):
            await ask(number)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    # Of 59 names of 100 kB.
    assert kept < 2_000_000
