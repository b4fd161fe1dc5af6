"""ReplicationControllers: the same pods by an older name."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj, controller_of, name_of
from navarch.client.resources import PODS, REPLICATION_CONTROLLERS, RESOURCE_QUOTAS
from tests.controllers.conftest import KEEP, Cluster
from tests.controllers.objects import template


def replication_controller(name: str = "rc", replicas: int = 2, **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "template": template({"app": name}), **spec},
    }


async def test_it_brings_up_its_pods_and_counts_them(cluster: Cluster) -> None:
    await cluster.create(REPLICATION_CONTROLLERS, replication_controller(replicas=3))

    found = await cluster.until_status(
        REPLICATION_CONTROLLERS, "rc", replicas=3, readyReplicas=3, availableReplicas=3, fullyLabeledReplicas=3
    )

    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    await cluster.patch(REPLICATION_CONTROLLERS, "rc", {"spec": {"replicas": 1}})
    await cluster.until_count(PODS, 1, "app=rc")


async def test_it_adopts_what_matches_and_releases_what_no_longer_does(cluster: Cluster) -> None:
    orphan = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray", "namespace": "default",
              "labels": {"app": "rc"}}, "spec": template({})["spec"]}  # fmt: skip
    await cluster.create(PODS, orphan)
    await cluster.create(REPLICATION_CONTROLLERS, replication_controller(replicas=1))

    async def owner() -> Obj | None:
        return controller_of(await cluster.get(PODS, "stray"))

    assert (await cluster.until(owner))["kind"] == "ReplicationController"
    await cluster.until_status(REPLICATION_CONTROLLERS, "rc", replicas=1)

    await cluster.patch(PODS, "stray", {"metadata": {"labels": {"app": "other"}}})
    (made,) = await cluster.until_count(PODS, 1, "app=rc")
    assert name_of(made) != "stray"

    async def released() -> bool:
        return await owner() is None

    await cluster.until(released)


async def test_a_quota_that_is_in_the_way_shows_and_goes_from_its_conditions(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": "default"}}
    await cluster.create(RESOURCE_QUOTAS, {**quota, "spec": {"hard": {"pods": "2"}}})
    await cluster.until_status(RESOURCE_QUOTAS, "few", hard={"pods": "2"})
    await cluster.create(REPLICATION_CONTROLLERS, replication_controller(replicas=3))

    async def failures() -> list[Obj] | None:
        found = await cluster.get(REPLICATION_CONTROLLERS, "rc")
        return [c for c in found.get("status", {}).get("conditions", ()) if c["type"] == "ReplicaFailure"] or None

    (failure,) = await cluster.until(failures)
    assert (failure["status"], failure["reason"]) == ("True", "FailedCreate")
    assert "exceeded quota: few" in failure["message"]

    await cluster.patch(REPLICATION_CONTROLLERS, "rc", {"spec": {"replicas": 2}})

    async def none() -> bool:
        return await failures() is None

    await cluster.until(none)


async def test_a_pod_that_may_not_be_deleted_holds_up_no_other(cluster: Cluster) -> None:
    await cluster.create(REPLICATION_CONTROLLERS, replication_controller(replicas=3))
    first, *_ = await cluster.until_count(PODS, 3, "app=rc")
    await cluster.until_status(REPLICATION_CONTROLLERS, "rc", readyReplicas=3)
    notes = {KEEP: "", "controller.kubernetes.io/pod-deletion-cost": "-1"}
    await cluster.patch(PODS, name_of(first), {"metadata": {"annotations": notes}})

    await cluster.patch(REPLICATION_CONTROLLERS, "rc", {"spec": {"replicas": 0}})

    (left,) = await cluster.until_count(PODS, 1, "app=rc")
    assert name_of(left) == name_of(first)

    async def failure() -> Obj | None:
        found = await cluster.get(REPLICATION_CONTROLLERS, "rc")
        listed = found.get("status", {}).get("conditions", ())
        return next((c for c in listed if c["type"] == "ReplicaFailure"), None)

    told = await cluster.until(failure)
    assert (told["status"], told["reason"]) == ("True", "FailedDelete")
    refusal = f'pods "{name_of(first)}" is forbidden: it is to be kept'
    assert told["message"] == f"unable to delete pods: {refusal}"

    async def event() -> bool:
        return ("FailedDelete", f"Error deleting: {refusal}") in await cluster.events("rc")

    await cluster.until(event)
