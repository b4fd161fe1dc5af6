"""Endpoints and EndpointSlices against a real API server, and the plan of slice writes on its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.meta import Obj
from navarch.client.resources import DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, NODES, SERVICES
from navarch.controllers.endpoints.reconciliation import Wanted, endpoint_identity, plan
from tests.controllers.conftest import Cluster
from tests.controllers.objects import deployment, service


async def test_ready_pods_are_endpoints(cluster: Cluster) -> None:
    await cluster.create(SERVICES, service("web", {"app": "web"}))
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=3))

    async def three() -> Any:
        slices = await cluster.list(ENDPOINT_SLICES, labels="kubernetes.io/service-name=web")
        ready = [e for s in slices for e in s.get("endpoints") or () if e["conditions"]["ready"]]
        return slices if len(ready) == 3 else None

    [made] = await cluster.until(three)
    assert made["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    assert made["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io"

    async def legacy() -> Any:
        endpoints = await cluster.get(ENDPOINTS, "web")
        subsets = endpoints.get("subsets") or []
        return subsets and len(subsets[0].get("addresses") or ()) == 3

    await cluster.until(legacy)


async def test_a_service_without_pods_has_one_empty_slice(cluster: Cluster) -> None:
    await cluster.create(SERVICES, service("web", {"app": "web"}))

    [made] = await cluster.until_count(ENDPOINT_SLICES, 1)

    assert not made.get("endpoints")


async def test_hand_made_endpoints_are_mirrored(cluster: Cluster) -> None:
    await cluster.create(SERVICES, service("db"))
    subsets = [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 5432, "protocol": "TCP"}]}]
    metadata = {"name": "db", "namespace": "default"}
    await cluster.create(ENDPOINTS, {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets})

    [made] = await cluster.until_count(ENDPOINT_SLICES, 1)

    assert made["endpoints"][0]["addresses"] == ["192.0.2.7"]
    manager = made["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"]
    assert manager == "endpointslicemirroring-controller.k8s.io"


async def test_deleting_the_service_takes_its_endpoints_along(cluster: Cluster) -> None:
    await cluster.create(SERVICES, service("web", {"app": "web"}))
    await cluster.until_count(ENDPOINT_SLICES, 1)
    await cluster.until_count(ENDPOINTS, 1)

    await cluster.client.delete(SERVICES, "web", "default")

    await cluster.until_count(ENDPOINT_SLICES, 0)
    await cluster.until_count(ENDPOINTS, 0)


def endpoint(number: int) -> Obj:
    return {"addresses": [f"10.0.0.{number}"], "conditions": {"ready": True}, "targetRef": {"uid": f"u{number}"}}


_NEW: Obj = {"metadata": {"labels": {"a": "b"}, "namespace": "default", "generateName": "web-"}}


@given(before=st.lists(st.sets(st.integers(0, 30), max_size=6), max_size=5), after=st.sets(st.integers(0, 30)))
def test_a_plan_gives_exactly_the_wanted_endpoints(before: list[set[int]], after: set[int]) -> None:
    seen: set[int] = set()
    existing: list[Obj] = []
    for number, members in enumerate(before):
        fresh = members - seen
        seen |= fresh
        held = {"name": f"s{number}", "labels": {"a": "b"}}
        existing.append(
            {"metadata": held, "addressType": "IPv4", "ports": [], "endpoints": [endpoint(n) for n in sorted(fresh)]}
        )
    wanted = Wanted("IPv4", [], {e["targetRef"]["uid"]: e for e in map(endpoint, sorted(after))})

    changes = plan(existing, [wanted], _NEW, limit=6)

    touched = {s["metadata"]["name"] for s in [*changes.update, *changes.delete]}
    result = [s for s in existing if s["metadata"]["name"] not in touched] + changes.update + changes.create
    held_now = [endpoint_identity(e) for s in result for e in s["endpoints"]]
    assert sorted(held_now) == sorted(f"u{n}" for n in after)
    assert all(len(s["endpoints"]) <= 6 for s in result)
    assert result


@pytest.mark.parametrize(
    ("distribution", "hints"),
    [
        (None, None),
        ("PreferClose", {"forZones": [{"name": "west"}]}),
        ("PreferSameZone", {"forZones": [{"name": "west"}]}),
        ("PreferSameNode", {"forZones": [{"name": "west"}], "forNodes": [{"name": "n1"}]}),
    ],
)
async def test_hints_follow_the_traffic_distribution(
    cluster: Cluster, distribution: str | None, hints: dict[str, object] | None
) -> None:
    await cluster.patch(NODES, "n1", {"metadata": {"labels": {"topology.kubernetes.io/zone": "west"}}})
    spec = {"trafficDistribution": distribution} if distribution else {}
    await cluster.create(SERVICES, service("web", {"app": "web"}, **spec))
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=1))

    async def endpoint() -> Obj | None:
        slices = await cluster.list(ENDPOINT_SLICES)
        listed = [each for held in slices for each in held.get("endpoints") or ()]
        return next((each for each in listed if each["conditions"]["ready"]), None)

    found = await cluster.until(endpoint)
    assert found["zone"] == "west"
    assert found.get("hints") == hints
