"""StatefulSets against a real API server."""

from __future__ import annotations

from navarch.api.meta import Obj, labels_of, name_of, uid_of
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PODS, RESOURCE_QUOTAS, STATEFUL_SETS
from navarch.controllers.base import ControllerConfig
from navarch.controllers.garbage import GarbageCollector
from tests.controllers.conftest import Cluster, running
from tests.controllers.objects import stateful_set, template

_CLAIM: Obj = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


async def names(cluster: Cluster) -> list[str]:
    return sorted(name_of(pod) for pod in await cluster.list(PODS))


async def test_pods_come_in_order_with_claims_of_their_own(cluster: Cluster) -> None:
    await cluster.create(STATEFUL_SETS, stateful_set(volumeClaimTemplates=[_CLAIM]))

    made = await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=3, currentReplicas=3, updatedReplicas=3)

    assert made["status"]["currentRevision"] == made["status"]["updateRevision"]
    assert await names(cluster) == ["db-0", "db-1", "db-2"]
    pod = await cluster.get(PODS, "db-1")
    assert pod["spec"]["hostname"] == "db-1"
    assert labels_of(pod)["apps.kubernetes.io/pod-index"] == "1"
    assert pod["spec"]["volumes"][0] == {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}}
    claims = await cluster.list(PERSISTENT_VOLUME_CLAIMS)
    assert sorted(name_of(claim) for claim in claims) == ["data-db-0", "data-db-1", "data-db-2"]


async def test_the_next_pod_waits_for_the_one_before(cluster: Cluster) -> None:
    cluster.kubelet.unready_images.add("db:1")
    await cluster.create(STATEFUL_SETS, stateful_set())
    [first] = await cluster.until_count(PODS, 1)
    # What happened before another set got its pod has been dealt with.
    cluster.kubelet.unready_images.add("later:1")
    await cluster.create(STATEFUL_SETS, stateful_set("later", image="later:1"))
    await cluster.until_count(PODS, 2)
    assert await names(cluster) == ["db-0", "later-0"]

    await cluster.kubelet.report(first)

    await cluster.until_count(PODS, 3)
    assert await names(cluster) == ["db-0", "db-1", "later-0"]


async def test_parallel_pods_do_not_wait(cluster: Cluster) -> None:
    cluster.kubelet.unready_images.add("db:1")
    await cluster.create(STATEFUL_SETS, stateful_set(podManagementPolicy="Parallel"))

    await cluster.until_count(PODS, 3)


async def test_scaling_down_takes_the_highest(cluster: Cluster) -> None:
    await cluster.create(STATEFUL_SETS, stateful_set(volumeClaimTemplates=[_CLAIM]))
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=3)

    await cluster.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 1}})

    await cluster.until_count(PODS, 1)
    assert await names(cluster) == ["db-0"]
    assert len(await cluster.list(PERSISTENT_VOLUME_CLAIMS)) == 3


async def test_a_partition_holds_the_lower_pods_back(cluster: Cluster) -> None:
    await cluster.create(STATEFUL_SETS, stateful_set())
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=3)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    new = template({"app": "db"}, "db:2")

    await cluster.patch(STATEFUL_SETS, "db", {"spec": {"template": new, "updateStrategy": strategy}})
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=3, updatedReplicas=1, currentReplicas=2)
    images = [pod["spec"]["containers"][0]["image"] for pod in sorted(await cluster.list(PODS), key=name_of)]
    assert images == ["db:1", "db:1", "db:2"]

    strategy["rollingUpdate"] = {"partition": 0}
    await cluster.patch(STATEFUL_SETS, "db", {"spec": {"updateStrategy": strategy}})
    made = await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=3, updatedReplicas=3, currentReplicas=3)
    assert made["status"]["currentRevision"] == made["status"]["updateRevision"]


async def test_a_failed_pod_is_made_anew_under_its_name(cluster: Cluster) -> None:
    await cluster.create(STATEFUL_SETS, stateful_set(replicas=1))
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=1)
    pod = await cluster.get(PODS, "db-0")

    await cluster.kubelet.report(pod, 1)

    async def renewed() -> bool:
        found = [p for p in await cluster.list(PODS) if p["metadata"]["uid"] != pod["metadata"]["uid"]]
        return bool(found) and name_of(found[0]) == "db-0"

    await cluster.until(renewed)
    told = await cluster.until(lambda: deleted(cluster))
    assert told == ["delete Pod db-0 in StatefulSet db successful"]
    assert not [reason for reason, _ in await cluster.events("db") if not reason.startswith("Successful")]


async def deleted(cluster: Cluster) -> list[str]:
    return [message for reason, message in await cluster.events("db") if reason == "SuccessfulDelete"]


async def test_claims_go_with_the_set_where_the_policy_says_so(cluster: Cluster) -> None:
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    made = stateful_set(replicas=2, volumeClaimTemplates=[_CLAIM], persistentVolumeClaimRetentionPolicy=policy)
    await cluster.create(STATEFUL_SETS, made)
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=2)

    await cluster.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 1}})
    await cluster.until_count(PERSISTENT_VOLUME_CLAIMS, 1)

    await cluster.client.delete(STATEFUL_SETS, "db", "default")
    await cluster.until_count(PERSISTENT_VOLUME_CLAIMS, 0)


async def test_a_name_that_somebody_else_holds_is_taken_when_it_is_free(cluster: Cluster) -> None:
    foreign = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-0", "namespace": "default"},
               "spec": {"containers": [{"name": "main", "image": "other:1"}]}}  # fmt: skip
    await cluster.create(PODS, foreign)
    await cluster.create(STATEFUL_SETS, stateful_set(replicas=1))
    await cluster.until_status(STATEFUL_SETS, "db", observedGeneration=1)

    await cluster.client.delete(PODS, "db-0", "default")

    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=1)


