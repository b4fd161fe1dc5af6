"""Questions about pools of devices and their answers."""

from __future__ import annotations

import asyncio
from typing import Any

from navarch.api.meta import Obj
from navarch.client.base import PatchKind
from navarch.client.resources import RESOURCE_CLAIMS, RESOURCE_POOL_STATUS_REQUESTS, RESOURCE_SLICES
from navarch.testing.embedded import EmbeddedCluster

_DRIVER = "gpu.example.com"


def published(name: str, pool: str, devices: int, *, generation: int = 1, slices: int = 1, node: str = "") -> Obj:
    where: dict[str, Any] = {"nodeName": node} if node else {"allNodes": True}
    listed = [{"name": f"d{number}"} for number in range(devices)]
    of_pool = {"name": pool, "generation": generation, "resourceSliceCount": slices}
    return {"metadata": {"name": name}, "spec": {"driver": _DRIVER, "pool": of_pool, "devices": listed, **where}}


async def _answer(cluster: EmbeddedCluster, **spec: Any) -> Obj:
    name = f"q{len(spec)}"
    made = {"metadata": {"name": name}, "spec": {"driver": _DRIVER, **spec}}
    await cluster.client.create(RESOURCE_POOL_STATUS_REQUESTS, made)
    for _ in range(500):
        found: Obj | None = (await cluster.client.get(RESOURCE_POOL_STATUS_REQUESTS, name)).get("status")
        if found is not None:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("the question was not answered")


async def test_a_question_is_answered_once_from_slices_and_claims() -> None:
    async with EmbeddedCluster(nodes=0, runtime_config="resource.k8s.io/v1alpha3=true") as cluster:
        old, new = published("old", "a", 9, node="n1"), published("new", "a", 3, generation=2, node="n1")
        for each in (old, new, published("b", "b", 1)):
            await cluster.client.create(RESOURCE_SLICES, each)
        requests = [{"name": "gpu", "exactly": {"deviceClassName": "gpus"}}]
        claim = {"metadata": {"name": "c", "namespace": "default"}, "spec": {"devices": {"requests": requests}}}
        await cluster.client.create(RESOURCE_CLAIMS, claim)
        results = [{"request": "gpu", "driver": _DRIVER, "pool": "a", "device": "d0"}]
        status = {"status": {"allocation": {"devices": {"results": results}}}}
        kind = PatchKind.MERGE
        await cluster.client.patch(RESOURCE_CLAIMS, "c", "default", status, kind=kind, subresource="status")

        answer = await _answer(cluster)

        assert answer["poolCount"] == 2
        assert [pool["poolName"] for pool in answer["pools"]] == ["a", "b"]
        counts = {"totalDevices": 3, "allocatedDevices": 1, "availableDevices": 2, "unavailableDevices": 0}
        where = {"driver": _DRIVER, "poolName": "a", "nodeName": "n1", "generation": 2, "resourceSliceCount": 1}
        assert answer["pools"][0] == {**where, **counts}
        (told,) = answer["conditions"]
        assert (told["type"], told["message"]) == ("Complete", "Calculated status for 2 pools")

        one = await _answer(cluster, limit=1)
        assert (one["poolCount"], len(one["pools"])) == (2, 1)
