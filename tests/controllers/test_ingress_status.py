"""The class of the embedded Ingress controller, and where Ingresses say that they are served."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj, annotations_of
from navarch.client.base import PatchKind
from navarch.client.resources import INGRESS_CLASSES, INGRESSES, NODES
from navarch.controllers.base import ControllerConfig
from navarch.kinds.networking.ingress_classes import CONTROLLER, DEFAULT_CLASS, SERVES
from tests.controllers.conftest import Cluster, node, running


def ingress(name: str, **spec: Any) -> Obj:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"defaultBackend": backend, **spec}}


async def until_at(cluster: Cluster, name: str, *addresses: str) -> None:
    async def check() -> bool:
        status = (await cluster.get(INGRESSES, name)).get("status") or {}
        return [entry["ip"] for entry in status["loadBalancer"].get("ingress") or ()] == list(addresses)

    await cluster.until(check)


async def test_the_class_is_there_and_ingresses_without_one_get_it(cluster: Cluster) -> None:
    async def made() -> Obj | None:
        return await cluster.client.find(INGRESS_CLASSES, "navarch")

    found = await cluster.until(made)

    assert found["spec"]["controller"] == CONTROLLER
    assert annotations_of(found)[DEFAULT_CLASS] == "true"
    created = await cluster.create(INGRESSES, ingress("site"))
    assert created["spec"]["ingressClassName"] == "navarch"


async def test_ingresses_say_where_nodes_serve_them_and_follow_the_nodes(cluster: Cluster) -> None:
    async def serving(name: str, address: str) -> None:
        made = node(name)
        made["metadata"]["annotations"] = {SERVES: address}
        await cluster.create(NODES, made)

    other = {"metadata": {"name": "other"}, "spec": {"controller": "example.com/other"}}
    await cluster.create(INGRESS_CLASSES, other)
    await cluster.create(INGRESSES, ingress("site", ingressClassName="navarch"))
    await cluster.create(INGRESSES, ingress("foreign", ingressClassName="other"))
    await serving("a", "192.0.2.1")
    await serving("b", "192.0.2.2,2001:db8::2")
    await until_at(cluster, "site", "192.0.2.1", "192.0.2.2", "2001:db8::2")

    async def told() -> bool:
        return any(reason == "Synced" for reason, _ in await cluster.events("site"))

    await cluster.until(told)
    patch = {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    await cluster.client.patch(NODES, "b", "", patch, kind=PatchKind.STRATEGIC, subresource="status")
    await until_at(cluster, "site", "192.0.2.1")
    await until_at(cluster, "foreign")


async def test_switched_off_there_is_no_class_and_no_address() -> None:
    async with running(ControllerConfig(ingress=False), kubelet=False) as cluster:
        made = node("a")
        made["metadata"]["annotations"] = {SERVES: "192.0.2.1"}
        await cluster.create(NODES, made)
        await cluster.create(INGRESS_CLASSES, {"metadata": {"name": "mine"}, "spec": {"controller": CONTROLLER}})
        await cluster.create(INGRESSES, ingress("site", ingressClassName="mine"))
        await cluster.manager.synced()

        assert await cluster.client.find(INGRESS_CLASSES, "navarch") is None
        await until_at(cluster, "site")