async def test_an_orphan_of_the_right_name_is_adopted_and_gets_its_labels(cluster: Cluster) -> None:
    orphan = {"apiVersion": "v1", "kind": "Pod",
              "metadata": {"name": "db-0", "namespace": "default", "labels": {"app": "db"}},
              "spec": {"containers": [{"name": "main", "image": "db:1"}]}}  # fmt: skip
    made = await cluster.create(PODS, orphan)

    await cluster.create(STATEFUL_SETS, stateful_set(replicas=1, updateStrategy={"type": "OnDelete"}))

    async def labelled() -> Obj | None:
        pod = await cluster.get(PODS, "db-0")
        return pod if "apps.kubernetes.io/pod-index" in labels_of(pod) else None

    pod = await cluster.until(labelled)
    assert pod["metadata"]["uid"] == made["metadata"]["uid"]
    assert labels_of(pod)["statefulset.kubernetes.io/pod-name"] == "db-0"


async def test_a_pod_that_is_not_available_yet_holds_up_the_way_down(cluster: Cluster) -> None:
    await cluster.create(STATEFUL_SETS, stateful_set(replicas=2))
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=2)

    # From now on being ready is not enough: both are unavailable, and only the lowest of them may go.
    await cluster.patch(STATEFUL_SETS, "db", {"spec": {"minReadySeconds": 3600}})
    await cluster.until_status(STATEFUL_SETS, "db", availableReplicas=0)
    made = await cluster.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 0}})

    await cluster.until_status(STATEFUL_SETS, "db", observedGeneration=made["metadata"]["generation"])
    assert await names(cluster) == ["db-0", "db-1"]


async def test_a_pod_that_has_ended_counts_until_it_is_gone(cluster: Cluster) -> None:
    await cluster.create(STATEFUL_SETS, stateful_set(replicas=1))
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=1)
    before = await cluster.get(PODS, "db-0")
    await cluster.patch(PODS, "db-0", {"metadata": {"finalizers": ["example.com/held"]}})

    await cluster.kubelet.report(await cluster.get(PODS, "db-0"), 1)

    held = await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=0, replicas=1)
    assert held["status"]["replicas"] == 1
    await cluster.patch(PODS, "db-0", {"metadata": {"finalizers": None}})
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=1)
    assert uid_of(await cluster.get(PODS, "db-0")) != uid_of(before)


async def test_old_pods_that_are_down_are_replaced_though_no_more_may_be_down(cluster: Cluster) -> None:
    await cluster.create(STATEFUL_SETS, stateful_set(podManagementPolicy="Parallel"))
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=3)
    await cluster.kubelet.report(await cluster.get(PODS, "db-0"), ready=False)
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=2)

    await cluster.patch(STATEFUL_SETS, "db", {"spec": {"template": template({"app": "db"}, "db:2")}})

    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=3, updatedReplicas=3)


async def test_a_share_of_pods_that_may_be_down_is_rounded_down(cluster: Cluster) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}
    await cluster.create(STATEFUL_SETS, stateful_set(updateStrategy=strategy))
    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=3)
    before = {name_of(pod): uid_of(pod) for pod in await cluster.list(PODS)}
    cluster.kubelet.unready_images.add("db:2")

    await cluster.patch(STATEFUL_SETS, "db", {"spec": {"template": template({"app": "db"}, "db:2")}})

    await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=2, updatedReplicas=1)
    after = {name_of(pod): uid_of(pod) for pod in await cluster.list(PODS)}
    assert [name for name in sorted(before) if after.get(name) != before[name]] == ["db-2"]


async def test_a_claim_that_cannot_be_made_is_told_of_with_the_pod_that_waits_for_it(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": "default"},
             "spec": {"hard": {"persistentvolumeclaims": "0"}}}  # fmt: skip
    await cluster.create(RESOURCE_QUOTAS, quota)
    await cluster.until_status(RESOURCE_QUOTAS, "none", hard={"persistentvolumeclaims": "0"})

    await cluster.create(STATEFUL_SETS, stateful_set(replicas=1, volumeClaimTemplates=[_CLAIM]))

    async def told() -> list[str]:
        found = [message for reason, message in await cluster.events("db") if reason == "FailedCreate"]
        return sorted(set(found)) if len(set(found)) >= 2 else []

    why = 'persistentvolumeclaims "data-db-0" is forbidden: exceeded quota: none, requested: persistentvolumeclaims=1, '
    why += "used: persistentvolumeclaims=0, limited: persistentvolumeclaims=0"
    assert await cluster.until(told) == [
        f"create Claim data-db-0 for Pod db-0 in StatefulSet db failed error: {why}",
        f"create Pod db-0 in StatefulSet db failed error: failed to create PVC data-db-0: {why}",
    ]


async def test_a_pod_waits_until_the_claims_of_the_one_that_was_scaled_away_are_gone() -> None:
    config = ControllerConfig(disabled=frozenset({GarbageCollector.name}))
    async with running(config) as cluster:
        policy = {"whenDeleted": "Retain", "whenScaled": "Delete"}
        made = stateful_set(replicas=2, volumeClaimTemplates=[_CLAIM], persistentVolumeClaimRetentionPolicy=policy)
        await cluster.create(STATEFUL_SETS, made)
        await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=2)
        await cluster.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 1}})
        await cluster.until_count(PODS, 1)

        # Nobody has collected the claim yet, which still is the earlier pod's.
        again = await cluster.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 2}})
        await cluster.until_status(STATEFUL_SETS, "db", observedGeneration=again["metadata"]["generation"])
        assert await names(cluster) == ["db-0"]

        await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data-db-1", "default")
        await cluster.until_status(STATEFUL_SETS, "db", readyReplicas=2)
