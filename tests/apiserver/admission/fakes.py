"""A cluster in a dictionary: what admission plugins read and write, without an API server around it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from navarch.api.errors import conflict, not_found
from navarch.api.meta import Obj, Resource
from navarch.apiserver.admission.base import Attributes
from navarch.apiserver.admission.chain import AdmissionConfig, Chain, default_chain
from navarch.apiserver.user import LOOPBACK, User
from navarch.kinds import resources as r
from navarch.kinds.registry import builtin
from navarch.world import RealWorld

KINDS = builtin()


class FakeCluster:
    """`Reader` and `Writer` over a dictionary, and the order in which the API server asks a chain."""

    def __init__(self, chain: Chain | None = None, **config: Any) -> None:
        self.objects: dict[tuple[Resource, str, str], Obj] = {}
        self.revision = 0
        self.chain = chain or default_chain(self, self, AdmissionConfig(**config), RealWorld(1))
        self.warnings: list[str] = []
        self.put(r.NAMESPACES, {"metadata": {"name": "default"}, "status": {"phase": "Active"}})
        self.put(r.SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})

    # Reader

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        return copy.deepcopy(self.objects.get((resource, namespace, name)))

    def list(self, resource: Resource, namespace: str = "") -> Iterable[Obj]:
        return [
            copy.deepcopy(obj)
            for (kind, where, _), obj in sorted(self.objects.items(), key=lambda item: item[0][1:])
            if kind == resource and namespace in ("", where)
        ]

    # Writer

    async def update(self, resource: Resource, obj: Obj, subresource: str = "") -> Obj:
        key = (resource, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if key not in self.objects:
            raise not_found(resource.plural, resource.group, key[2])
        if obj["metadata"].get("resourceVersion") != self.objects[key]["metadata"]["resourceVersion"]:
            raise conflict(resource.plural, resource.group, key[2])
        return self.put(resource, obj)

    def put(self, resource: Resource, obj: Obj) -> Obj:
        self.revision += 1
        stored = copy.deepcopy(obj)
        stored["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[resource, stored["metadata"].get("namespace", ""), stored["metadata"]["name"]] = stored
        return copy.deepcopy(stored)

    # What the API server does

    async def create(self, resource: Resource, obj: Obj, *, user: User = LOOPBACK, dry_run: bool = False) -> Obj:
        """Defaults, admission, validation, store; raises what refuses."""
        return await self._write(resource, copy.deepcopy(obj), None, user, dry_run, "")

    async def update_as(self, resource: Resource, obj: Obj, *, user: User = LOOPBACK, subresource: str = "") -> Obj:
        metadata = obj["metadata"]
        old = self.get(resource, metadata.get("namespace", ""), metadata["name"])
        assert old is not None
        return await self._write(resource, copy.deepcopy(obj), old, user, False, subresource)

    async def delete(self, resource: Resource, name: str, namespace: str = "", *, user: User = LOOPBACK) -> None:
        old = self.get(resource, namespace, name)
        attributes = self._attributes(resource, "DELETE", None, old, user, False, "", namespace, name)
        await self.chain.mutate(attributes)
        await self.chain.validate(attributes)
        del self.objects[resource, namespace, name]
        await self.chain.committed(attributes, old or {})

    async def _write(
        self, resource: Resource, obj: Obj, old: Obj | None, user: User, dry_run: bool, subresource: str
    ) -> Obj:
        kind = KINDS.by_path(resource.group, resource.version, resource.plural)
        assert kind is not None
        if resource.namespaced:
            obj["metadata"].setdefault("namespace", "default")
        kind.strategy.defaults(obj)
        if old is None:
            kind.strategy.prepare_create(obj)
        elif not subresource:
            kind.strategy.prepare_update(obj, old)
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        operation = "CREATE" if old is None else "UPDATE"
        attributes = self._attributes(resource, operation, obj, old, user, dry_run, subresource, namespace, name)
        try:
            await self.chain.mutate(attributes)
            kind.strategy.defaults(obj)
            if not subresource:
                assert [str(error) for error in kind.strategy.validate(obj, old)] == []
            await self.chain.validate(attributes)
        except BaseException:
            await self.chain.rolled_back(attributes)
            raise
        if dry_run:
            return obj
        stored = self.put(resource, obj)
        await self.chain.committed(attributes, stored)
        return stored

    def _attributes(
        self,
        resource: Resource,
        operation: str,
        obj: Obj | None,
        old: Obj | None,
        user: User,
        dry_run: bool,
        subresource: str,
        namespace: str,
        name: str,
    ) -> Attributes:
        kind = KINDS.by_path(resource.group, resource.version, resource.plural)
        assert kind is not None
        return Attributes(kind, operation, namespace, name, subresource, obj, old, user, dry_run, {}, self.warnings)


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
