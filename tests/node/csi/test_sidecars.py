"""A driver with its sidecars in a whole cluster: provisioned where the pod goes, attached, grown, cloned, deleted."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from navarch.api.meta import annotations_of
from navarch.client.resources import (
    CSI_DRIVERS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
)
from tests.csi_driver import NAME, DirectoryDriver
from tests.csi_sidecars import Sidecars
from tests.node.csi.conftest import Storage
from tests.node.engine.conftest import Simulated

ZONE = "example.com/zone"


class World:
    """A cluster with a driver in zone `z1`, which has a class `disks`."""

    def __init__(self, storage: Storage, driver: DirectoryDriver) -> None:
        self.storage = storage
        self.node = storage.node
        self.admin = storage.admin
        self.driver = driver

    async def claim(self, name: str, **spec: Any) -> None:
        stated = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "disks",
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        }
        await self.admin.create(
            PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": name, "namespace": "default"}, "spec": stated}
        )

    async def pod(self, name: str, claim: str) -> None:
        """A pod that the scheduler places."""
        spec = {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "web:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}],
        }
        metadata = {"name": name, "namespace": "default"}
        await self.admin.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    async def volume_of(self, claim: str) -> dict[str, Any]:
        found = await self.admin.get(PERSISTENT_VOLUME_CLAIMS, claim, "default")
        return dict(await self.admin.get(PERSISTENT_VOLUMES, found["spec"]["volumeName"]))

    async def gone(self, pod: str) -> None:
        await self.node.api.delete_gracefully("default", pod)
        await self.node.until(lambda: self.node.shown(pod) is None)


@pytest.fixture
async def world(controlled: Simulated, place: Path) -> AsyncIterator[World]:
    if os.geteuid() != 0:
        pytest.skip("a kubelet mounts, which needs root")
    storage = Storage(controlled, place)
    await storage.admin.create(CSI_DRIVERS, {"metadata": {"name": NAME}, "spec": {"attachRequired": True}})
    await storage.admin.create(
        STORAGE_CLASSES,
        {
            "metadata": {"name": "disks"},
            "provisioner": NAME,
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
            "parameters": {"kind": "fast"},
        },
    )
    async with (
        storage.serving(topology={ZONE: "z1"}) as driver,
        Sidecars(storage.admin, NAME, driver.socket) as sidecars,
    ):
        made = World(storage, driver)
        yield made
        assert not [one for one in sidecars.errors if "conflict" not in one.lower() and "has been modified" not in one]


async def test_a_claim_is_provisioned_where_its_pod_goes_and_deleted_with_it(world: World) -> None:
    await world.claim("data")
    await world.pod("p", "data")
    await world.node.running("p")

    volume = await world.volume_of("data")
    claim = await world.admin.get(PERSISTENT_VOLUME_CLAIMS, "data", "default")
    assert annotations_of(claim)["volume.kubernetes.io/selected-node"] == "n1"
    created = world.driver.named("CreateVolume")[0]
    assert dict(created.parameters) == {"kind": "fast"}
    assert dict(created.accessibility_requirements.preferred[0].segments) == {ZONE: "z1"}
    handle = volume["spec"]["csi"]["volumeHandle"]
    assert dict(world.driver.named("NodeStageVolume")[0].publish_context) == {"device": f"dev-{handle}"}
    assert world.driver.volumes[handle].published == {"node-1"}

    await world.gone("p")
    await world.admin.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")

    async def nothing_left() -> bool:
        listed = [await world.admin.list(one) for one in (PERSISTENT_VOLUMES, VOLUME_ATTACHMENTS)]
        return not any(one.items for one in listed)

    await world.node.until_async(nothing_left)
    assert world.driver.volumes == {}
    assert world.storage.mounts() == []
    assert world.storage.records() == []


async def test_a_claim_that_asks_for_more_gets_it_under_its_pod(world: World) -> None:
    await world.node.restart(sync_period_s=0.1)
    await world.claim("data")
    await world.pod("p", "data")
    await world.node.running("p")
    more = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    await world.admin.patch(PERSISTENT_VOLUME_CLAIMS, "data", "default", more)

    async def has_grown() -> bool:
        claim = await world.admin.get(PERSISTENT_VOLUME_CLAIMS, "data", "default")
        return bool(claim["status"]["capacity"] == {"storage": "2Gi"} and "conditions" not in claim["status"])

    await world.node.until_async(has_grown)
    assert "ExternalExpanding" in world.node.reasons("data")
    await world.gone("p")


async def test_a_claim_is_cloned(world: World) -> None:
    await world.claim("data")
    await world.pod("p", "data")
    await world.node.running("p")
    handle = (await world.volume_of("data"))["spec"]["csi"]["volumeHandle"]
    (world.storage.place / "store" / handle / "f").write_text("same")

    await world.claim("copy", dataSource={"kind": "PersistentVolumeClaim", "name": "data"})
    await world.pod("q", "copy")
    await world.node.running("q")

    copy = (await world.volume_of("copy"))["spec"]["csi"]["volumeHandle"]
    assert (world.storage.place / "store" / copy / "f").read_text() == "same"
    await world.gone("p")
    await world.gone("q")
