"""Endpoints and EndpointSlices against a real API server, and the plan of slice writes on its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.meta import Obj
from navarch.client.resources import DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from navarch.controllers.endpoints import topology
from navarch.controllers.endpoints.legacy import make_subsets, truncate
from navarch.controllers.endpoints.reconciliation import Wanted, endpoint_identity, plan
from tests.controllers.conftest import Cluster
from tests.controllers.conftest import node as ready_node
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


def node(name: str, zone: str, cpu: str = "2", *, ready: bool = True, **labels: str) -> Obj:
    labels = {**labels, **({topology.ZONE: zone} if zone else {})}
    status = {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    return {"metadata": {"name": name, "labels": labels}, "status": status}


def test_zones_have_the_cpus_of_their_ready_nodes() -> None:
    zones = topology.Zones()
    assert not zones.ratios()

    assert zones.put(node("a", "east", "3"))
    assert not zones.ratios(), "one zone is no choice"
    assert zones.put(node("b", "west", "500m"))
    assert zones.put(node("c", "west", "500m"))
    assert zones.ratios() == {"east": 0.75, "west": 0.25}
    assert not zones.put(node("c", "west", "500m"))
    zones.put(node("d", "west", "9", ready=False))
    zones.put(node("e", "west", "9", **{"node-role.kubernetes.io/control-plane": ""}))
    assert zones.ratios() == {"east": 0.75, "west": 0.25}
    zones.put(node("f", ""))
    assert not zones.ratios(), "a node is nobody knows where"
    zones.remove(node("f", ""))
    zones.put(node("c", "west", "1500m"))
    assert zones.ratios() == {"east": 0.6, "west": 0.4}


@pytest.mark.parametrize(
    ("have", "ratios", "shared"),
    [
        ({"a": 2, "b": 2}, {"a": 0.5, "b": 0.5}, {"a": 2, "b": 2}),
        ({"a": 4, "b": 0}, {"a": 0.5, "b": 0.5}, {"a": 2, "b": 2}),
        ({"a": 5, "b": 1}, {"a": 1 / 3, "b": 2 / 3}, {"a": 2, "b": 4}),
        # Not worth the way for less than one of them.
        ({"a": 4, "b": 3}, {"a": 0.5, "b": 0.5}, {"a": 4, "b": 3}),
        ({"a": 3, "b": 3, "c": 0}, {"a": 0.34, "b": 0.33, "c": 0.33}, {"a": 2, "b": 2, "c": 2}),
        ({"a": 1, "b": 0}, {"a": 0.5, "b": 0.5}, "Insufficient number of endpoints (1 endpoints, 2 zones)"),
        (
            {"a": 1, "b": 2, "c": 1},
            {"a": 0.34, "b": 0.33, "c": 0.33},
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold "
            "(4 endpoints, 3 zones)",
        ),
        ({"a": 1, "": 3}, {"a": 0.5, "b": 0.5}, "One or more endpoints do not have a zone specified"),
    ],
)
def test_endpoints_are_shared_out_by_the_cpus_of_zones(
    have: dict[str, int], ratios: dict[str, float], shared: dict[str, int] | str
) -> None:
    zones = {f"{zone}{at}": zone for zone, count in have.items() for at in range(count)}

    found = topology.share_out(zones, ratios)

    assert (found.why if isinstance(shared, str) else Counter(found.zones.values())) == shared
    assert found == topology.share_out(dict(reversed(zones.items())), ratios), "whoever comes first"


async def test_topology_mode_auto_gives_hints_where_they_are_fair(cluster: Cluster) -> None:
    """The cluster's pods all run on one node; the other zone is given its part of them."""
    await cluster.patch(NODES, "n1", {"metadata": {"labels": {topology.ZONE: "west"}}})
    made = service("web", {"app": "web"})
    made["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
    await cluster.create(SERVICES, made)
    await cluster.create(DEPLOYMENTS, deployment("web", replicas=4))

    async def hints() -> Counter[str]:
        listed = [each for held in await cluster.list(ENDPOINT_SLICES) for each in held.get("endpoints") or ()]
        found = (each["hints"]["forZones"][0]["name"] if "hints" in each else "" for each in listed)
        return Counter(found if len(listed) == 4 else ())

    async def told(word: str) -> None:
        message = f"Topology Aware Hints has been {word}, addressType: IPv4"

        async def recorded() -> bool:
            return message in {said for _, said in await cluster.events("web")}

        await cluster.until(recorded)

    async def without() -> bool:
        return await hints() == {"": 4}

    async def shared() -> bool:
        return await hints() == {"west": 2, "east": 2}

    await cluster.until(without)
    n2 = ready_node("n2")
    n2["metadata"]["labels"][topology.ZONE] = "east"
    await cluster.create(NODES, n2)
    await cluster.until(shared)
    await told("enabled")
    await cluster.patch(SERVICES, "web", {"metadata": {"annotations": {"service.kubernetes.io/topology-mode": "Off"}}})
    await cluster.until(without)
    await told("disabled")


async def test_a_mirrored_slice_has_the_annotations_of_its_endpoints_and_too_many_addresses_are_told(
    cluster: Cluster,
) -> None:
    await cluster.create(SERVICES, service("db"))
    addresses = [{"ip": f"192.0.{at // 250}.{at % 250 + 1}"} for at in range(1003)]
    subsets = [{"addresses": addresses, "ports": [{"port": 5432, "protocol": "TCP"}]}]
    metadata = {"name": "db", "namespace": "default", "annotations": {"a": "1"}}
    await cluster.create(ENDPOINTS, {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets})
    made = await cluster.until_count(ENDPOINT_SLICES, 10)
    assert sum(len(each["endpoints"]) for each in made) == 1000

    await cluster.patch(ENDPOINTS, "db", {"metadata": {"annotations": {"a": None, "b": "2"}}})

    async def annotated() -> bool:
        return all(each["metadata"].get("annotations") == {"b": "2"} for each in await cluster.list(ENDPOINT_SLICES))

    async def told() -> bool:
        return any("3 addresses were skipped" in message for _, message in await cluster.events("db"))

    await cluster.until(annotated)
    await cluster.until(told)


async def test_a_pod_of_a_node_that_is_not_there_is_no_endpoint_until_it_comes(cluster: Cluster) -> None:
    await cluster.create(SERVICES, service("web", {"app": "web"}))
    lost = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "lost", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": "n9", "containers": [{"name": "c", "image": "i"}]},
    }
    made = await cluster.create(PODS, lost)
    ready = [{"type": "Ready", "status": "True"}]
    status = {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}], "conditions": ready}
    await cluster.client.update(PODS, {**made, "status": status}, subresource="status")

    async def legacy() -> bool:
        return bool((await cluster.get(ENDPOINTS, "web")).get("subsets"))

    async def listed() -> bool:
        return any(held.get("endpoints") for held in await cluster.list(ENDPOINT_SLICES))

    await cluster.until(legacy)
    assert not await listed()
    await cluster.create(NODES, ready_node("n9"))
    await cluster.until(listed)


