"""What an API server writes by itself: through the pipeline that everybody's writes take, as the server itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import orjson

from navarch.api import apply as managed
from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.apiserver.codec import decode
from navarch.apiserver.deleting import DeleteOptions
from navarch.apiserver.handlers.objects import Objects
from navarch.apiserver.served import ServedKind
from navarch.apiserver.user import LOOPBACK
from navarch.apiserver.writes import How, Origin


class ServerWriter:
    """`admission.Writer`, and more."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def _kind(self, resource: Resource) -> ServedKind:
        return self._objects.core.kind_of(resource)

    async def create(self, resource: Resource, obj: Obj, manager: str = "kube-apiserver") -> Obj:
        """Raises StatusError (AlreadyExists)."""
        kind = self._kind(resource)
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        written = await self._objects.writing.create(kind, obj, Origin(LOOPBACK, manager))
        return written.obj()

    async def apply(self, resource: Resource, obj: Obj, manager: str, subresource: str = "") -> Obj:
        """Server-side apply to an object that exists, by force.  Raises StatusError."""
        kind, metadata, core = self._kind(resource), obj["metadata"], self._objects.core
        compiled = kind.compiled
        assert compiled is not None
        data = orjson.dumps({**obj, "apiVersion": resource.api_version, "kind": resource.kind})

        def applied(old: Obj) -> Obj:
            return managed.apply(
                old,
                decode(data),
                compiled.root,
                manager=manager,
                force=True,
                api_version=resource.api_version,
                subresource=subresource,
                now=core.now_text(),
            )

        written = await self._objects.writing.modify(
            kind,
            metadata.get("namespace") or "",
            metadata["name"],
            applied,
            Origin(LOOPBACK, ""),
            how=How(subresource, manage=False, patch=True),
        )
        return written.obj()

    async def update(self, resource: Resource, obj: Obj, subresource: str = "", manager: str = "kube-apiserver") -> Obj:
        """Raises StatusError (Conflict when `obj` is stale)."""
        metadata = obj["metadata"]
        kind = self._kind(resource)
        written = await self._objects.writing.modify(
            kind,
            metadata.get("namespace") or "",
            metadata["name"],
            lambda old: obj,
            Origin(LOOPBACK, manager),
            how=How(subresource),
        )
        return written.obj()

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """What is gone already is left so."""
        kind = self._kind(resource)
        try:
            await self._objects.deleting.delete(kind, namespace, name, DeleteOptions(), Origin(LOOPBACK, ""))
        except StatusError as error:
            if error.code != 404:
                raise

    async def create_all(self, objects: Iterable[tuple[Resource, Obj]], manager: str = "kube-apiserver") -> None:
        """Create at once, so that the store commits them together; those that exist are left as they are."""

        async def one(resource: Resource, obj: Obj) -> None:
            try:
                await self.create(resource, obj, manager)
            except StatusError as error:
                if error.reason != "AlreadyExists":
                    raise

        async with asyncio.TaskGroup() as group:
            for resource, obj in objects:
                group.create_task(one(resource, obj))
