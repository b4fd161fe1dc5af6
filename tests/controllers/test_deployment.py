"""Deployments against a real API server: what `kubectl rollout` and `kubectl describe` would show."""

from __future__ import annotations

from navarch.api.meta import Obj, annotations_of, name_of
from navarch.client.resources import DEPLOYMENTS, PODS, REPLICA_SETS, RESOURCE_QUOTAS
from navarch.controllers.base import ControllerConfig
from tests.controllers.conftest import Cluster, running
from tests.controllers.objects import deployment, template

REVISION = "deployment.kubernetes.io/revision"


async def rolled_out(cluster: Cluster, name: str, replicas: int) -> None:
    async def check() -> bool:
        found = await cluster.get(DEPLOYMENTS, name)
        status = found.get("status") or {}
        counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")]
        reasons = {condition["reason"] for condition in status.get("conditions", ())}
        return (
            counts == [replicas] * 3
            and "NewReplicaSetAvailable" in reasons
            and status.get("observedGeneration") == found["metadata"]["generation"]
        )

    await cluster.until(check)


async def test_a_deployment_brings_up_its_pods_and_says_so(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=3))

    await rolled_out(cluster, "web", 3)

    [rs] = await cluster.list(REPLICA_SETS)
    made = await cluster.get(DEPLOYMENTS, "web")
    digest = rs["metadata"]["labels"]["pod-template-hash"]
    assert name_of(rs) == f"web-{digest}"
    assert made["metadata"]["annotations"][REVISION] == rs["metadata"]["annotations"][REVISION] == "1"
    assert [c["message"] for c in made["status"]["conditions"]] == [
        "Deployment has minimum availability.",
        f'ReplicaSet "{name_of(rs)}" has successfully progressed.',
    ]
    message = f"Scaled up replica set {name_of(rs)} from 0 to 3"
    await cluster.until(lambda: cluster.events("web"))
    assert ("ScalingReplicaSet", message) in await cluster.events("web")
    pods = await cluster.list(PODS)
    assert all(pod["metadata"]["generateName"] == f"{name_of(rs)}-" for pod in pods)


async def test_a_deleted_pod_is_replaced(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=3))
    await rolled_out(cluster, "web", 3)
    victim = name_of((await cluster.list(PODS))[0])

    await cluster.client.delete(PODS, victim, "default")

    async def replaced() -> bool:
        names = [name_of(pod) for pod in await cluster.list(PODS)]
        return len(names) == 3 and victim not in names

    await cluster.until(replaced)


async def test_scaling_up_and_down(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=1))
    for size in (20, 3):
        await cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": size}})
        await rolled_out(cluster, "web", size)
        assert len(await cluster.until_count(PODS, size)) == size


async def test_an_update_rolls_over_and_a_rollback_brings_the_old_template_back(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=4))
    await rolled_out(cluster, "web", 4)

    new = template({"app": "web"}, image="nginx:2")
    await cluster.patch(DEPLOYMENTS, "web", {"spec": {"template": new}})
    await rolled_out(cluster, "web", 4)

    pods = await cluster.until_count(PODS, 4)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"nginx:2"}
    sets = await cluster.list(REPLICA_SETS)
    assert sorted((rs["metadata"]["annotations"][REVISION], rs["spec"]["replicas"]) for rs in sets) == [
        ("1", 0),
        ("2", 4),
    ]

    old = template({"app": "web"}, image="nginx:1")
    await cluster.patch(DEPLOYMENTS, "web", {"spec": {"template": old}})
    await rolled_out(cluster, "web", 4)

    sets = await cluster.list(REPLICA_SETS)
    assert sorted((rs["metadata"]["annotations"][REVISION], rs["spec"]["replicas"]) for rs in sets) == [
        ("2", 0),
        ("3", 4),
    ]
    assert (await cluster.get(DEPLOYMENTS, "web"))["metadata"]["annotations"][REVISION] == "3"


async def test_recreate_ends_the_old_pods_first(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=3, strategy={"type": "Recreate"}))
    await rolled_out(cluster, "web", 3)

    await cluster.patch(DEPLOYMENTS, "web", {"spec": {"template": template({"app": "web"}, image="nginx:2")}})
    await rolled_out(cluster, "web", 3)

    pods = await cluster.until_count(PODS, 3)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"nginx:2"}


async def test_a_paused_deployment_scales_but_does_not_roll(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=2))
    await rolled_out(cluster, "web", 2)
    new = template({"app": "web"}, image="nginx:2")
    await cluster.patch(DEPLOYMENTS, "web", {"spec": {"paused": True, "template": new}})

    await cluster.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 4}})

    await cluster.until_status(DEPLOYMENTS, "web", replicas=4, availableReplicas=4)
    assert len(await cluster.list(REPLICA_SETS)) == 1
    await cluster.patch(DEPLOYMENTS, "web", {"spec": {"paused": False}})
    await rolled_out(cluster, "web", 4)


