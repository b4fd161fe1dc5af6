"""Pods that use a device with a taint: who has to go, when, and what they and the rule's author are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.client.resources import DEVICE_TAINT_RULES, EVENTS, PODS, RESOURCE_CLAIMS, RESOURCE_SLICES
from navarch.controllers.device_taints import progress
from navarch.testing.embedded import EmbeddedCluster

DRIVER = "gpu.example.com"


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(nodes=1, runtime_config="api/all=true") as made:
        yield made


def slices(*taints: Obj) -> Obj:
    device = {"name": "gpu-0", **({"taints": list(taints)} if taints else {})}
    pool = {"name": "p", "generation": 1, "resourceSliceCount": 1}
    return {"metadata": {"name": "s"}, "spec": {"driver": DRIVER, "allNodes": True, "pool": pool, "devices": [device]}}


async def using(cluster: EmbeddedCluster, name: str, *tolerations: Obj) -> None:
    """A running pod with the device, shared as administrators do."""
    request = {"name": "r", "exactly": {"deviceClassName": "gpu", "tolerations": list(tolerations)}}
    metadata = {"name": name, "namespace": "default"}
    claim = await cluster.client.create(
        RESOURCE_CLAIMS, {"metadata": metadata, "spec": {"devices": {"requests": [request]}}}
    )
    spec = {"containers": [{"name": "c", "image": "web"}], "resourceClaims": [{"name": "g", "resourceClaimName": name}]}
    pod = await cluster.client.create(PODS, {"metadata": metadata, "spec": spec})
    result = {"request": "r", "driver": DRIVER, "pool": "p", "device": "gpu-0", "tolerations": list(tolerations)}
    claim["status"] = {
        "allocation": {"devices": {"results": [result]}},
        "reservedFor": [{"resource": "pods", "name": name, "uid": pod["metadata"]["uid"]}],
    }
    await cluster.client.update(RESOURCE_CLAIMS, claim, subresource="status")
    await until(lambda: has_node(cluster, name))


async def has_node(cluster: EmbeddedCluster, name: str) -> bool:
    return bool((await cluster.client.get(PODS, name, "default"))["spec"].get("nodeName"))


async def until(check: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(30):
        while not (value := await check()):
            await asyncio.sleep(0.05)
        return value


async def test_a_taint_of_the_driver_ends_pods_that_do_not_tolerate_it(cluster: EmbeddedCluster) -> None:
    await cluster.client.create(RESOURCE_SLICES, slices())
    await using(cluster, "goes")
    await using(cluster, "stays", {"key": "hot", "operator": "Exists"})
    old = await cluster.client.get(RESOURCE_SLICES, "s")
    seen: list[Obj] = []

    async def watch() -> None:
        async for event in cluster.client.watch(PODS, "default", fields="metadata.name=goes"):
            seen.append(event.object)
            if event.type == "DELETED":
                return

    watching = asyncio.create_task(watch())
    taint = {"key": "hot", "effect": "NoExecute"}
    await cluster.client.update(RESOURCE_SLICES, {**old, "spec": slices(taint)["spec"]})
    async with asyncio.timeout(30):
        await watching

    conditions = {each["type"]: each for pod in seen for each in pod["status"].get("conditions") or ()}
    assert conditions["DisruptionTarget"]["reason"] == "DeletionByDeviceTaintManager"
    assert conditions["DisruptionTarget"]["message"] == "Device Taint manager: deleting due to NoExecute taint"
    told = await until(lambda: events_of(cluster, "goes"))
    assert told == ["Marking for deletion"]
    assert "deletionTimestamp" not in (await cluster.client.get(PODS, "stays", "default"))["metadata"]


async def events_of(cluster: EmbeddedCluster, name: str) -> list[str]:
    found = (await cluster.client.list(EVENTS, "default")).items
    mine = [event for event in found if event["involvedObject"]["name"] == name]
    return [event["message"] for event in mine if event["reason"] == "DeviceTaintManagerEviction"]


async def test_a_pod_that_tolerates_for_a_while_stays_when_the_taint_goes(cluster: EmbeddedCluster) -> None:
    await cluster.client.create(RESOURCE_SLICES, slices())
    await using(cluster, "web", {"key": "hot", "operator": "Exists", "tolerationSeconds": 3600})
    spec = {"deviceSelector": {"pool": "p"}, "taint": {"key": "hot", "effect": "NoExecute"}}
    await cluster.client.create(DEVICE_TAINT_RULES, {"metadata": {"name": "rule"}, "spec": spec})

    async def condition() -> Any:
        rule = await cluster.client.get(DEVICE_TAINT_RULES, "rule")
        return ((rule.get("status") or {}).get("conditions") or [None])[0]

    told = await until(condition)
    assert (told["type"], told["status"], told["reason"]) == ("EvictionInProgress", "True", "PodsPendingEviction")
    assert told["message"] == "1 pod needs to be evicted in 1 namespace."

    await cluster.client.delete(DEVICE_TAINT_RULES, "rule")
    assert await until(lambda: events_of(cluster, "web")) == ["Cancelling deletion"]


@pytest.mark.parametrize(
    ("effect", "counts", "expected"),
    [
        ("NoExecute", {}, ("NotStarted", "")),
        ("NoExecute", {"evicted": 2}, ("Completed", "2 pods evicted since starting the controller.")),
        (
            "NoExecute",
            {"pods": 3, "namespaces": 2, "evicted": 1},
            (
                "PodsPendingEviction",
                "3 pods need to be evicted in 2 different namespaces. 1 pod evicted since starting the controller.",
            ),
        ),
        ("NoSchedule", {}, ("OtherEffect", "Eviction only happens for the NoExecute effect.")),
        (
            "None",
            {"published": 1, "allocated": 2, "pods": 2, "namespaces": 1},
            (
                "NoEffect",
                "1 published device selected. 2 allocated devices selected. 2 pods would be evicted in 1 namespace if "
                "the effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule to "
                "trigger an update.",
            ),
        ),
    ],
)
def test_a_rule_tells_how_far_eviction_is(effect: str, counts: dict[str, int], expected: tuple[str, str]) -> None:
    zero = dict.fromkeys(("pods", "namespaces", "evicted", "published", "allocated"), 0)
    assert progress(effect, **{**zero, **counts}) == expected
