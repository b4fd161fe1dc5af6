"""Taint eviction: who has to leave a node, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.client.resources import NODES, PODS
from navarch.controllers.nodes.eviction import eviction_time
from tests.controllers.conftest import Cluster, running

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
TAINT = {"key": "maintenance", "effect": "NoExecute", "timeAdded": format_time(NOW - timedelta(seconds=30))}


def pod(name: str, *tolerations: Obj, age_s: int = 3600) -> Obj:
    created = format_time(NOW - timedelta(seconds=age_s))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": created},
        "spec": {"containers": [{"name": "main", "image": "x"}], "tolerations": list(tolerations)},
    }


def toleration(seconds: int | None = None, **rest: Any) -> Obj:
    return {"key": "maintenance", "operator": "Exists", **rest} | (
        {} if seconds is None else {"tolerationSeconds": seconds, "effect": "NoExecute"}
    )


@pytest.mark.parametrize(
    ("tolerations", "age_s", "due"),
    [
        ([], 3600, timedelta()),
        ([toleration()], 3600, None),
        ([toleration(60)], 3600, timedelta(seconds=30)),
        ([toleration(60)], 10, timedelta(seconds=50)),
        ([toleration(60), toleration(40)], 3600, timedelta(seconds=10)),
        ([toleration(-5)], 3600, timedelta(seconds=-30)),
        ([toleration(60, key="other")], 3600, timedelta()),
    ],
    ids=["none", "forever", "since the taint", "since the pod", "the shortest", "negative is zero", "another taint"],
)
def test_when_a_pod_has_to_go(tolerations: list[Obj], age_s: int, due: timedelta | None) -> None:
    found = eviction_time(pod("p", *tolerations, age_s=age_s), {"spec": {"taints": [TAINT]}}, NOW, {})

    assert found == (None if due is None else NOW + due)


def test_a_taint_that_only_keeps_new_pods_away_evicts_nobody() -> None:
    assert eviction_time(pod("p"), {"spec": {"taints": [{**TAINT, "effect": "NoSchedule"}]}}, NOW, {}) is None


def test_a_taint_without_a_time_counts_from_when_it_was_first_seen() -> None:
    taint = {"key": "maintenance", "effect": "NoExecute"}
    seen = {("maintenance", "", "NoExecute"): NOW - timedelta(seconds=15)}

    due = eviction_time(pod("p", toleration(60)), {"spec": {"taints": [taint]}}, NOW, seen)

    assert due == NOW + timedelta(seconds=45)


async def test_pods_leave_a_tainted_node_but_for_those_that_tolerate_it(cluster: Cluster) -> None:
    for made in (pod("leaves"), pod("waits", toleration(1)), pod("stays", toleration())):
        await cluster.create(PODS, made)
    for name in ("leaves", "waits", "stays"):
        await cluster.until_status(PODS, name, phase="Running")

    taint = {"key": "maintenance", "effect": "NoExecute"}
    await cluster.patch(NODES, "n1", {"spec": {"taints": [taint]}})

    (left,) = await cluster.until_count(PODS, 1)
    assert left["metadata"]["name"] == "stays"

    async def told() -> bool:
        return ("TaintManagerEviction", "Marking for deletion Pod default/waits") in await cluster.events("waits")

    await cluster.until(told)


async def test_an_evicted_pod_says_why_it_goes() -> None:
    async with running(kubelet=False) as cluster:
        doomed = pod("p")
        doomed["spec"]["nodeName"] = "n1"
        await cluster.create(PODS, doomed)

        await cluster.patch(NODES, "n1", {"spec": {"taints": [{"key": "maintenance", "effect": "NoExecute"}]}})

        async def target() -> Obj | None:
            conditions = ((await cluster.get(PODS, "p")).get("status") or {}).get("conditions") or []
            return next((c for c in conditions if c["type"] == "DisruptionTarget"), None)

        told = await cluster.until(target)
        assert (told["reason"], told["message"]) == (
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
        )
