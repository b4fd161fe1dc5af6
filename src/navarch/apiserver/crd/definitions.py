"""Serves what the stored CustomResourceDefinitions define, and says in their status what became of them.

In: the definitions in the store, at the start and as they change, whoever writes them.  Out: resources served, changed
and withdrawn (`serving`), and the definitions' status. A definition is served before its status says so: who reads that
it is established can use it here, and on other servers over the same store as soon as they have heard of it. Objects of
definitions that are being deleted are the business of `finalizing`.

Level-triggered: what is to be done for a definition follows from what is stored and what is served. One at a time, in
the order in which they changed; whatever goes wrong with one is logged and tried again later.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.changes import Change
from navarch.apiserver.codec import Codec
from navarch.apiserver.core import Core
from navarch.apiserver.crd.finalizing import Finalizing, Writer
from navarch.apiserver.serving import Serving
from navarch.client.supervision import Delay, Failures
from navarch.kinds.apiextensions.conditions import is_true
from navarch.kinds.apiextensions.definition import FINALIZER
from navarch.kinds.apiextensions.resource import ConverterOf, Definition, definition_of
from navarch.kinds.apiextensions.status import status_of
from navarch.kinds.resources import CUSTOM_RESOURCE_DEFINITIONS
from navarch.records import frozen

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.2
_RETRY_MAX_S: Final = 30.0
# Schemas that take so long to read that it is done before anybody needs them, away from the loop.
_BIG: Final = 200_000


@frozen
class _Names:
    """What of a definition others must know: the names that it has, as `status_of` looks for them."""

    group: str
    accepted: Obj

    def as_definition(self) -> Obj:
        return {"status": {"acceptedNames": self.accepted}}


class Definitions:
    """One server's. `begin` before its caches are filled, `follow` when they are, `stop` at the end."""

    def __init__(self, core: Core, serving: Serving, writer: Writer, finalizing: Finalizing) -> None:
        self._core = core
        self._serving = serving
        self._writer = writer
        self._finalizing = finalizing
        self.converter_of: ConverterOf = _by_name_only
        self._served: dict[str, Definition] = {}
        self._names: dict[str, _Names] = {}
        self._revisions: dict[str, int] = {}
        # Names of definitions to look at, in order.
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._failures = Failures()
        self._delays: dict[str, Delay] = {}
        self._task: asyncio.Task[None] | None = None

    # The start

    async def begin(self) -> None:
        """Serve what is stored as established, before the first request comes.  Raises StoreUnavailable."""
        prefix = Codec(CUSTOM_RESOURCE_DEFINITIONS).prefix
        page = await self._core.caches.store.range(prefix)
        kinds = []
        for entry in page.entries:
            try:
                definition = definition_of(entry.value, self.converter_of)
                if not definition.resource.plural or not _is_established(entry.value) or self._is_taken(definition):
                    continue
                made = definition.kinds(self._core.schemas)
            except Exception:
                log.exception("what is stored as %s defines nothing that could be served", entry.key)
                continue
            kinds.append((definition, made, entry.mod_revision))
        if not kinds:
            return
        try:
            await self._serving.serve([kind for _, made, _ in kinds for kind in made])
        except ValueError:
            # Some contradict each other: each by itself, then, once the server runs.
            log.exception("the stored definitions cannot be served together")
            return
        for definition, _, revision in kinds:
            self._served[definition.name] = definition
            self._revisions[definition.name] = revision

    def follow(self) -> None:
        """Keep up with the definitions from now on."""
        cache = self._core.caches.of(CUSTOM_RESOURCE_DEFINITIONS)
        for cached in cache.items():
            definition = self._served.get(cached.name)
            if definition is not None and self._revisions.get(cached.name) == cached.revision:
                # One copy of a megabyte is enough.
                definition.stored.data = cached.data
                resource = definition.resource
                names = {"plural": resource.plural, "singular": resource.singular, "kind": resource.kind}
                accepted = {**names, "listKind": resource.list_kind, "shortNames": list(resource.short_names)}
                self._names[cached.name] = _Names(resource.group, accepted)
                if not definition.deleted:
                    continue
            self._dirty[cached.name] = None
        # What was there at the start and went before anybody followed.
        for name in self._served:
            if cache.get("", name) is None:
                self._dirty[name] = None
        cache.listeners.append(self._heard)
        self._task = asyncio.create_task(self._run(), name="custom resource definitions")
        self._wake.set()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._finalizing.stop()

    def _heard(self, change: Change) -> None:
        shown = change.new or change.old
        if shown is not None:
            self._look_at(shown.name)

    def _look_at(self, name: str) -> None:
        self._dirty[name] = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                name = next(iter(self._dirty))
                del self._dirty[name]
                try:
                    await self._sync(name)
                    self._delays.pop(name, None)
                except Exception as error:
                    self._failures.note(f"serving what {name} defines", error)
                    delay_s = self._delays.setdefault(name, Delay(_RETRY_S, _RETRY_MAX_S)).failed()
                    asyncio.get_running_loop().call_later(delay_s, self._look_at, name)

    # One definition

    async def _sync(self, name: str) -> None:
        cached = self._core.caches.of(CUSTOM_RESOURCE_DEFINITIONS).get("", name)
        if cached is None:
            await self._gone(name)
            return
        apart, size = self._core.work.apart, len(cached.data)
        crd = await apart(size, cached.obj)
        status = await apart(size, status_of, crd, self._others(name, crd), self._core.now_text())
        shown = {**crd, "status": status}
        before = self._names.get(name)
        self._names[name] = _Names((crd.get("spec") or {}).get("group", ""), status.get("acceptedNames") or {})
        if is_true(shown, "Established"):
            names = status.get("acceptedNames") or {}
            await self._serve(await apart(size, definition_of, cached.data, self.converter_of, names))
        if status != crd.get("status"):
            await self._write(crd, status)
        if before is not None and before != self._names[name]:
            # Names that were given up may be somebody's.
            self._look_at_group(name)
        if crd["metadata"].get("deletionTimestamp") and FINALIZER in (crd["metadata"].get("finalizers") or ()):
            self._finalizing.begin(name, self._served.get(name))

    def _others(self, name: str, crd: Obj) -> list[Obj]:
        group = (crd.get("spec") or {}).get("group", "")
        return [names.as_definition() for other, names in self._names.items() if other != name and names.group == group]

    def _look_at_group(self, name: str) -> None:
        group = self._names[name].group if name in self._names else name.partition(".")[2]
        for other, names in self._names.items():
            if other != name and names.group == group:
                self._look_at(other)

    async def _serve(self, definition: Definition) -> None:
        known = self._served.get(definition.name)
        if known is not None and known.uid == definition.uid and known.signature == definition.signature:
            known.stored.data = definition.stored.data
            return
        if known is not None and not known.may_become(definition):
            await self._withdraw(known)
        if self._is_taken(definition):
            return
        kinds = definition.kinds(self._core.schemas)
        if len(definition.stored.data) > _BIG:
            for kind in kinds:
                if kind.own_schemas is not None and kind.served:
                    await self._core.work.apart(_BIG, kind.own_schemas.structural.prepare)
        await self._serving.serve(kinds)
        self._served[definition.name] = definition

    def _is_taken(self, definition: Definition) -> bool:
        """Whether Kubernetes itself has such a resource, which stays what it is."""
        resource = definition.resource
        for kind in self._core.served.kinds():
            if kind.resource.group != resource.group or kind.own_schemas is not None:
                continue
            if resource.plural == kind.resource.plural or resource.kind == kind.resource.kind:
                log.warning(
                    "%s is not served: %s is a part of Kubernetes", definition.name, kind.resource.group_resource
                )
                return True
        return False

    async def _withdraw(self, definition: Definition) -> None:
        resource = definition.resource
        self._served.pop(definition.name, None)
        if self._core.served.of_resource(resource.group, resource.plural):
            # What is left of its objects, where somebody took away the finalizer, is there when it comes again.
            await self._serving.withdraw(resource.group, resource.plural, stored="keep")

    async def _gone(self, name: str) -> None:
        self._finalizing.forget(name)
        known = self._served.get(name)
        if known is not None:
            await self._withdraw(known)
        self._look_at_group(name)
        self._names.pop(name, None)
        self._delays.pop(name, None)

    async def _write(self, crd: Obj, status: Obj) -> None:
        try:
            await self._writer.update(CUSTOM_RESOURCE_DEFINITIONS, {**crd, "status": status}, "status")
        except StatusError as error:
            # Changed or deleted meanwhile, perhaps by another server's saying the same: its event brings us back.
            if error.code not in (404, 409):
                raise


def _is_established(data: bytes) -> bool:
    return is_true(orjson.loads(data), "Established")


def _by_name_only(crd: Obj) -> None:
    return None
