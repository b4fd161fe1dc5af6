"""Services of type LoadBalancer against a real API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.client.base import PatchKind
from navarch.client.resources import NODES, SERVICES
from navarch.controllers.base import ControllerConfig
from navarch.controllers.load_balancer.sync import FINALIZER
from tests.controllers.conftest import Cluster, node, running
from tests.controllers.objects import service

_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


def node_at(name: str, address: str) -> Obj:
    made = node(name)
    made["status"]["addresses"] = [{"type": "InternalIP", "address": address}]
    return made


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running(kubelet=False) as made:
        await made.client.delete(NODES, "n1")
        for number in (1, 2):
            await made.create(NODES, node_at(f"node-{number}", f"192.0.2.{number}"))
        yield made


def balanced(name: str, port: int = 80, **spec: Any) -> Obj:
    return service(name, ports=[{"port": port}], type="LoadBalancer", **spec)


async def until_given(cluster: Cluster, name: str, *addresses: str) -> Obj:
    seen: list[str] = []

    async def check() -> Obj | None:
        nonlocal seen
        found = await cluster.get(SERVICES, name)
        seen = [entry["ip"] for entry in found["status"]["loadBalancer"].get("ingress") or ()]
        return found if seen == list(addresses) else None

    try:
        found: Obj = await cluster.until(check)
    except AssertionError:
        raise AssertionError(f"{name} has {seen}") from None
    return found


async def until_told(cluster: Cluster, name: str, reason: str, message: str = "") -> None:
    async def check() -> bool:
        return any(said == reason and message in text for said, text in await cluster.events(name))

    await cluster.until(check)


async def label(cluster: Cluster, name: str, value: str | None) -> None:
    patch = {"metadata": {"labels": {_EXCLUDED: value}}}
    await cluster.client.patch(NODES, name, "", patch, kind=PatchKind.MERGE)


async def test_a_service_gets_the_addresses_of_the_nodes_and_follows_them(cluster: Cluster) -> None:
    await cluster.create(SERVICES, balanced("web"))
    made = await until_given(cluster, "web", "192.0.2.1", "192.0.2.2")
    assert made["status"]["loadBalancer"]["ingress"][0]["ipMode"] == "VIP"
    assert made["metadata"]["finalizers"] == [FINALIZER]
    await until_told(cluster, "web", "EnsuringLoadBalancer")
    await until_told(cluster, "web", "EnsuredLoadBalancer")

    await label(cluster, "node-1", "")
    await until_given(cluster, "web", "192.0.2.2")
    await until_told(cluster, "web", "UpdatedLoadBalancer")

    await cluster.client.delete(NODES, "node-2")
    await until_given(cluster, "web")
    await until_told(cluster, "web", "UnAvailableLoadBalancer")

    await label(cluster, "node-1", None)
    await until_given(cluster, "web", "192.0.2.1")


async def test_services_of_another_class_are_left_alone(cluster: Cluster) -> None:
    await cluster.create(SERVICES, balanced("other", loadBalancerClass="example.com/cloud"))
    await cluster.create(SERVICES, balanced("web"))
    await until_given(cluster, "web", "192.0.2.1", "192.0.2.2")

    other = await until_given(cluster, "other")
    assert "finalizers" not in other["metadata"]


async def test_the_second_service_on_a_port_waits_until_the_first_is_gone(cluster: Cluster) -> None:
    await cluster.create(SERVICES, balanced("first"))
    await until_given(cluster, "first", "192.0.2.1", "192.0.2.2")
    await cluster.create(SERVICES, balanced("second"))
    await until_told(cluster, "second", "SyncLoadBalancerFailed", "port 80/TCP of 192.0.2.1 belongs to the service")
    await cluster.create(SERVICES, balanced("third", 81))
    await until_given(cluster, "third", "192.0.2.1", "192.0.2.2")
    await until_given(cluster, "second")

    await cluster.client.delete(SERVICES, "first", "default")

    await until_given(cluster, "second", "192.0.2.1", "192.0.2.2")
    await until_told(cluster, "first", "DeletedLoadBalancer")
    await cluster.until_count(SERVICES, 2)


async def test_a_service_that_becomes_another_type_gives_its_addresses_back(cluster: Cluster) -> None:
    await cluster.create(SERVICES, balanced("web"))
    await until_given(cluster, "web", "192.0.2.1", "192.0.2.2")

    await cluster.patch(SERVICES, "web", {"spec": {"type": "ClusterIP"}})

    async def given_back() -> bool:
        found = await cluster.get(SERVICES, "web")
        return not found["metadata"].get("finalizers") and not found["status"]["loadBalancer"].get("ingress")

    await cluster.until(given_back)


async def test_switched_off_it_gives_nothing_and_holds_nothing() -> None:
    async with running(ControllerConfig(load_balancer=False), kubelet=False) as cluster:
        held = balanced("held")
        held["metadata"]["finalizers"] = [FINALIZER]
        await cluster.create(SERVICES, held)
        await cluster.create(SERVICES, balanced("web"))

        await cluster.client.delete(SERVICES, "held", "default")

        await cluster.until_count(SERVICES, 1)
        await until_given(cluster, "web")
