"""Claims that name their volume: bound where it does, told why not where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
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
