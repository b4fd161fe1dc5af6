"""The end of a definition: its objects are deleted, their finalizers honoured, and then it goes itself.

In: a definition whose deletion has begun.  Out: the condition `Terminating`, which says how far it is, and in the end
the definition without the server's finalizer. Objects are deleted as anybody would delete them, admission included; one
whose finalizers stay keeps the definition. Who deletes a manifest with a definition and objects of it sends one
deletion after the other, and takes an object that is gone already for an error: so there is a moment before the first
is deleted.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.apiserver.changes import Change
from navarch.apiserver.core import Core
from navarch.apiserver.deleting import DeleteOptions, Deleting
from navarch.apiserver.served import ServedKind
from navarch.apiserver.user import LOOPBACK
from navarch.apiserver.watchcache import WatchCache
from navarch.apiserver.writes import Origin
from navarch.client.supervision import Failures, until_done
from navarch.kinds.apiextensions.conditions import Condition, is_said, is_true, with_conditions
from navarch.kinds.apiextensions.definition import FINALIZER
from navarch.kinds.apiextensions.resource import Definition
from navarch.kinds.resources import CUSTOM_RESOURCE_DEFINITIONS

log = logging.getLogger(__name__)

_AT_ONCE: Final = 100
# How long somebody's finalizers may keep an object before the definition says so.
PATIENCE_S: Final = 60.0
# How long the objects are left to whoever deletes them beside their definition. Kubernetes, which writes a status and
# lists the objects first, is slower than a client's next request without meaning to be.
COURTESY_S: Final = 0.25

_DELETING: Final = Condition(
    "Terminating", "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"
)
_DONE: Final = Condition("Terminating", "False", "InstanceDeletionCompleted", "removed all instances")
_NEVER: Final = Condition("Terminating", "False", "NeverEstablished", "resource was never established")


class Writer(Protocol):
    """`ServerWriter`."""

    async def update(self, resource: Resource, obj: Obj, subresource: str = "") -> Obj: ...


class Finalizing:
    """Those that are going on, by the definition's name."""

    def __init__(self, core: Core, deleting: Deleting, writer: Writer) -> None:
        self._core = core
        self._deleting = deleting
        self._writer = writer
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures = Failures()
        self.patience_s = PATIENCE_S

    def begin(self, name: str, definition: Definition | None) -> None:
        """Go on until the definition is gone; nothing where that is going on already."""
        task = self._tasks.get(name)
        if task is None or task.done():
            run = until_done(
                f"deleting the objects of {name}", lambda: self._finalize(name, definition), self._failures
            )
            self._tasks[name] = asyncio.create_task(run, name=f"finalize {name}")

    def forget(self, name: str) -> None:
        """The definition is gone."""
        task = self._tasks.pop(name, None)
        if task is not None and not task.done():
            task.cancel()

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _finalize(self, name: str, definition: Definition | None) -> None:
        crd = self._current(name)
        if crd is None:
            return
        if definition is None or not is_true(crd, "Established"):
            await self._say(name, _NEVER)
        else:
            await self._say(name, _DELETING)
            resource = definition.resource
            kinds = self._core.served.of_resource(resource.group, resource.plural)
            if kinds:
                await self._delete_all(name, next(kind for kind in kinds if kind.is_storage))
            await self._say(name, _DONE)
        await self._let_go(name)

    async def _delete_all(self, name: str, kind: ServedKind) -> None:
        await self._core.caches.sync()
        await self._emptied(kind.cache, COURTESY_S)
        while True:
            await self._core.caches.sync()
            items = kind.cache.items()
            if not items:
                return
            for start in range(0, len(items), _AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for cached in items[start : start + _AT_ONCE]:
                        group.create_task(self._delete(kind, cached.namespace, cached.name))
            told = {(cached.namespace, cached.name) for cached in items}
            if not await self._emptied(kind.cache, self.patience_s, told):
                why = "could not confirm zero CustomResources remaining: timed out waiting for the condition"
                await self._say(name, Condition("Terminating", "True", "InstanceDeletionCheck", why))

    async def _delete(self, kind: ServedKind, namespace: str, name: str) -> None:
        try:
            await self._deleting.delete(kind, namespace, name, DeleteOptions(), Origin(LOOPBACK, "kube-apiserver"))
        except StatusError as error:
            if error.code != 404:
                raise

    async def _emptied(self, cache: WatchCache, within_s: float, told: set[tuple[str, str]] | None = None) -> bool:
        """Whether the last object goes within some time, or another than was told to has come: somebody may apply
        what is not there yet."""
        changed = asyncio.Event()

        def heard(change: Change) -> None:
            if not len(cache) or (told is not None and change.old is None):
                changed.set()

        cache.listeners.append(heard)
        try:
            others = told is not None and any((each.namespace, each.name) not in told for each in cache.items())
            if not len(cache) or others:
                return True
            async with asyncio.timeout(within_s):
                await changed.wait()
            return True
        except TimeoutError:
            return False
        finally:
            cache.listeners.remove(heard)

    # The definition itself

    def _current(self, name: str) -> Obj | None:
        cached = self._core.caches.of(CUSTOM_RESOURCE_DEFINITIONS).get("", name)
        return None if cached is None else cached.obj()

    async def _say(self, name: str, condition: Condition) -> None:
        while (crd := self._current(name)) is not None and not is_said(crd, condition):
            conditions = with_conditions(crd, [condition], self._core.now_text())
            status = {**(crd.get("status") or {}), "conditions": conditions}
            if await self._written({**crd, "status": status}, "status"):
                return

    async def _let_go(self, name: str) -> None:
        while (crd := self._current(name)) is not None:
            metadata = crd["metadata"]
            finalizers = [each for each in metadata.get("finalizers") or () if each != FINALIZER]
            if finalizers == (metadata.get("finalizers") or []):
                return
            metadata["finalizers"] = finalizers
            if await self._written(crd, ""):
                return

    async def _written(self, crd: Obj, subresource: str) -> bool:
        """False where somebody was quicker: look again."""
        try:
            await self._writer.update(CUSTOM_RESOURCE_DEFINITIONS, crd, subresource)
        except StatusError as error:
            if error.code == 409:
                await self._core.caches.sync()
                return False
            if error.code != 404:
                raise
        return True
