"""Informers: a live copy of one resource's objects, kept by list and watch, with indexes and change callbacks.

Objects in an informer are shared by all who read them and must not be mutated: copy the path that you change.
Invariant: callbacks run in revision order per object, after the copy already shows the change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, key_of, revision_of
from navarch.client.base import Client, WatchEvent
from navarch.client.resources import PODS
from navarch.client.sharing import AlikePods, without_managed_fields
from navarch.client.supervision import Failures
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

Indexer = Callable[[Obj], Iterable[str]]
Added = Callable[[Obj], None]
Updated = Callable[[Obj, Obj], None]
Deleted = Callable[[Obj], None]

_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 10.0


class Informer:
    """List and watch of one resource (optionally of one namespace or selection); run it with `run`."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        indexers: Mapping[str, Indexer] | None = None,
        transform: Callable[[Obj], Obj] | None = None,
        world: World | None = None,
    ) -> None:
        self.resource = resource
        self._client = client
        self._namespace = namespace
        self._labels = labels
        self._fields = fields
        self._transform = transform
        self._objects: dict[Key, Obj] = {}
        self._by_namespace: dict[str, dict[Key, Obj]] = {}
        self._indexers: dict[str, Indexer] = dict(indexers or {})
        self._indexes: dict[str, dict[str, dict[Key, Obj]]] = {name: {} for name in self._indexers}
        self._handlers: list[tuple[Added | None, Updated | None, Deleted | None]] = []
        self._synced = asyncio.Event()
        self._revision = ""
        self._failures = Failures()
        self._random = (world or RealWorld()).random(
            "informer", f"{resource.group_resource}\0{namespace}\0{labels}\0{fields}"
        )

    # Reading.

    def get(self, namespace: str, name: str) -> Obj | None:
        return self._objects.get(Key(namespace, name))

    def by_index(self, index: str, value: str) -> list[Obj]:
        return list(self._indexes[index].get(value, {}).values())

    def list(self, namespace: str | None = None) -> list[Obj]:
        """All objects, or those of one namespace."""
        if namespace is None:
            return list(self._objects.values())
        return list(self._by_namespace.get(namespace, {}).values())

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def has_synced(self) -> bool:
        return self._synced.is_set()

    async def synced(self) -> None:
        """Wait until the first list has been taken over."""
        await self._synced.wait()

    # Setting up.

    def add_indexer(self, name: str, indexer: Indexer) -> None:
        """Add an index, filled at once from what is there; adding the same name again changes nothing."""
        if name in self._indexers:
            return
        self._indexers[name] = indexer
        self._indexes[name] = {}
        for key, obj in self._objects.items():
            for value in indexer(obj):
                self._indexes[name].setdefault(value, {})[key] = obj

    def add_handler(
        self, added: Added | None = None, updated: Updated | None = None, deleted: Deleted | None = None
    ) -> None:
        """Call back on changes; objects already there are reported as added at once."""
        self._handlers.append((added, updated, deleted))
        if added is not None:
            for obj in list(self._objects.values()):
                added(obj)

    # Running.

    async def run(self) -> None:
        """List, then watch, for ever; resumes after any failure with back-off, from where it was if possible."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                if not self._revision:
                    await self._relist()
                await self._follow()
                retry_s = _FIRST_RETRY_S
            except StatusError as error:
                if error.code == 410:
                    self._revision = ""
                    continue
                log.warning("%s: %s", self.resource.group_resource, error)
                if error.code not in (403, 429, 503, 504):
                    self._revision = ""
                await asyncio.sleep(retry_s * (1 + self._random.random()))
                retry_s = min(retry_s * 2, _LAST_RETRY_S)
            except OSError as error:
                log.debug("%s: %s", self.resource.group_resource, error)
                await asyncio.sleep(retry_s * (1 + self._random.random()))
                # The server is expected back soon after a restart, so the delay stays short.
                retry_s = min(retry_s * 2, 1.0)
            except Exception as error:
                # Everybody in the process depends on it; what it has may be wrong, so it begins anew.
                self._failures.note(f"informer {self.resource.group_resource}", error)
                self._revision = ""
                await asyncio.sleep(retry_s * (1 + self._random.random()))
                retry_s = min(retry_s * 2, _LAST_RETRY_S)

    async def _relist(self) -> None:
        listed = await self._client.list(
            self.resource, self._namespace, labels=self._labels, fields=self._fields, resource_version="0"
        )
        fresh = {key_of(obj): obj for obj in listed.items}
        for key in [key for key in self._objects if key not in fresh]:
            self._remove(key, self._objects[key])
        for obj in fresh.values():
            self._store(obj)
        self._revision = listed.resource_version
        self._synced.set()

    async def _follow(self) -> None:
        events = self._client.watch(
            self.resource,
            self._namespace,
            labels=self._labels,
            fields=self._fields,
            resource_version=self._revision,
            bookmarks=True,
        )
        async with aclosing(events) as stream:
            async for event in stream:
                self._take(event)

    def _take(self, event: WatchEvent) -> None:
        obj = event.object
        self._revision = obj["metadata"]["resourceVersion"]
        if event.type == "BOOKMARK":
            return
        if event.type == "DELETED":
            self._remove(key_of(obj), obj)
        else:
            self._store(obj)

    def _store(self, obj: Obj) -> None:
        if self._transform is not None:
            obj = self._transform(obj)
        key = key_of(obj)
        old = self._objects.get(key)
        if old is not None and revision_of(old) == revision_of(obj):
            return
        self._objects[key] = obj
        self._by_namespace.setdefault(key.namespace, {})[key] = obj
        self._reindex(key, old, obj)
        for added, updated, _ in self._handlers:
            try:
                if old is None:
                    if added is not None:
                        added(obj)
                elif updated is not None:
                    updated(old, obj)
            except Exception:
                self._log_defect(key)

    def _remove(self, key: Key, last: Obj) -> None:
        old = self._objects.pop(key, None)
        if old is None:
            return
        siblings = self._by_namespace[key.namespace]
        del siblings[key]
        if not siblings:
            del self._by_namespace[key.namespace]
        self._reindex(key, old, None)
        for _, _, deleted in self._handlers:
            try:
                if deleted is not None:
                    deleted(last)
            except Exception:
                self._log_defect(key)

    def _log_defect(self, key: Key) -> None:
        # One callback's defect must not end the informer, on which everybody else in the process depends.
        log.exception("a callback failed on %s %s", self.resource.group_resource, key)

    def _reindex(self, key: Key, old: Obj | None, new: Obj | None) -> None:
        for name, indexer in self._indexers.items():
            index = self._indexes[name]
            before = list(indexer(old)) if old is not None else []
            after = list(indexer(new)) if new is not None else []
            for value in before:
                if value not in after:
                    bucket = index[value]
                    bucket.pop(key, None)
                    if not bucket:
                        del index[value]
            if new is not None:
                for value in after:
                    index.setdefault(value, {})[key] = new


class Informers:
    """Shared informers by resource and selection; those asked for after `run` has begun are started at once. What they
    hold is without managedFields, and pods of one template share what is equal (`client/sharing.py`)."""

    def __init__(self, client: Client, world: World | None = None) -> None:
        self.client = client
        self._world = world or RealWorld()
        self._informers: dict[tuple[Resource, str, str, str], Informer] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def get(self, resource: Resource, *, namespace: str = "", labels: str = "", fields: str = "") -> Informer:
        identity = (resource, namespace, labels, fields)
        informer = self._informers.get(identity)
        if informer is None:
            informer = Informer(
                self.client,
                resource,
                namespace=namespace,
                labels=labels,
                fields=fields,
                # Of nothing else are there so many that are so much alike.
                transform=AlikePods() if resource == PODS else without_managed_fields,
                world=self._world,
            )
            self._informers[identity] = informer
            if self._tasks is not None:
                self._tasks.create_task(informer.run(), name=f"informer {resource.group_resource}")
        return informer

    async def synced(self) -> None:
        """Wait for the first list of every informer asked for so far."""
        for informer in list(self._informers.values()):
            await informer.synced()

    async def run(self) -> None:
        """Run all informers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for informer in self._informers.values():
                tasks.create_task(informer.run(), name=f"informer {informer.resource.group_resource}")
            try:
                await asyncio.Event().wait()
            finally:
                self._tasks = None
