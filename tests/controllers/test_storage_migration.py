"""Objects that are written anew in the version in which they are stored now."""

from __future__ import annotations

import asyncio
from typing import Any

from navarch.api.meta import Obj
from navarch.client.resources import RESOURCE_CLAIMS, STORAGE_VERSION_MIGRATIONS
from navarch.store.base import Put
from navarch.testing.embedded import EmbeddedCluster

_MIGRATIONS = STORAGE_VERSION_MIGRATIONS._replace(version="v1beta1")
_ON = "storagemigration.k8s.io/v1beta1=true,resource.k8s.io/v1beta2=true"


async def _migrated(cluster: EmbeddedCluster, **resource: Any) -> Obj:
    """The status of a migration that has come to its end."""
    await cluster.client.create(_MIGRATIONS, {"metadata": {"name": "m"}, "spec": {"resource": resource}})
    for _ in range(500):
        status: Obj = (await cluster.client.get(_MIGRATIONS, "m")).get("status") or {}
        kinds = {each["type"] for each in status.get("conditions") or ()}
        if kinds & {"Succeeded", "Failed"} and "Running" not in kinds:
            return status
        await asyncio.sleep(0.02)
    raise AssertionError(f"the migration did not end: {status}")


async def test_objects_of_an_older_version_are_stored_anew_and_others_are_left_alone() -> None:
    async with EmbeddedCluster(nodes=0, runtime_config=_ON) as cluster:
        request = {"name": "gpu", "exactly": {"deviceClassName": "gpus"}}
        for name in ("old", "new"):
            claim = {"metadata": {"name": name, "namespace": "default"}, "spec": {"devices": {"requests": [request]}}}
            await cluster.client.create(RESOURCE_CLAIMS, claim)
        cache = cluster.server.core.kind_of(RESOURCE_CLAIMS).cache
        old, new = cache.get("default", "old"), cache.get("default", "new")
        assert old is not None
        assert new is not None
        stored = cache.codec.encode(old.obj()).replace(b"resource.k8s.io/v1", b"resource.k8s.io/v1beta2", 1)
        await cluster.server.store.commit([Put(old.key, stored)])

        status = await _migrated(cluster, group="resource.k8s.io", resource="resourceclaims")

        (told,) = status["conditions"]
        assert (told["type"], told["status"], told["reason"]) == (
            "Succeeded",
            "True",
            "StorageVersionMigrationSucceeded",
        )
        assert int(status["resourceVersion"]) > new.revision
        migrated = await cluster.server.store.get(old.key)
        assert migrated is not None
        assert migrated.value.startswith(b'{"apiVersion":"resource.k8s.io/v1",')
        assert (await cluster.client.get(RESOURCE_CLAIMS, "new", "default"))["metadata"]["resourceVersion"] == str(
            new.revision
        )


async def test_a_migration_of_what_is_not_served_fails() -> None:
    async with EmbeddedCluster(nodes=0, runtime_config=_ON) as cluster:
        status = await _migrated(cluster, group="example.com", resource="things")

    (told,) = status["conditions"]
    assert (told["type"], told["reason"], told["message"]) == (
        "Failed",
        "StorageVersionMigrationFailed",
        "resource does not exist in discovery",
    )
