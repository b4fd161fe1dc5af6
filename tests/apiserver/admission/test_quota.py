"""Quotas: what is refused, what is counted, and that the two agree."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.kinds import resources as r
from tests.apiserver.admission.cluster import Cluster, asking, pod, service


async def cluster_with(hard: Obj, **spec: Any) -> Cluster:
    cluster = Cluster()
    quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard, **spec}}
    await cluster.create(r.RESOURCE_QUOTAS, quota)
    return cluster


def used(cluster: Cluster) -> Obj:
    quota = cluster.get(r.RESOURCE_QUOTAS, "default", "q")
    assert quota is not None
    found: Obj = quota["status"]["used"]
    return found


async def test_the_third_pod_of_two_is_refused() -> None:
    cluster = await cluster_with({"pods": "2"})
    await cluster.create(r.PODS, pod("a"))
    await cluster.create(r.PODS, pod("b"))
    with pytest.raises(StatusError) as refused:
        await cluster.create(r.PODS, pod("c"))
    assert refused.value.code == 403
    assert refused.value.message == (
        'pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
    )


async def test_a_new_quota_counts_what_is_there() -> None:
    cluster = Cluster()
    await cluster.create(r.PODS, pod("a", containers=[asking({"cpu": "250m"})]))
    quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "5", "requests.cpu": "1"}}}
    await cluster.create(r.RESOURCE_QUOTAS, quota)
    assert used(cluster) == {"pods": "1", "requests.cpu": "250m"}


async def test_requests_and_limits_add_up() -> None:
    cluster = await cluster_with({"requests.cpu": "1", "limits.memory": "2Gi"})
    await cluster.create(r.PODS, pod("a", containers=[asking({"cpu": "600m"}, {"memory": "1Gi"})]))
    assert used(cluster) == {"requests.cpu": "600m", "limits.memory": "1Gi"}
    with pytest.raises(StatusError) as refused:
        await cluster.create(r.PODS, pod("b", containers=[asking({"cpu": "500m"}, {"memory": "512Mi"})]))
    assert refused.value.message.endswith(
        "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    )


async def test_containers_must_say_what_the_quota_counts() -> None:
    cluster = await cluster_with({"requests.cpu": "1", "limits.cpu": "2"})
    with pytest.raises(StatusError) as refused:
        await cluster.create(r.PODS, pod())
    assert refused.value.message == (
        'pods "web" is forbidden: failed quota: q: must specify limits.cpu for: c; requests.cpu for: c'
    )


async def test_a_deleted_pod_makes_room() -> None:
    cluster = await cluster_with({"pods": "1"})
    await cluster.create(r.PODS, pod("a"))
    await cluster.delete(r.PODS, "a", "default")
    assert used(cluster) == {"pods": "0"}
    await cluster.create(r.PODS, pod("b"))


async def test_a_pod_that_ended_makes_room() -> None:
    cluster = await cluster_with({"pods": "1", "count/pods": "5"})
    stored = await cluster.create(r.PODS, pod("a"))
    stored["status"]["phase"] = "Succeeded"
    await cluster.update_as(r.PODS, stored, subresource="status")
    assert used(cluster) == {"pods": "0", "count/pods": "1"}


async def test_a_dry_run_is_checked_and_not_counted() -> None:
    cluster = await cluster_with({"pods": "1"})
    await cluster.create(r.PODS, pod("a"), dry_run=True)
    assert used(cluster) == {"pods": "0"}
    await cluster.create(r.PODS, pod("a"))
    with pytest.raises(StatusError, match="exceeded quota"):
        await cluster.create(r.PODS, pod("b"), dry_run=True)


async def test_many_at_once_never_pass_the_limit() -> None:
    cluster = await cluster_with({"pods": "5"})
    outcomes = await asyncio.gather(*(cluster.create(r.PODS, pod(f"p{n}")) for n in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 5
    assert used(cluster) == {"pods": "5"}


async def test_another_server_counting_meanwhile_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = await cluster_with({"pods": "1"})
    writer = cluster.server.writer
    update, stolen = writer.update, False

    async def racing(resource: Any, obj: Obj, subresource: str = "", manager: str = "") -> Obj:
        nonlocal stolen
        if not stolen:
            stolen = True
            quota = cluster.get(r.RESOURCE_QUOTAS, "default", "q")
            assert quota is not None
            quota["status"]["used"] = {"pods": "1"}
            await cluster.put(r.RESOURCE_QUOTAS, quota)
        return await update(resource, obj, subresource, manager)

    monkeypatch.setattr(writer, "update", racing)
    with pytest.raises(StatusError, match="exceeded quota"):
        await cluster.create(r.PODS, pod())


async def test_a_write_that_fails_later_is_not_counted() -> None:
    cluster = await cluster_with({"services": "3"})
    await cluster.create(r.SERVICES, service("a", clusterIP="10.43.0.9"))
    with pytest.raises(StatusError):
        await cluster.create(r.SERVICES, service("b", clusterIP="10.43.0.9"))
    assert used(cluster) == {"services": "1"}


async def test_any_kind_is_counted_by_name() -> None:
    cluster = await cluster_with({"count/configmaps": "1", "configmaps": "1", "services.nodeports": "1"})
    config_map = {"metadata": {"name": "a", "namespace": "default"}}
    await cluster.create(r.CONFIG_MAPS, config_map)
    with pytest.raises(StatusError, match="exceeded quota: q, requested: configmaps=1,count/configmaps=1"):
        await cluster.create(r.CONFIG_MAPS, {"metadata": {"name": "b", "namespace": "default"}})
    await cluster.create(r.SERVICES, service("a", type="NodePort"))
    with pytest.raises(StatusError, match=r"requested: services\.nodeports=1"):
        await cluster.create(r.SERVICES, service("b", type="NodePort"))


async def test_scopes_choose_pods() -> None:
    cluster = await cluster_with({"pods": "0"}, scopes=["BestEffort"])
    await cluster.create(r.PODS, pod("a", containers=[asking({"cpu": "1m"})]))
    with pytest.raises(StatusError, match="exceeded quota"):
        await cluster.create(r.PODS, pod("b"))


async def test_a_priority_scope_chooses_by_class() -> None:
    term = {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}
    cluster = await cluster_with({"pods": "0"}, scopeSelector={"matchExpressions": [term]})
    await cluster.create(r.PODS, pod("a"))
    with pytest.raises(StatusError, match="exceeded quota"):
        await cluster.create(r.PODS, pod("b", priorityClassName="system-node-critical"))
