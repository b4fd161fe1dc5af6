"""Pods with volumes of CSI drivers: within a node's limit, where there is room, and in the volume's zone."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj
from navarch.client import resources
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
