"""Pods with volumes of CSI drivers: within a node's limit, where there is room, and in the volume's zone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.client import resources
from navarch.scheduler import SchedulerConfig
from tests.scheduler.conftest import World

DRIVER = "disks.example.com"


def csi_node(world: World, name: str, limit: int) -> None:
    entry = {"name": DRIVER, "nodeID": name, "allocatable": {"count": limit}}
    world.put(resources.CSI_NODES, {"metadata": {"name": name}, "spec": {"drivers": [entry]}})


def bound(world: World, name: str, labels: dict[str, str] | None = None) -> None:
    """A claim and its volume."""
    spec = {"csi": {"driver": DRIVER, "volumeHandle": name}}
    world.put(resources.PERSISTENT_VOLUMES, {"metadata": {"name": f"pv-{name}", "labels": labels or {}}, "spec": spec})
    claim = {"metadata": {"name": name, "namespace": "default"}, "spec": {"volumeName": f"pv-{name}"}}
    world.put(resources.PERSISTENT_VOLUME_CLAIMS, {**claim, "status": {"phase": "Bound"}})


def waiting(world: World, name: str, size: str = "1Gi") -> None:
    """A claim that is to be provisioned where its pod goes."""
    spec: Obj = {"storageClassName": "disks", "resources": {"requests": {"storage": size}}}
    claim = {"metadata": {"name": name, "namespace": "default"}, "spec": spec, "status": {"phase": "Pending"}}
    world.put(resources.PERSISTENT_VOLUME_CLAIMS, claim)


def storage_class(world: World) -> None:
    made = {"metadata": {"name": "disks"}, "provisioner": DRIVER, "volumeBindingMode": "WaitForFirstConsumer"}
    world.put(resources.STORAGE_CLASSES, made)


def room(world: World, name: str, zone: str, **amounts: str) -> None:
    topology = {"matchLabels": {"zone": zone}}
    told = {
        "metadata": {"name": name, "namespace": "kube-system"},
        "storageClassName": "disks",
        "nodeTopology": topology,
    }
    world.put(resources.CSI_STORAGE_CAPACITIES, {**told, **amounts})


def using(world: World, name: str, *claims: str, **spec: Any) -> None:
    volumes = [{"name": one, "persistentVolumeClaim": {"claimName": one}} for one in claims]
    world.pod(name, volumes=volumes, **spec)


def selected_node(world: World, name: str) -> str:
    claim = world.informers.get(resources.PERSISTENT_VOLUME_CLAIMS).get("default", name)
    assert claim is not None
    return str((claim["metadata"].get("annotations") or {}).get("volume.kubernetes.io/selected-node") or "")


async def test_a_node_takes_no_more_volumes_than_its_driver_can(world: World) -> None:
    world.node("a")
    csi_node(world, "a", 1)
    for name in ("one", "two"):
        bound(world, name)
    using(world, "first", "one", nodeName="a")
    using(world, "second", "two")
    async with world.scheduling():
        await world.until(lambda: world.message("second"))
        assert "1 node(s) exceed max volume count" in world.message("second")

        world.remove(resources.PODS, "first")

        await world.until(lambda: world.where("second") == "a")


async def test_a_volume_that_is_there_already_counts_once(world: World) -> None:
    world.node("a")
    csi_node(world, "a", 1)
    bound(world, "one")
    using(world, "first", "one", nodeName="a")
    using(world, "second", "one")
    async with world.scheduling():
        await world.until(lambda: world.where("second") == "a")


async def test_what_is_still_attached_counts(world: World) -> None:
    world.node("a")
    csi_node(world, "a", 1)
    for name in ("one", "two"):
        bound(world, name)
    spec = {"attacher": DRIVER, "nodeName": "a", "source": {"persistentVolumeName": "pv-one"}}
    world.put(resources.VOLUME_ATTACHMENTS, {"metadata": {"name": "csi-x"}, "spec": spec})
    using(world, "web", "two")
    async with world.scheduling():
        await world.until(lambda: world.message("web"))
        assert "exceed max volume count" in world.message("web")

        world.remove(resources.VOLUME_ATTACHMENTS, "csi-x", "")

        await world.until(lambda: world.where("web") == "a")


async def test_a_volume_is_made_where_the_driver_has_room(world: World) -> None:
    world.node("a", labels={"zone": "z1"})
    world.node("b", labels={"zone": "z2"})
    world.put(resources.CSI_DRIVERS, {"metadata": {"name": DRIVER}, "spec": {"storageCapacity": True}})
    storage_class(world)
    room(world, "small", "z1", capacity="500Mi")
    room(world, "large", "z2", capacity="2Gi")
    waiting(world, "data")
    using(world, "web", "data")
    async with world.scheduling():
        await world.until(lambda: selected_node(world, "data") == "b")


async def test_a_pod_waits_for_room(world: World) -> None:
    world.node("a", labels={"zone": "z1"})
    world.put(resources.CSI_DRIVERS, {"metadata": {"name": DRIVER}, "spec": {"storageCapacity": True}})
    storage_class(world)
    room(world, "told", "z1", capacity="10Gi", maximumVolumeSize="500Mi")
    waiting(world, "data")
    using(world, "web", "data")
    async with world.scheduling():
        await world.until(lambda: world.message("web"))
        assert "1 node(s) did not have enough free storage" in world.message("web")

        room(world, "told", "z1", capacity="10Gi")

        await world.until(lambda: selected_node(world, "data") == "a")


async def test_a_driver_that_says_nothing_of_room_has_some(world: World) -> None:
    world.node("a")
    storage_class(world)
    waiting(world, "data")
    using(world, "web", "data")
    async with world.scheduling():
        await world.until(lambda: selected_node(world, "data") == "a")


async def test_a_volume_of_a_zone_is_used_there(world: World) -> None:
    zone = "topology.kubernetes.io/zone"
    world.node("a", labels={zone: "z1"})
    bound(world, "data", {zone: "z2__z3"})
    using(world, "web", "data")
    async with world.scheduling():
        await world.until(lambda: world.message("web"))
        assert "1 node(s) had no available volume zone" in world.message("web")

        world.node("b", labels={zone: "z3"})

        await world.until(lambda: world.where("web") == "b")


def static(world: World, name: str, phase: str) -> None:
    """A claim that names its volume, which is bound or is not."""
    spec = {"volumeName": f"pv-{name}", "storageClassName": ""}
    claim = {"metadata": {"name": name, "namespace": "default"}, "spec": spec, "status": {"phase": phase}}
    world.put(resources.PERSISTENT_VOLUME_CLAIMS, claim)


def volume_of(world: World, name: str) -> None:
    spec = {"hostPath": {"path": "/x"}, "claimRef": {"name": name, "namespace": "default"}}
    world.put(resources.PERSISTENT_VOLUMES, {"metadata": {"name": f"pv-{name}"}, "spec": spec})


@pytest.mark.parametrize("claim_first", [False, True])
async def test_a_pod_is_placed_whenever_its_volume_comes(claim_first: bool) -> None:
    """Whatever the scheduler is about with the pod at the moment: the volume and the claim come 0, 1, 2… turns of the
    event loop after the pod, and with as many turns between them."""
    tell = [volume_of, lambda world, name: static(world, name, "Bound")]
    for turns in range(24):
        for between in (0, 1, 3, 7):
            world = World()
            world.node("a")
            static(world, "data", "Pending")
            async with world.scheduling():
                using(world, "web", "data")
                for _ in range(turns):
                    await asyncio.sleep(0)
                for one in reversed(tell) if claim_first else tell:
                    one(world, "data")
                    for _ in range(between):
                        await asyncio.sleep(0)
                await world.until(lambda world=world: world.where("web") == "a")


async def test_what_happens_to_the_claims_of_others_does_not_make_a_pod_wait_longer(world: World) -> None:
    world.node("a")
    static(world, "data", "Pending")
    using(world, "web", "data")
    config = SchedulerConfig(first_backoff_s=0, last_backoff_s=0)
    async with world.scheduling(config) as scheduler:
        await world.until(lambda: world.message("web"))
        waiting = scheduler.queue.get("uid-web")
        assert waiting is not None
        before = waiting.attempts

        for number in range(10):
            static(world, f"other-{number}", "Bound")
            volume_of(world, f"other-{number}")
            await world.settle()
        volume_of(world, "data")
        await world.settle()

        assert waiting.attempts == before
        static(world, "data", "Bound")
        await world.until(lambda: world.where("web") == "a")


async def test_pods_that_wait_for_their_volumes_keep_nobody_else_waiting(world: World) -> None:
    world.node("a")
    storage_class(world)
    for name in ("one", "two"):
        waiting(world, name)
        using(world, f"waits-for-{name}", name)
    async with world.scheduling(SchedulerConfig(binds_in_flight=1)):
        await world.until(lambda: selected_node(world, "one") and selected_node(world, "two"))

        world.pod("web")

        await world.until(lambda: world.where("web") == "a")


async def test_a_pod_that_goes_while_its_volume_is_made_is_forgotten(world: World) -> None:
    world.node("a", cpu="1")
    storage_class(world)
    waiting(world, "data")
    using(world, "web", "data", cpu="1")
    async with world.scheduling():
        await world.until(lambda: selected_node(world, "data"))

        world.remove(resources.PODS, "web")
        world.pod("next", cpu="1")

        await world.until(lambda: world.where("next") == "a")


async def test_a_refusal_that_cannot_be_told_does_not_disturb_the_next_attempt(world: World) -> None:
    """The pod is in the queue again before its refusal is written; that the write fails concerns nobody later."""
    world.node("a")
    static(world, "data", "Pending")
    telling, failed, bound_now = asyncio.Event(), asyncio.Event(), asyncio.Event()
    bindings = []
    patch, create = world.patch, world.create

    async def slow_to_fail(resource: Any, *arguments: Any, **fields: Any) -> Obj:
        if resource == resources.PODS and not telling.is_set():
            telling.set()
            await failed.wait()
            raise ConnectionError("the server is away")
        return await patch(resource, *arguments, **fields)

    async def slow_to_bind(resource: Any, obj: Obj, **fields: Any) -> Obj:
        if fields.get("subresource") == "binding":
            bindings.append(obj)
            await bound_now.wait()
        return await create(resource, obj, **fields)

    world.patch, world.create = slow_to_fail, slow_to_bind  # type: ignore[method-assign]
    using(world, "web", "data")
    async with world.scheduling(SchedulerConfig(first_backoff_s=0, last_backoff_s=0)):
        await telling.wait()
        volume_of(world, "data")
        static(world, "data", "Bound")
        await world.until(lambda: bindings)

        failed.set()
        await world.settle()
        bound_now.set()

        await world.until(lambda: world.where("web") == "a")
        assert len(bindings) == 1
