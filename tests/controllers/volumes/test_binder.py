"""Claims that name their volume: bound where it does, told why not where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from navarch.controllers.volumes.binder import best_volume, mismatch
from tests.controllers.conftest import Cluster
from tests.controllers.volumes.objects import claim, volume


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"capacity": {"storage": "500Mi"}}, "requested PV is too small"),
        ({"storageClassName": "fast"}, "storageClassName does not match"),
        ({"volumeMode": "Block"}, "incompatible volumeMode"),
        ({"accessModes": ["ReadOnlyMany"]}, "incompatible accessMode"),
    ],
)
def test_what_a_volume_lacks(change: dict[str, Any], problem: str) -> None:
    offered = volume("disk", **change)

    assert mismatch(offered, claim("data")) == problem
    assert (best_volume(claim("data"), [offered]) is None) == bool(problem)


async def event(cluster: Cluster, name: str, reason: str) -> str:
    async def find() -> str | None:
        return next((message for seen, message in await cluster.events(name) if seen == reason), None)

    return str(await cluster.until(find))


async def test_a_claim_that_asks_for_too_small_a_volume_stays_pending(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUMES, volume("disk", capacity={"storage": "500Mi"}))
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data", volumeName="disk"))

    message = await event(cluster, "data", "VolumeMismatch")

    assert message == 'Cannot bind to requested volume "disk": requested PV is too small'
    await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Pending")
    assert "claimRef" not in (await cluster.get(PERSISTENT_VOLUMES, "disk"))["spec"]


async def test_a_claim_that_asks_for_the_volume_of_another_stays_pending(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUMES, volume("disk"))
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("first"))
    await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "first", phase="Bound")

    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("second", volumeName="disk"))

    assert await event(cluster, "second", "FailedBinding") == 'volume "disk" already bound to a different claim.'
    found: Obj = await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "second", phase="Pending")
    assert found["spec"]["volumeName"] == "disk"


def storage_class(name: str, **fields: Any) -> Obj:
    marked = fields.pop("default", False)
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if marked else {}
    return {"metadata": {"name": name, "annotations": annotations}, "provisioner": "x.example.com", **fields}


async def test_a_claim_without_a_class_gets_the_default_one_when_there_is_one(cluster: Cluster) -> None:
    made = claim("data")
    del made["spec"]["storageClassName"]
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, made)
    await event(cluster, "data", "FailedBinding")

    await cluster.create(STORAGE_CLASSES, storage_class("fast", default=True))

    async def has_class() -> bool:
        found = await cluster.get(PERSISTENT_VOLUME_CLAIMS, "data")
        return bool(found["spec"].get("storageClassName") == "fast")

    await cluster.until(has_class)


async def test_a_claim_that_wants_no_class_keeps_none(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data", storageClassName=""))
    await event(cluster, "data", "FailedBinding")
    await cluster.create(STORAGE_CLASSES, storage_class("fast", default=True))
    await cluster.create(PERSISTENT_VOLUMES, volume("disk"))

    found = await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Bound")

    assert found["spec"]["storageClassName"] == ""


async def test_what_a_claim_was_told_it_has_grown_to_stays(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUMES, volume("disk"))
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
    found = await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Bound")
    await cluster.patch(PERSISTENT_VOLUMES, "disk", {"spec": {"capacity": {"storage": "2Gi"}}})
    await cluster.patch(PERSISTENT_VOLUME_CLAIMS, "data", {"metadata": {"labels": {"seen": "yes"}}})
    binder = next(one for one in cluster.manager.controllers if one.name == "persistentvolume-binder")
    before = binder.metrics.reconciles
    await cluster.patch(PERSISTENT_VOLUME_CLAIMS, "data", {"metadata": {"labels": {"seen": "again"}}})

    async def looked() -> bool:
        return binder.metrics.reconciles > before

    await cluster.until(looked)
    now = await cluster.get(PERSISTENT_VOLUME_CLAIMS, "data")
    assert found["status"]["capacity"] == now["status"]["capacity"] == {"storage": "1Gi"}


async def test_a_volume_that_nobody_can_delete_says_so(cluster: Cluster) -> None:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}
    offered = volume(
        "disk",
        local={"path": "/x"},
        nodeAffinity={"required": {"nodeSelectorTerms": [term]}},
        persistentVolumeReclaimPolicy="Delete",
    )
    del offered["spec"]["hostPath"]
    await cluster.create(PERSISTENT_VOLUMES, offered)
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
    await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Bound")
    await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")

    failed = await cluster.until_status(PERSISTENT_VOLUMES, "disk", phase="Failed")

    why = 'error getting deleter volume plugin for volume "disk": no deletable volume plugin matched'
    assert failed["status"]["message"] == why
    assert await event(cluster, "disk", "VolumeFailedDelete") == why


async def test_only_what_can_grow_may_ask_for_more(cluster: Cluster) -> None:
    await cluster.create(STORAGE_CLASSES, storage_class("fixed"))
    await cluster.create(STORAGE_CLASSES, storage_class("elastic", allowVolumeExpansion=True))
    more = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    for name in ("fixed", "elastic"):
        await cluster.create(PERSISTENT_VOLUMES, volume(f"disk-{name}", storageClassName=name))
        await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim(name, storageClassName=name))
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("unbound", storageClassName="elastic"))
    for name in ("fixed", "elastic"):
        await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, name, phase="Bound")

    with pytest.raises(StatusError, match="the storageclass that provisions the pvc must support resize"):
        await cluster.patch(PERSISTENT_VOLUME_CLAIMS, "fixed", more)
    with pytest.raises(StatusError, match="for bound claims"):
        await cluster.patch(PERSISTENT_VOLUME_CLAIMS, "unbound", more)
    await cluster.patch(PERSISTENT_VOLUME_CLAIMS, "elastic", more)

    assert await event(cluster, "elastic", "ExternalExpanding") == (
        "waiting for an external controller to expand this PVC"
    )


@pytest.mark.parametrize("reserved", [False, True])
async def test_a_claim_gets_the_volume_that_it_names_when_that_comes_later(cluster: Cluster, reserved: bool) -> None:
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data", volumeName="disk"))
    await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Pending")

    reference = {"claimRef": {"name": "data", "namespace": "default"}} if reserved else {}
    await cluster.create(PERSISTENT_VOLUMES, volume("disk", **reference))

    await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Bound")


async def test_a_claim_whose_volume_is_deleted_has_lost_it(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUMES, volume("disk"))
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
    await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Bound")

    await cluster.client.delete(PERSISTENT_VOLUMES, "disk")
    await cluster.patch(PERSISTENT_VOLUMES, "disk", {"metadata": {"finalizers": None}})

    lost = await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Lost")
    assert "capacity" not in lost["status"]
    assert "accessModes" not in lost["status"]
    assert "Data on the volume is lost!" in await event(cluster, "data", "ClaimLost")


async def test_a_claim_whose_volume_was_given_to_another_says_so(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUMES, volume("disk"))
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
    await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Bound")

    other = {"name": "other", "namespace": "default", "uid": "0f0e0d0c-0b0a-0908-0706-050403020100"}
    await cluster.patch(PERSISTENT_VOLUMES, "disk", {"spec": {"claimRef": other}})

    await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Lost")
    message = "Two claims are bound to the same volume, this one is bound incorrectly"
    assert await event(cluster, "data", "ClaimMisbound") == message


@pytest.mark.parametrize("by_controller", [False, True])
async def test_a_volume_whose_claim_has_another_is_let_go(cluster: Cluster, by_controller: bool) -> None:
    await cluster.create(PERSISTENT_VOLUMES, volume("disk"))
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
    bound = await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Bound")
    reference = {"name": "data", "namespace": "default", "uid": bound["metadata"]["uid"]}
    second = volume("second", claimRef=reference)
    if by_controller:
        second["metadata"]["annotations"] = {"pv.kubernetes.io/bound-by-controller": "yes"}

    await cluster.create(PERSISTENT_VOLUMES, second)

    found = await cluster.until_status(PERSISTENT_VOLUMES, "second", phase="Available")
    if by_controller:
        assert "claimRef" not in found["spec"]
        assert not found["metadata"].get("annotations")
    else:
        assert (found["spec"]["claimRef"]["name"], "uid" in found["spec"]["claimRef"]) == ("data", False)
    assert (await cluster.get(PERSISTENT_VOLUME_CLAIMS, "data"))["spec"]["volumeName"] == "disk"


async def test_a_volume_that_nobody_can_wipe_says_so(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUMES, volume("disk", persistentVolumeReclaimPolicy="Recycle"))
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("data"))
    await cluster.until_status(PERSISTENT_VOLUME_CLAIMS, "data", phase="Bound")
    await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")

    failed = await cluster.until_status(PERSISTENT_VOLUMES, "disk", phase="Failed")

    assert failed["status"]["message"] == "No recycler plugin found for the volume!"
    assert await event(cluster, "disk", "VolumeFailedRecycle") == failed["status"]["message"]
