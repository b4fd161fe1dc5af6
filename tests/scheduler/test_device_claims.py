"""Pods with claims of devices: where they go, what is written into their claims, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.client import resources
from tests.scheduler.conftest import World
from tests.scheduler.device_objects import (
    DRIVER,
    asked,
    chosen_devices,
    device,
    device_claim,
    device_class,
    device_slice,
    exactly,
)

NOT_HELPFUL = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."


@pytest.fixture
def devices(world: World) -> World:
    """Nodes `a` and `b`; only `b` has a device."""
    world.served = [resources.RESOURCE_CLAIMS]
    world.put(resources.DEVICE_CLASSES, device_class())
    for name in ("a", "b"):
        world.node(name)
    world.put(resources.RESOURCE_SLICES, device_slice("b", [device("gpu-0")]))
    return world


def claiming(world: World, name: str, *claims: str, **spec: Any) -> Obj:
    entries = [{"name": claim, "resourceClaimName": claim} for claim in claims]
    return world.pod(name, resourceClaims=entries, **spec)


def claim_of(world: World, name: str) -> Obj:
    claim = world.informers.get(resources.RESOURCE_CLAIMS).get("default", name)
    assert claim is not None
    return claim


def users(world: World, name: str) -> list[str]:
    return [user["name"] for user in (claim_of(world, name).get("status") or {}).get("reservedFor") or ()]


async def test_a_pod_goes_where_its_claim_gets_a_device(devices: World) -> None:
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c"))
    claiming(devices, "web", "c")

    async with devices.scheduling():
        await devices.until(lambda: devices.where("web"))

    claim = claim_of(devices, "c")
    assert devices.where("web") == "b"
    assert chosen_devices(claim) == ["gpu-0"]
    assert claim["metadata"]["finalizers"] == ["resource.kubernetes.io/delete-protection"]
    assert claim["status"]["reservedFor"] == [{"resource": "pods", "name": "web", "uid": "uid-web"}]
    assert claim["status"]["allocation"]["nodeSelector"] == {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]
    }


async def test_pods_share_a_claim_and_its_node(devices: World) -> None:
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c"))
    for name in ("one", "two", "three"):
        claiming(devices, name, "c")

    async with devices.scheduling():
        await devices.until(lambda: all(devices.where(name) for name in ("one", "two", "three")))

    assert {devices.where(name) for name in ("one", "two", "three")} == {"b"}
    assert sorted(users(devices, "c")) == ["one", "three", "two"]


async def test_without_devices_left_a_pod_waits_and_is_told(devices: World) -> None:
    for name in ("c", "d"):
        devices.put(resources.RESOURCE_CLAIMS, device_claim(name))
    claiming(devices, "first", "c")

    async with devices.scheduling():
        await devices.until(lambda: devices.where("first"))
        claiming(devices, "second", "d")
        await devices.until(lambda: devices.message("second"))
        assert devices.message("second") == (
            "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, "
            "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        )

        # The controller takes the devices back when the pod is gone.
        freed = claim_of(devices, "c")
        devices.put(resources.RESOURCE_CLAIMS, {**freed, "status": {}})
        await devices.until(lambda: devices.where("second"))

    assert chosen_devices(claim_of(devices, "d")) == ["gpu-0"]


async def test_a_new_slice_wakes_pods_that_wait_for_devices(devices: World) -> None:
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c", exactly("r", count=2)))
    claiming(devices, "web", "c")

    async with devices.scheduling():
        await devices.until(lambda: devices.message("web"))
        devices.put(resources.RESOURCE_SLICES, device_slice("a", [device("x"), device("y")]))
        await devices.until(lambda: devices.where("web"))

    assert devices.where("web") == "a"
    assert chosen_devices(claim_of(devices, "c")) == ["x", "y"]


async def test_a_pod_without_its_claim_waits_silently_until_it_is_made(devices: World) -> None:
    entry = {"name": "gpu", "resourceClaimTemplateName": "t"}
    devices.pod("web", resourceClaims=[entry])

    async with devices.scheduling():
        assert not devices.message("web")
        assert not devices.events
        made = device_claim("web-gpu-x")
        made["metadata"]["ownerReferences"] = [{"kind": "Pod", "name": "web", "uid": "uid-web", "controller": True}]
        devices.put(resources.RESOURCE_CLAIMS, made)
        devices.change_pod("web", status={"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "web-gpu-x"}]})
        await devices.until(lambda: devices.where("web"))

    assert users(devices, "web-gpu-x") == ["web"]


async def test_a_class_that_is_not_there_is_named(devices: World) -> None:
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c", exactly("r", deviceClassName="none")))
    claiming(devices, "web", "c")

    async with devices.scheduling():
        await devices.until(lambda: devices.message("web"))
        assert devices.message("web").startswith(
            "0/2 nodes are available: request r: device class none does not exist. still not schedulable, "
        )
        devices.put(resources.DEVICE_CLASSES, device_class("none"))
        await devices.until(lambda: devices.where("web"))


async def test_an_expression_that_fails_is_an_error_of_the_scheduler(devices: World) -> None:
    bad = exactly("r", f'device.attributes["{DRIVER}"].none == "x"')
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c", bad))
    claiming(devices, "web", "c")

    async with devices.scheduling():
        await devices.until(lambda: devices.message("web"))

    assert devices.message("web") == (
        'running "DynamicResources" filter plugin: claim default/c: selector #0 on device '
        f"{DRIVER}/b/gpu-0: CEL runtime error: no such key: none"
    )


async def test_a_claim_on_a_full_node_that_nobody_uses_gives_its_devices_back(devices: World) -> None:
    """The pod of the claim cannot go where its devices are: they are allocated anew, elsewhere."""
    devices.put(resources.RESOURCE_SLICES, device_slice("a", [device("gpu-a")]))
    claim = device_claim("c")
    here = {"key": "metadata.name", "operator": "In", "values": ["b"]}
    result = {"request": "r", "driver": DRIVER, "pool": "b", "device": "gpu-0"}
    claim["status"] = {
        "allocation": {
            "devices": {"results": [result]},
            "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [here]}]},
        }
    }
    devices.put(resources.RESOURCE_CLAIMS, claim)
    claiming(devices, "web", "c", nodeSelector={"kubernetes.io/hostname": "a"})

    async with devices.scheduling():
        await devices.until(lambda: devices.where("web"))

    assert devices.where("web") == "a"
    assert chosen_devices(claim_of(devices, "c")) == ["gpu-a"]


async def test_what_a_failed_binding_took_is_there_again(devices: World) -> None:
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c"))
    claiming(devices, "web", "c")
    devices.fail_bindings = 1

    async with devices.scheduling():
        await devices.until(lambda: devices.where("web"))

    assert chosen_devices(claim_of(devices, "c")) == ["gpu-0"]
    assert users(devices, "c") == ["web"]


async def test_pods_that_contend_for_one_device_get_it_once(devices: World) -> None:
    for index in range(5):
        devices.put(resources.RESOURCE_CLAIMS, device_claim(f"c{index}"))
        claiming(devices, f"web-{index}", f"c{index}")

    async with devices.scheduling():
        await devices.until(lambda: sum(bool(devices.message(f"web-{i}")) for i in range(5)) == 4)

    assert sum(bool(devices.where(f"web-{index}")) for index in range(5)) == 1
    assert sum(bool(chosen_devices(claim_of(devices, f"c{index}"))) for index in range(5)) == 1


async def test_the_node_with_the_preferred_alternative_is_preferred(devices: World) -> None:
    devices.put(resources.RESOURCE_SLICES, device_slice("a", [device("big", attributes={"model": "big"})]))
    of_model = f'device.attributes["{DRIVER}"].?model.orValue("") == "big"'
    several = {"name": "r", "firstAvailable": [{"name": "big", **asked(of_model)}, {"name": "any", **asked()}]}
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c", several))
    claiming(devices, "web", "c")

    async with devices.scheduling():
        await devices.until(lambda: devices.where("web"))

    assert devices.where("web") == "a"
    assert chosen_devices(claim_of(devices, "c")) == ["big"]


async def test_a_rule_that_taints_a_device_keeps_it_free(devices: World) -> None:
    devices.served.append(resources.DEVICE_TAINT_RULES)
    taint = {"key": "broken", "effect": "NoSchedule"}
    rule = {"metadata": {"name": "rule"}, "spec": {"deviceSelector": {"device": "gpu-0"}, "taint": taint}}
    devices.put(resources.DEVICE_TAINT_RULES, rule)
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c"))
    claiming(devices, "web", "c")

    async with devices.scheduling():
        await devices.until(lambda: devices.message("web"))
        devices.remove(resources.DEVICE_TAINT_RULES, "rule", "")
        await devices.until(lambda: devices.where("web"))


async def test_a_pod_is_bound_when_its_device_is_ready(devices: World) -> None:
    waiting = device("fabric", bindingConditions=["attached"], bindingFailureConditions=["failed"])
    devices.put(resources.RESOURCE_SLICES, device_slice("b", [waiting]))
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c"))
    claiming(devices, "web", "c")

    async with devices.scheduling():
        await devices.until(lambda: users(devices, "c"))
        await devices.settle()
        assert not devices.where("web")
        claim = claim_of(devices, "c")
        told = {
            "driver": DRIVER,
            "pool": "b",
            "device": "fabric",
            "conditions": [{"type": "attached", "status": "True"}],
        }
        devices.put(resources.RESOURCE_CLAIMS, {**claim, "status": {**claim["status"], "devices": [told]}})
        await devices.until(lambda: devices.where("web"))


async def test_devices_stand_for_an_extended_resource(devices: World) -> None:
    devices.put(resources.DEVICE_CLASSES, device_class("gpu", extendedResourceName="example.com/gpu"))
    devices.pod("web", extended={"example.com/gpu": "1"})

    async with devices.scheduling():
        await devices.until(lambda: devices.where("web"))
        devices.pod("more", extended={"deviceclass.resource.kubernetes.io/gpu": "1"})
        await devices.until(lambda: devices.message("more"))

    claim = claim_of(devices, "web-extended-resources-x")
    assert devices.where("web") == "b"
    assert chosen_devices(claim) == ["gpu-0"]
    assert claim["metadata"]["annotations"] == {"resource.kubernetes.io/extended-resource-claim": "true"}
    assert claim["spec"]["devices"]["requests"] == [
        {
            "name": "container-0-request-0",
            "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
        }
    ]
    pod = devices.informers.get(resources.PODS).get("default", "web")
    assert pod is not None
    assert pod["status"]["extendedResourceClaimStatus"] == {
        "resourceClaimName": "web-extended-resources-x",
        "requestMappings": [
            {"containerName": "c", "resourceName": "example.com/gpu", "requestName": "container-0-request-0"}
        ],
    }
    assert "2 cannot allocate all claims" in devices.message("more")


async def test_a_node_that_has_the_resource_itself_needs_no_claim(devices: World) -> None:
    devices.put(resources.DEVICE_CLASSES, device_class("gpu", extendedResourceName="example.com/gpu"))
    devices.remove(resources.RESOURCE_SLICES, "slice-b", "")
    devices.node("plugin", extended={"example.com/gpu": "2"})
    devices.pod("web", extended={"example.com/gpu": "1"})

    async with devices.scheduling():
        await devices.until(lambda: devices.where("web"))

    assert devices.where("web") == "plugin"
    assert not devices.informers.get(resources.RESOURCE_CLAIMS).list()


async def test_a_scheduler_that_starts_before_the_api_server_waits_for_it(devices: World) -> None:
    devices.fail_requests = 2
    devices.put(resources.RESOURCE_CLAIMS, device_claim("c"))
    claiming(devices, "web", "c")

    async with devices.scheduling():
        await devices.until(lambda: devices.where("web"))

    assert devices.where("web") == "b"