async def test_history_beyond_the_limit_is_removed(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=1, revisionHistoryLimit=1))
    for image in ("nginx:2", "nginx:3", "nginx:4"):
        await rolled_out(cluster, "web", 1)
        await cluster.patch(DEPLOYMENTS, "web", {"spec": {"template": template({"app": "web"}, image=image)}})
    await rolled_out(cluster, "web", 1)

    await cluster.until_count(REPLICA_SETS, 2)


async def test_deleting_a_deployment_takes_everything_with_it(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=3))
    await rolled_out(cluster, "web", 3)

    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Background")

    await cluster.until_count(REPLICA_SETS, 0)
    await cluster.until_count(PODS, 0)


async def test_foreground_deletion_waits_for_the_pods(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=3))
    await rolled_out(cluster, "web", 3)

    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Foreground")

    await cluster.until_count(DEPLOYMENTS, 0)
    assert await cluster.list(PODS) == []


async def test_orphaned_replica_sets_stay_and_are_adopted_again(cluster: Cluster) -> None:
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=2))
    await rolled_out(cluster, "web", 2)
    before = {name_of(pod) for pod in await cluster.list(PODS)}

    await cluster.client.delete(DEPLOYMENTS, "web", "default", propagation="Orphan")
    await cluster.until_count(DEPLOYMENTS, 0)
    [rs] = await cluster.list(REPLICA_SETS)
    assert not rs["metadata"].get("ownerReferences")

    await cluster.create(DEPLOYMENTS, deployment("web", replicas=2))
    await rolled_out(cluster, "web", 2)
    assert {name_of(pod) for pod in await cluster.list(PODS)} == before


async def test_a_template_that_is_refused_shows_in_conditions(cluster: Cluster) -> None:
    bad = deployment("web", replicas=2)
    bad["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    bad["spec"]["progressDeadlineSeconds"] = 1
    cluster.kubelet.unready_images.add("nginx:1")
    await cluster.create(DEPLOYMENTS, bad)

    async def timed_out() -> bool:
        status = (await cluster.get(DEPLOYMENTS, "web")).get("status") or {}
        return any(c["reason"] == "ProgressDeadlineExceeded" for c in status.get("conditions", ()))

    await cluster.until(timed_out)


async def test_a_replica_set_that_cannot_be_made_shows_in_condition_and_event(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": "default"}}
    hard = {"count/replicasets.apps": "0"}
    await cluster.create(RESOURCE_QUOTAS, {**quota, "spec": {"hard": hard}})
    await cluster.until_status(RESOURCE_QUOTAS, "none", hard=hard)

    await cluster.create(DEPLOYMENTS, deployment("web"))

    async def failed() -> Obj | None:
        status = (await cluster.get(DEPLOYMENTS, "web")).get("status") or {}
        return next((c for c in status.get("conditions", ()) if c["type"] == "Progressing"), None)

    condition = await cluster.until(failed)
    assert (condition["status"], condition["reason"]) == ("False", "ReplicaSetCreateError")
    assert condition["message"].startswith('Failed to create new replica set "web-')
    assert "exceeded quota: none" in condition["message"]

    async def told() -> bool:
        return any(reason == "ReplicaSetCreateError" for reason, _ in await cluster.events("web"))

    await cluster.until(told)


async def test_the_deprecated_annotation_rolls_back_to_a_revision(cluster: Cluster) -> None:
    made = deployment("web", replicas=1)
    made["metadata"]["annotations"] = {"cause": "first", "old": ""}
    await cluster.create(DEPLOYMENTS, made)
    await rolled_out(cluster, "web", 1)
    change: Obj = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx:2"}]}}}}
    # A revision that is no number is nobody's concern.
    change["metadata"] = {"annotations": {"cause": "second", "old": None, "deprecated.deployment.rollback.to": "x"}}
    await cluster.patch(DEPLOYMENTS, "web", change)
    await rolled_out(cluster, "web", 1)

    await cluster.patch(DEPLOYMENTS, "web", {"metadata": {"annotations": {"deprecated.deployment.rollback.to": "1"}}})

    async def back() -> Obj | None:
        found = await cluster.get(DEPLOYMENTS, "web")
        return found if annotations_of(found)["deployment.kubernetes.io/revision"] == "3" else None

    found = await cluster.until(back)
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1"
    annotations = annotations_of(found)
    assert "deprecated.deployment.rollback.to" not in annotations
    assert (annotations["cause"], annotations["old"]) == ("first", ""), "as the revision has them"

    async def told() -> bool:
        message = 'Rolled back deployment "web" to revision 1'
        return ("DeploymentRollback", message) in await cluster.events("web")

    await cluster.until(told)


async def test_pods_that_end_are_told_of_as_the_version_has_it() -> None:
    for told in (True, False):
        async with running(ControllerConfig(terminating_replicas=told)) as cluster:
            await cluster.create(DEPLOYMENTS, deployment("web", replicas=1))
            await rolled_out(cluster, "web", 1)

            [rs] = await cluster.list(REPLICA_SETS)
            made = await cluster.get(DEPLOYMENTS, "web")
            for status in (rs["status"], made["status"]):
                assert status.get("terminatingReplicas") == (0 if told else None)