def pod_with(name: str, address: str, *ports: str, ready: bool = True) -> Obj:
    """A running pod whose container has these named ports, numbered by their names' lengths."""
    listed = [{"name": each, "containerPort": 8000 + len(each)} for each in ports]
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "ports": listed}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]},
    }


def shown(subsets: list[Obj]) -> list[tuple[list[str], list[str], list[str]]]:
    """Ports, ready and other addresses of each."""
    return [
        (
            [port["name"] for port in subset.get("ports", ())],
            [each["ip"] for each in subset.get("addresses", ())],
            [each["ip"] for each in subset.get("notReadyAddresses", ())],
        )
        for subset in subsets
    ]


def test_ports_of_the_very_same_pods_share_a_subset() -> None:
    named = [{"name": name, "port": 80, "targetPort": name} for name in ("http", "https", "stats")]
    made = service("web", ports=named)
    whole = pod_with("a", "10.0.0.1", "http", "https", "stats")

    assert shown(make_subsets(made, [whole, pod_with("b", "10.0.0.2", "http", "https", "stats", ready=False)])) == [
        (["http", "https", "stats"], ["10.0.0.1"], ["10.0.0.2"])
    ]
    # What one pod lacks has a subset of its own; what both have is not split by it.
    assert shown(make_subsets(made, [pod_with("b", "10.0.0.2", "http", "https"), whole])) == [
        (["http", "https"], ["10.0.0.1", "10.0.0.2"], []),
        (["stats"], ["10.0.0.1"], []),
    ]
    assert shown(make_subsets(made, [pod_with("b", "10.0.0.2")])) == []


def test_of_too_many_addresses_each_subset_keeps_its_share() -> None:
    made = service("web", ports=[{"name": name, "port": 80, "targetPort": name} for name in ("http", "stats")])
    pods = [pod_with(f"a{n:04}", f"10.0.{n // 250}.{n % 250}", "http") for n in range(1500)]
    pods += [pod_with(f"b{n:04}", f"10.1.{n // 250}.{n % 250}", "stats") for n in range(500)]

    subsets, truncated = truncate(make_subsets(made, [*pods, pod_with("c", "10.2.0.1", "http", ready=False)]))

    assert truncated
    assert [(len(s["addresses"]), "notReadyAddresses" in s) for s in subsets] == [(750, False), (250, False)]
    few = make_subsets(
        made, [*pods[:900], *(pod_with(f"c{n}", f"10.2.0.{n}", "http", ready=False) for n in range(200))]
    )
    subsets, truncated = truncate(few)
    assert truncated
    assert [(len(s["addresses"]), len(s["notReadyAddresses"])) for s in subsets] == [(900, 100)]
