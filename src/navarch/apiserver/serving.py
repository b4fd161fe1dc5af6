"""What is served changes while the server runs: resources come, change and go.

In: kinds, all versions of a resource at once.  Out: another `Served` in the place of the one before. A resource's
objects are in its cache before anybody can ask for them; requests that began earlier end with the kind that they found.
Where a resource goes, its watches end, writes under way are waited for and later ones refused, and what is stored is
kept or deleted as the caller says.

Invariant: changes come one after another, and one that fails has changed nothing that anybody is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from navarch.api.meta import Obj, Resource
from navarch.apiserver.codec import Codec
from navarch.apiserver.core import Core
from navarch.apiserver.served import Served, served_by
from navarch.apiserver.watchcache import WatchCache
from navarch.kinds.base import Kind
from navarch.store.base import Conflict, Delete

log = logging.getLogger(__name__)

_DELETED_AT_ONCE = 500

Stored = Literal["keep", "delete"]


class Serving:
    """The one who replaces `core.served`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._changing = asyncio.Lock()
        core.served_changed.append(self._forget_kinds)

    def _forget_kinds(self) -> None:
        """What is remembered of kinds by themselves would keep those that are served no more."""
        self._core.admission.forget_kinds()
        self._core.metrics.forget_all_but(self._core.served.kinds())

    async def serve(self, kinds: Sequence[Kind]) -> None:
        """Serve these resources in these versions, and in no others.  Raises ValueError where the kinds do not fit
        together, StatusError or StoreUnavailable where what is stored cannot be read."""
        async with self._changing:
            core = self._core
            before = core.served
            _check(kinds, before)
            storages = {kind.stored_resource: kind for kind in kinds if not kind.virtual}
            added: list[Resource] = []
            try:
                for resource, kind in storages.items():
                    known = _name(resource) in core.caches.by_resource()
                    cache = await core.caches.add(kind)
                    if not known:
                        added.append(resource)
                    await self._fit(cache, resource, [each for each in kinds if each.stored_resource == resource])
                core.served = served_by(core.caches, before.everything.replaced(kinds), before.schemas)
            except BaseException:
                for resource in added:
                    core.caches.remove(resource)
                raise
            for changed in core.served_changed:
                changed()
            # What is watched was asked of the kind as it was; who watches asks again.
            for resource in storages:
                for watcher in core.caches.of(resource).watchers():
                    watcher.close()

    async def _fit(self, cache: WatchCache, stored: Resource, kinds: Sequence[Kind]) -> None:
        """Make a cache what the kinds need: objects are stored in that version now, and found by what selectors of any
        version look at."""
        codec = Codec(stored)
        if codec.head != cache.codec.head:
            # Nothing is rewritten: what is stored is converted when it is read, until it is written again.
            cache.mixed = cache.mixed or len(cache) > 0
            cache.codec = codec
        selectable = tuple(dict.fromkeys(path for kind in kinds for path in kind.strategy.selectable))
        wanted = (selectable, *((kind.resource, kind.own_schemas and kind.own_schemas.digest) for kind in kinds))
        if wanted != cache.fitted_for and (selectable != cache.selectable or kinds[0].own_schemas is not None):
            await self._core.work.do(cache.refitted(selectable, _selecting(kinds), _settling(kinds)))
        cache.fitted_for = wanted

    async def withdraw(self, group: str, plural: str, *, stored: Stored) -> None:
        """Serve a resource no longer, in any version. Its objects stay in the store, and are there again when it is
        served again, or are deleted, without a word to their finalizers or dependents.  Raises LookupError where it is
        not served, StoreUnavailable."""
        async with self._changing:
            core = self._core
            kinds = core.served.of_resource(group, plural)
            if not kinds:
                raise LookupError(f"{plural}.{group} is not served")
            core.served = served_by(core.caches, core.served.everything.without(group, plural), core.served.schemas)
            for changed in core.served_changed:
                changed()
            if kinds[0].virtual or any(
                _name(kind.stored_resource) == _name(kinds[0].stored_resource) for kind in core.served.kinds()
            ):
                # Another resource shares its objects.
                return
            cache, resource = kinds[0].cache, kinds[0].stored_resource
            cache.close()
            # What was being written is in the cache, and in the store, before either is cleared.
            await cache.settled()
            core.caches.remove(resource)
            if stored == "delete":
                await self._delete(cache.codec.prefix)

    async def _delete(self, prefix: str) -> None:
        store = self._core.caches.store
        while True:
            page = await store.range(prefix, limit=_DELETED_AT_ONCE)
            if not page.entries:
                return
            try:
                await store.commit([Delete(entry.key, entry.mod_revision) for entry in page.entries])
            except Conflict:
                # Another server still serves it and has written; that is deleted, too.
                log.info("deleting %s once more: something there has changed", prefix)


def _name(resource: Resource) -> tuple[str, str]:
    return (resource.group, resource.plural)


def _settling(kinds: Sequence[Kind]) -> Callable[[Obj], bool] | None:
    """What is stored in a version is shown by that version's schema."""
    schemas = {kind.resource.api_version: kind.own_schemas.structural for kind in kinds if kind.own_schemas is not None}
    if not schemas:
        return None

    def settle(obj: Obj) -> bool:
        schema = schemas.get(obj.get("apiVersion", ""))
        return schema is not None and schema.settle(obj)

    return settle


def _selecting(kinds: Sequence[Kind]) -> Callable[[Obj], Mapping[str, str]]:
    strategies = list({id(kind.strategy): kind.strategy for kind in kinds}.values())
    if len(strategies) == 1:
        return strategies[0].selected

    def selected(obj: Obj) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for strategy in strategies:
            found |= strategy.selected(obj)
        return found

    return selected


def _check(kinds: Iterable[Kind], served: Served) -> None:
    """Raises ValueError."""
    given = {kind.resource for kind in kinds}
    names = {_name(resource) for resource in given}
    by_name: dict[tuple[str, str], list[Kind]] = {}
    by_kind: dict[tuple[str, str], list[Kind]] = {}
    for known in served.kinds():
        by_name.setdefault(_name(known.resource), []).append(known)
        by_kind.setdefault((known.resource.group, known.resource.kind), []).append(known)
    for new in kinds:
        resource, stored = new.resource, new.stored_resource
        if stored not in given and served.by_path(stored.group, stored.version, stored.plural) is None:
            raise ValueError(f"{resource.group_resource}: the version {stored.version}, which is stored, is missing")
        for other in by_name.get(_name(resource), ()):
            if other.resource.namespaced != resource.namespaced:
                raise ValueError(f"the scope of {resource.group_resource} cannot change while it is served")
        for other in by_kind.get((resource.group, resource.kind), ()):
            if _name(other.resource) not in names:
                raise ValueError(f"{resource.kind} of {resource.group} is {other.resource.plural} already")
