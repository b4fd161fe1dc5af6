"""The default priority levels and flow schemas, and what each flow schema says of its level."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.client.base import PatchKind
from navarch.kinds.core.pod_state import condition_of
from navarch.kinds.resources import FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS
from navarch.testing.embedded import EmbeddedCluster


async def dangling(cluster: EmbeddedCluster, name: str, wanted: str) -> dict[str, Any]:
    """The condition, once it says so."""
    async with asyncio.timeout(20):
        while True:
            schema = await cluster.client.get(FLOW_SCHEMAS, name)
            condition = condition_of(schema, "Dangling")
            if condition is not None and condition["status"] == wanted:
                return condition
            await asyncio.sleep(0.01)


def flow_schema(name: str, level: str) -> dict[str, Any]:
    subject = {"kind": "User", "user": {"name": "jane"}}
    rule = {"subjects": [subject], "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]}
    spec = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 700, "rules": [rule]}
    return {"metadata": {"name": name}, "spec": spec}


async def test_a_cluster_begins_with_kubernetes_levels_and_schemas() -> None:
    async with EmbeddedCluster(controllers=False) as cluster:
        levels = [each["metadata"]["name"] for each in (await cluster.client.list(PRIORITY_LEVEL_CONFIGURATIONS)).items]
        schemas = (await cluster.client.list(FLOW_SCHEMAS)).items

    assert {"exempt", "catch-all", "workload-high", "global-default"} <= set(levels)
    assert {"exempt", "catch-all", "probes", "service-accounts"} <= {each["metadata"]["name"] for each in schemas}
    assert [condition_of(each, "Dangling")["status"] for each in schemas] == ["False"] * len(schemas)  # type: ignore[index]


async def test_a_schema_says_whether_its_level_is_there() -> None:
    async with EmbeddedCluster(controllers=False) as cluster:
        await cluster.client.create(FLOW_SCHEMAS, flow_schema("mine", "fast"))
        missing = await dangling(cluster, "mine", "True")
        level = {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}
        await cluster.client.create(PRIORITY_LEVEL_CONFIGURATIONS, {"metadata": {"name": "fast"}, "spec": level})
        there = await dangling(cluster, "mine", "False")

    assert missing["reason"] == "NotFound"
    assert there["reason"] == "Found"


async def test_who_took_a_suggested_object_over_keeps_it_and_a_mandatory_one_can_neither_change_nor_go() -> None:
    async with EmbeddedCluster(controllers=False) as cluster:
        client = cluster.client
        annotations = {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}
        mine = {"metadata": annotations, "spec": {"matchingPrecedence": 8500}}
        await client.patch(FLOW_SCHEMAS, "service-accounts", "", mine, kind=PatchKind.MERGE)
        with pytest.raises(StatusError, match="must equal the fixed value"):
            await client.patch(FLOW_SCHEMAS, "catch-all", "", {"spec": {"rules": []}}, kind=PatchKind.MERGE)
        for name in ("catch-all", "probes"):
            await client.delete(FLOW_SCHEMAS, name)
        await cluster.server.flow_control.ensure()

        taken_over = await client.get(FLOW_SCHEMAS, "service-accounts")
        mandatory = await client.get(FLOW_SCHEMAS, "catch-all")
        assert await client.find(FLOW_SCHEMAS, "probes") is not None

    assert taken_over["spec"]["matchingPrecedence"] == 8500
    assert mandatory["spec"]["rules"]
