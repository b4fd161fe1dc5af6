"""DaemonSets against a real API server."""

from __future__ import annotations

from navarch.api.meta import labels_of, name_of, uid_of
from navarch.client.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from tests.controllers.conftest import Cluster, node
from tests.controllers.objects import daemon_set, template


async def test_every_node_gets_a_pod_also_later_ones(cluster: Cluster) -> None:
    await cluster.create(DAEMON_SETS, daemon_set())
    await cluster.until_status(DAEMON_SETS, "agent", desiredNumberScheduled=1, numberReady=1, numberAvailable=1)

    await cluster.create(NODES, node("n2"))

    await cluster.until_status(DAEMON_SETS, "agent", desiredNumberScheduled=2, numberReady=2)
    pods = await cluster.until_count(PODS, 2)
    affinities = [
        pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] for pod in pods
    ]
    names = {terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0] for terms in affinities}
    assert names == {"n1", "n2"}


async def test_nodes_that_do_not_fit_get_none(cluster: Cluster) -> None:
    await cluster.create(NODES, node("tainted", taints=[{"key": "gpu", "effect": "NoSchedule", "value": "yes"}]))

    await cluster.create(DAEMON_SETS, daemon_set())

    await cluster.until_status(DAEMON_SETS, "agent", desiredNumberScheduled=1, numberReady=1)
    await cluster.until_count(PODS, 1)


async def test_a_rolling_update_replaces_the_pods_and_keeps_history(cluster: Cluster) -> None:
    await cluster.create(NODES, node("n2"))
    await cluster.create(DAEMON_SETS, daemon_set())
    await cluster.until_status(DAEMON_SETS, "agent", numberReady=2, numberAvailable=2)

    await cluster.patch(DAEMON_SETS, "agent", {"spec": {"template": template({"app": "agent"}, "agent:2")}})

    await cluster.until_status(DAEMON_SETS, "agent", updatedNumberScheduled=2, numberAvailable=2, observedGeneration=2)
    pods = await cluster.until_count(PODS, 2)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"agent:2"}
    revisions = await cluster.list(CONTROLLER_REVISIONS)
    assert sorted(revision["revision"] for revision in revisions) == [1, 2]


async def test_surge_starts_the_new_pod_first(cluster: Cluster) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    await cluster.create(DAEMON_SETS, daemon_set(updateStrategy=rolling))
    [before] = await cluster.until_count(PODS, 1)
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=1)
    cluster.kubelet.unready_images.add("agent:2")

    await cluster.patch(DAEMON_SETS, "agent", {"spec": {"template": template({"app": "agent"}, "agent:2")}})

    both = await cluster.until_count(PODS, 2)
    assert name_of(before) in {name_of(pod) for pod in both}
    new = next(pod for pod in both if name_of(pod) != name_of(before))
    await cluster.kubelet.report(new)
    [after] = await cluster.until_count(PODS, 1)
    assert name_of(after) == name_of(new)


async def test_of_two_revisions_of_one_template_the_later_stays_and_no_pod_is_restarted(cluster: Cluster) -> None:
    await cluster.create(DAEMON_SETS, daemon_set())
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=1)
    [first] = await cluster.list(CONTROLLER_REVISIONS)
    [before] = await cluster.list(PODS)
    hash_label = "controller-revision-hash"
    labels = {name: value for name, value in labels_of(first).items() if name != hash_label}
    owner = {"ownerReferences": first["metadata"]["ownerReferences"]}
    await cluster.create(
        CONTROLLER_REVISIONS,
        {**first, "metadata": {"name": "by-hand", "namespace": "default", "labels": labels, **owner}, "revision": 5},
    )

    await cluster.patch(DAEMON_SETS, "agent", {"spec": {"minReadySeconds": 1}})

    [left] = await cluster.until_count(CONTROLLER_REVISIONS, 1)
    assert (name_of(left), labels_of(left)[hash_label]) == ("by-hand", "by-hand")
    await cluster.until_status(DAEMON_SETS, "agent", updatedNumberScheduled=1, numberAvailable=1, observedGeneration=2)
    [after] = await cluster.list(PODS)
    assert (name_of(after), labels_of(after)[hash_label]) == (name_of(before), "by-hand")


