"""The real API server in the test's process, with admission and authorization, as the kubelet of node n1 meets it."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj, Resource
from navarch.apiserver.admission.chain import Chain
from navarch.apiserver.admission.pod_updates import PodResizeValidator
from navarch.apiserver.user import User
from navarch.client.base import Client, PatchKind
from navarch.client.resources import (
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from navarch.client.transport import Request, Response, Transport
from navarch.testing.embedded import EmbeddedCluster

KUBELET = User("system:node:n1", ("system:nodes", "system:authenticated"))
_RESOURCES: dict[str, Resource] = {
    "configmaps": CONFIG_MAPS,
    "events": EVENTS,
    "leases": LEASES,
    "nodes": NODES,
    "pods": PODS,
    "secrets": SECRETS,
    "services": SERVICES,
}
_KINDS = {"configmaps": "ConfigMap", "secrets": "Secret", "services": "Service", "pods": "Pod"}


class _Line(Transport):
    """The way to the API server, which can be down."""

    def __init__(self, transport: Transport, api: API) -> None:
        self._transport = transport
        self._api = api

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        if self._api.down:
            raise ConnectionError("down")
        return await self._transport.send(request, stream=stream)

    async def close(self) -> None:
        """Nothing is held."""


class API:
    """`admin` may do everything; `client()` is the kubelet's. `down` makes every request of the kubelet's fail."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self._cluster = cluster
        self.admin = cluster.client
        self.down = False

    def allow_any_resize(self) -> None:
        """As API servers before 1.36, which do not look at the node."""
        core = self._cluster.server.core
        core.admission = Chain(plugin for plugin in core.admission.plugins if plugin.name != PodResizeValidator.name)

    async def prepare(self) -> None:
        """What controllers would have made."""
        roots = {"ca.crt": (self._cluster.config.pki / "ca.crt").read_text()}
        await self.put("configmaps", {"metadata": {"name": "kube-root-ca.crt", "namespace": "default"}, "data": roots})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await self.admin.create(SERVICE_ACCOUNTS, account, namespace="default")

    def client(self) -> Client:
        inner = self._cluster.client_as(KUBELET)
        return Client(_Line(inner.transport, self))

    async def put(self, plural: str, obj: Obj) -> Obj:
        """Create an object, or bring it to this."""
        resource, metadata = _RESOURCES[plural], obj["metadata"]
        body = {"apiVersion": "v1", "kind": _KINDS[plural], **obj}
        if self.get(plural, metadata.get("namespace", ""), metadata["name"]) is None:
            return await self.admin.create(resource, body, namespace=metadata.get("namespace", ""))
        return await self.admin.update(resource, body)

    async def priority_class(self, name: str, value: int) -> None:
        body = {"metadata": {"name": name}, "value": value}
        await self.admin.create(PRIORITY_CLASSES, body)

    async def patch_pod(self, name: str, patch: Obj, subresource: str = "") -> Obj:
        return await self.admin.patch(PODS, name, "default", patch, kind=PatchKind.STRATEGIC, subresource=subresource)

    async def patch_node(self, name: str, patch: Obj, subresource: str = "") -> Obj:
        return await self.admin.patch(NODES, name, "", patch, subresource=subresource)

    async def delete_gracefully(self, namespace: str, name: str, grace_s: int | None = None) -> None:
        await self.admin.delete(PODS, name, namespace, grace_s=grace_s)

    async def remove(self, namespace: str, name: str) -> None:
        """At once, without asking the kubelet."""
        await self.admin.delete(PODS, name, namespace, grace_s=0)

    def get(self, plural: str, namespace: str, name: str) -> Any:
        """The object as the server's cache has it; None where it has none."""
        cached = self._cluster.server.core.caches.of(_RESOURCES[plural]).get(namespace, name)
        return None if cached is None else cached.obj()

    def list(self, plural: str) -> list[Obj]:
        return [cached.obj() for cached in self._cluster.server.core.caches.of(_RESOURCES[plural]).items()]

    def events(self) -> list[Obj]:
        return self.list("events")
