"""An API server with the default chain over a memory store: what admission does, as those who write meet it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.apiserver.admission.chain import AdmissionConfig, Chain, default_chain
from navarch.apiserver.allocation.services import AllocationConfig
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK, User
from navarch.apiserver.writes import How, Origin
from navarch.client.base import Client
from navarch.client.local import LocalTransport
from navarch.kinds import resources as r
from navarch.store.base import Delete, Put
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld

RUNNING: list[Cluster] = []


class Cluster:
    """Started at its first use; the fixture `stop_clusters` stops it."""

    def __init__(
        self,
        chain: Chain | None = None,
        *,
        disabled: frozenset[str] = frozenset(),
        config: AdmissionConfig | None = None,
        beside: Cluster | None = None,
        **allocation: Any,
    ) -> None:
        """`beside`: over the store of another, as a second API server of the same cluster."""
        world = RealWorld(1 if beside is None else 2)
        self.server = ApiServer(MemoryStore() if beside is None else beside.server.store, world=world)
        self._beside = beside
        reader, writer = self.server.reader, self.server.writer
        self.chain = chain or default_chain(reader, writer, config or AdmissionConfig(disabled), world)
        self.server.use(admission=self.chain, allocation=AllocationConfig(**allocation))
        self.warnings: list[str] = []
        self._started = False

    async def start(self) -> Cluster:
        if not self._started:
            self._started = True
            RUNNING.append(self)
            if self._beside is not None:
                await self._beside.start()
                await self.server.start()
                return self
            await self.server.start()
            await self.put(r.NAMESPACES, {"metadata": {"name": "default"}, "status": {"phase": "Active"}})
            await self.put(r.SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
        return self

    # What is stored

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        return self.server.reader.get(resource, namespace, name)

    def list(self, resource: Resource) -> Iterable[Obj]:
        return self.server.reader.list(resource)

    async def put(self, resource: Resource, obj: Obj) -> Obj:
        """Store an object past the API server, as another one might."""
        await self.start()
        caches = self.server.core.caches
        codec = caches.of(resource).codec
        metadata = obj["metadata"]
        key = codec.key(metadata.get("namespace", ""), metadata["name"])
        await caches.wait(await self.server.store.commit([Put(key, codec.encode({"spec": {}, **obj}))]))
        stored = self.get(resource, metadata.get("namespace", ""), metadata["name"])
        assert stored is not None
        return stored

    async def lose(self, resource: Resource, namespace: str, name: str) -> Obj:
        """Take an object away past the API server."""
        await self.start()
        caches = self.server.core.caches
        was = self.get(resource, namespace, name)
        assert was is not None
        key = caches.of(resource).codec.key(namespace, name)
        await caches.wait(await self.server.store.commit([Delete(key)]))
        return was

    # Writes

    def _origin(self, user: User, dry_run: bool = False) -> Origin:
        return Origin(user, "test", dry_run, {}, self.warnings)

    async def create(self, resource: Resource, obj: Obj, *, user: User = LOOPBACK, dry_run: bool = False) -> Obj:
        """Raises StatusError, for types that do not fit as well."""
        await self.start()
        made = copy.deepcopy(obj)
        if resource.namespaced:
            made["metadata"].setdefault("namespace", "default")
        kind = self.server.core.kind_of(resource)
        compiled = kind.compiled
        assert compiled is not None
        assert compiled.decode(made) == []
        compiled.default(made)
        return (await self.server.objects.writing.create(kind, made, self._origin(user, dry_run))).obj()

    async def update_as(self, resource: Resource, obj: Obj, *, user: User = LOOPBACK, subresource: str = "") -> Obj:
        metadata = obj["metadata"]
        written = await self.server.objects.writing.modify(
            self.server.core.kind_of(resource),
            metadata.get("namespace", ""),
            metadata["name"],
            lambda old: copy.deepcopy(obj),
            self._origin(user),
            how=replace(How(), subresource=subresource),
        )
        return written.obj()

    async def delete(self, resource: Resource, name: str, namespace: str = "", *, user: User = LOOPBACK) -> None:
        await self.start()
        await self.client(user).delete(resource, name, namespace)

    def client(self, user: User = LOOPBACK) -> Client:
        return Client(LocalTransport(self.server.as_user(user)))


async def refusal(coroutine: Any) -> StatusError:
    """The error that a write must end with."""
    try:
        await coroutine
    except StatusError as error:
        return error
    raise AssertionError("the write was not refused")


def pod(name: str = "web", **spec: Any) -> Obj:
    spec.setdefault("containers", [{"name": "c", "image": "nginx:1"}])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def asking(requests: Obj | None = None, limits: Obj | None = None, name: str = "c") -> Obj:
    """A container with requests and limits."""
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    return {"name": name, "image": "nginx:1", "resources": resources}


def service(name: str = "web", **spec: Any) -> Obj:
    spec.setdefault("ports", [{"port": 80}])
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