async def test_revisions_in_use_count_among_those_that_are_kept(cluster: Cluster) -> None:
    on_delete = {"updateStrategy": {"type": "OnDelete"}, "revisionHistoryLimit": 1}
    await cluster.create(DAEMON_SETS, daemon_set(**on_delete))
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=1)

    for generation, image in enumerate(("agent:2", "agent:3"), 2):
        await cluster.patch(DAEMON_SETS, "agent", {"spec": {"template": template({"app": "agent"}, image)}})
        await cluster.until_status(DAEMON_SETS, "agent", observedGeneration=generation)

    # The first is that of the pod, the third that of the template; of the second there is nothing.
    left = await cluster.until_count(CONTROLLER_REVISIONS, 2)
    assert sorted(revision["revision"] for revision in left) == [1, 3]


async def test_a_rollback_leaves_the_pods_alone_that_were_not_replaced_yet(cluster: Cluster) -> None:
    await cluster.create(NODES, node("n2"))
    await cluster.create(DAEMON_SETS, daemon_set())
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=2)
    before = {name_of(pod) for pod in await cluster.list(PODS)}
    cluster.kubelet.unready_images.add("agent:broken")
    await cluster.patch(DAEMON_SETS, "agent", {"spec": {"template": template({"app": "agent"}, "agent:broken")}})
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=1, updatedNumberScheduled=1, observedGeneration=2)
    [kept] = before & {name_of(pod) for pod in await cluster.list(PODS)}

    await cluster.patch(DAEMON_SETS, "agent", {"spec": {"template": template({"app": "agent"}, "agent:1")}})

    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=2, updatedNumberScheduled=2, observedGeneration=3)
    assert kept in {name_of(pod) for pod in await cluster.list(PODS)}
    assert sorted(revision["revision"] for revision in await cluster.list(CONTROLLER_REVISIONS)) == [2, 3]


_SURGE = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
_HELD = {"metadata": {"finalizers": ["example.com/held"]}}


async def test_an_old_pod_that_is_not_ready_goes_though_the_new_one_is_not_available(cluster: Cluster) -> None:
    await cluster.create(DAEMON_SETS, daemon_set(updateStrategy=_SURGE))
    [before] = await cluster.until_count(PODS, 1)
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=1)
    cluster.kubelet.unready_images.add("agent:2")
    await cluster.patch(DAEMON_SETS, "agent", {"spec": {"template": template({"app": "agent"}, "agent:2")}})
    both = await cluster.until_count(PODS, 2)

    await cluster.kubelet.report(before, ready=False)

    [after] = await cluster.until_count(PODS, 1)
    assert name_of(after) in {name_of(pod) for pod in both} - {name_of(before)}
    await cluster.until_status(DAEMON_SETS, "agent", updatedNumberScheduled=1, numberReady=0)


async def test_with_surge_the_next_pod_does_not_wait_for_the_end_of_one_that_is_deleted(cluster: Cluster) -> None:
    await cluster.create(DAEMON_SETS, daemon_set(updateStrategy=_SURGE))
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=1)
    [first] = await cluster.list(PODS)
    await cluster.patch(PODS, name_of(first), _HELD)

    await cluster.client.delete(PODS, name_of(first), "default")

    await cluster.until_count(PODS, 2)
    await cluster.patch(PODS, name_of(first), {"metadata": {"finalizers": None}})


async def test_a_pod_that_has_ended_and_is_held_does_not_hold_up_the_next(cluster: Cluster) -> None:
    await cluster.create(DAEMON_SETS, daemon_set())
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=1)
    [first] = await cluster.list(PODS)
    held = await cluster.patch(PODS, name_of(first), _HELD)

    await cluster.kubelet.report(held, 1)

    both = await cluster.until_count(PODS, 2)
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=1)
    assert uid_of(first) in {uid_of(pod) for pod in both}
    await cluster.patch(PODS, name_of(first), {"metadata": {"finalizers": None}})


async def test_a_pod_that_fails_where_it_may_only_stay_is_deleted_and_not_made_anew(cluster: Cluster) -> None:
    await cluster.create(DAEMON_SETS, daemon_set())
    await cluster.until_status(DAEMON_SETS, "agent", numberAvailable=1)
    taint = {"key": "gpu", "effect": "NoSchedule", "value": "yes"}
    await cluster.patch(NODES, "n1", {"spec": {"taints": [taint]}})
    await cluster.until_status(DAEMON_SETS, "agent", desiredNumberScheduled=0, numberMisscheduled=1)
    [pod] = await cluster.list(PODS)

    await cluster.kubelet.report(pod, 1)

    await cluster.until_count(PODS, 0)
    await cluster.until_status(DAEMON_SETS, "agent", desiredNumberScheduled=0, numberMisscheduled=0)
