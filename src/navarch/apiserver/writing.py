"""The one way in which an object is created or changed: over HTTP, in process, by a subresource or by the server
itself.

Only kinds as they are stored come this way; who serves another version converts before and after.

In: an object (create) or a function from the stored object to the wanted one (modify).  Out: what is stored now. The
steps, in this order: system metadata, defaults, the kind's strategy, managed fields, admission, validation, canonical
bytes, commit. A modify whose commit loses a race starts over from the newer object unless the request named the
revision it wants to replace; one that changes nothing writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from navarch.api import apply as managed
from navarch.api.errors import FieldError, already_exists, conflict, invalid, not_found, unavailable
from navarch.api.errors import timeout as timed_out
from navarch.api.meta import Obj, generated_name
from navarch.api.validation import validate_object_meta, validate_object_meta_update
from navarch.apiserver import objectmeta
from navarch.apiserver.admission.base import Attributes
from navarch.apiserver.codec import decode
from navarch.apiserver.core import Core
from navarch.apiserver.served import ServedKind
from navarch.apiserver.user import LOOPBACK, User
from navarch.apiserver.watchcache import Cached
from navarch.store.base import Conflict, Delete, Put, StoreUnavailable

_MODIFY_ATTEMPTS = 50
_NAME_ATTEMPTS = 8
_ERRORS_SHOWN = 1000
# Writes that change what an update of the object itself may change.
_LIKE_MAIN = frozenset({"", "scale"})


@dataclass(slots=True)
class Origin:
    """Who writes and how: what the pipeline must know of a request beyond the object."""

    user: User = LOOPBACK
    manager: str = "navarch"
    dry_run: bool = False
    options: Obj = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Written:
    """The outcome: `data` are the bytes that a client of the kind's version reads; `gone` that the change let a
    deletion finish."""

    data: bytes
    revision: int
    created: bool = False
    gone: bool = False

    def obj(self) -> Obj:
        return decode(self.data)


@dataclass(frozen=True, slots=True)
class How:
    """The manner of a change: through which subresource; whether the pipeline records field ownership (server-side
    apply does that itself); whether it is `direct`, the server's own (a binding), which the kind's hooks do not look
    at; whether `wanted` is a function of what is stored (`patch`), so that losing a race means doing it again: the
    revision that such a change carries is the stored one, unless it states another."""

    subresource: str = ""
    manage: bool = True
    direct: bool = False
    patch: bool = False


MAIN = How()


class Wanted(Protocol):
    def __call__(self, old: Obj) -> Obj:
        """The object as it shall be, sharing nothing with `old`."""
        ...


class Writing:
    """The write pipeline of an API server."""

    def __init__(self, core: Core) -> None:
        self._core = core

    # Create

    async def create(self, kind: ServedKind, obj: Obj, origin: Origin) -> Written:
        """`obj` belongs to the pipeline from here on; its namespace is set."""
        core = self._core
        strategy = kind.strategy
        metadata = obj["metadata"]
        base = "" if metadata.get("name") else metadata.get("generateName") or ""
        if base:
            metadata["name"] = generated_name(base, core.world.identities("names", kind.resource.plural))
        now = core.now_text()
        objectmeta.fill_on_create(obj, kind, now, core.world.identities("uids", kind.resource.plural))
        strategy.defaults(obj)
        # Before the server adds what is its own (a Job's selector): that belongs to nobody who might drop it again.
        self._manage(kind, None, obj, origin, "", now)
        strategy.prepare_create(obj)
        if "status" not in obj and (status := kind.first_status()) is not None:
            obj["status"] = status
        for finalizer in strategy.finalizers_on_create(obj):
            if finalizer not in metadata.setdefault("finalizers", []):
                metadata["finalizers"].append(finalizer)
        attributes = self._attributes(kind, "CREATE", obj, None, origin, "")
        admitted = core.admission.concerns(kind, "CREATE")
        try:
            if admitted:
                await core.admission.mutate(attributes)
                obj = attributes.obj or obj
                strategy.defaults(obj)
            origin.warnings.extend(strategy.warnings(obj, None))
            self._refuse_invalid(kind, obj, self._create_errors(kind, obj))
            if admitted:
                await core.admission.validate(attributes)
            written = await self._commit_new(kind, obj, origin, base)
        except BaseException:
            if admitted:
                await core.admission.rolled_back(attributes)
            raise
        if admitted and not origin.dry_run:
            await core.admission.committed(attributes, obj)
        return written

    def _create_errors(self, kind: ServedKind, obj: Obj) -> Iterable[FieldError]:
        yield from validate_object_meta(obj, namespaced=kind.resource.namespaced, name_rule=kind.strategy.name_rule)
        yield from kind.strategy.validate(obj, None)

    async def _commit_new(self, kind: ServedKind, obj: Obj, origin: Origin, base: str) -> Written:
        resource = kind.resource
        metadata = obj["metadata"]
        for attempt in range(_NAME_ATTEMPTS):
            try:
                return await self._put(kind, obj, 0, origin)
            except Conflict:
                if not base:
                    raise already_exists(resource.plural, resource.group, metadata["name"]) from None
                if attempt + 1 < _NAME_ATTEMPTS:
                    metadata["name"] = generated_name(base, self._core.world.identities("names", kind.resource.plural))
        error = already_exists(resource.plural, resource.group, metadata["name"])
        error.message += ", the server was not able to generate a unique name for the object"
        raise error

    # Change

    async def modify(
        self,
        kind: ServedKind,
        namespace: str,
        name: str,
        wanted: Wanted,
        origin: Origin,
        *,
        how: How = MAIN,
        missing: Callable[[], Obj] | None = None,
    ) -> Written:
        """Change a stored object; `missing` gives the object to create where none is stored."""
        core = self._core
        cache = kind.cache
        resource = kind.resource
        await core.caches.sync()
        for _ in range(_MODIFY_ATTEMPTS):
            cached = cache.get(namespace, name)
            if cached is None:
                if missing is None:
                    raise not_found(resource.plural, resource.group, name)
                return await self.create(kind, missing(), origin)
            old = await core.encodings.obj(kind, cached)
            obj = wanted(old)
            revision = objectmeta.requested_revision(obj)
            if revision and revision != cached.revision:
                raise conflict(resource.plural, resource.group, name)
            if not revision and not kind.strategy.allow_unconditional_update and how == MAIN:
                error = FieldError(
                    "FieldValueInvalid", "metadata.resourceVersion", "must be specified for an update", 0
                )
                raise invalid(resource.kind, resource.group, name, [error])
            try:
                return await self._replace(kind, obj, old, cached, origin, how)
            except Conflict as lost:
                if revision and not how.patch:
                    raise conflict(resource.plural, resource.group, name) from None
                await self.catch_up(lost)
        raise timed_out(f"the object {name} is being changed too often; try again")

    async def _replace(self, kind: ServedKind, obj: Obj, old: Obj, cached: Cached, origin: Origin, how: How) -> Written:
        """One attempt to put `obj` in the place of `old`.  Raises Conflict where that is no longer what is stored."""
        core, strategy = self._core, kind.strategy
        self._prepare(kind, obj, old, cached, how)
        if how.manage:
            self._manage(kind, old, obj, origin, how.subresource, core.now_text())
        attributes = self._attributes(kind, "UPDATE", obj, old, origin, how.subresource)
        admitted = core.admission.concerns(kind, "UPDATE")
        try:
            if admitted:
                await core.admission.mutate(attributes)
                obj = attributes.obj or obj
                if not how.direct:
                    strategy.defaults(obj)
            if not how.direct:
                objectmeta.bump_generation(obj, old, kind)
            if not how.subresource:
                origin.warnings.extend(strategy.warnings(obj, old))
            if not how.direct:
                self._refuse_invalid(kind, obj, self._update_errors(kind, obj, old, how.subresource))
            if admitted:
                await core.admission.validate(attributes)
            if how.subresource != "status" and objectmeta.may_go(obj, kind):
                written = await self._remove(kind, obj, cached, origin)
            else:
                written = await self._put(kind, obj, cached.revision, origin, cached)
        except BaseException:
            if admitted:
                await core.admission.rolled_back(attributes)
            raise
        if admitted and not origin.dry_run:
            await core.admission.committed(attributes, obj)
        return written

    def _prepare(self, kind: ServedKind, obj: Obj, old: Obj, cached: Cached, how: How) -> None:
        """Restore what this kind of write may not change."""
        strategy = kind.strategy
        metadata = obj["metadata"]
        metadata["name"] = cached.name
        if cached.namespace:
            metadata["namespace"] = cached.namespace
        objectmeta.keep_on_update(obj, old, kind)
        strategy.complete(obj)
        metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
        if how.direct:
            return
        strategy.defaults(obj)
        if how.subresource == "status":
            strategy.prepare_status(obj, old)
        elif how.subresource not in _LIKE_MAIN:
            strategy.prepare_subresource(how.subresource, obj, old)
        else:
            strategy.prepare_update(obj, old)

    def _update_errors(self, kind: ServedKind, obj: Obj, old: Obj, subresource: str) -> Iterable[FieldError]:
        strategy = kind.strategy
        yield from validate_object_meta_update(obj, old)
        yield from validate_object_meta(obj, namespaced=kind.resource.namespaced, name_rule=strategy.name_rule)
        if subresource == "status":
            yield from strategy.validate_status(obj, old)
        elif subresource not in _LIKE_MAIN:
            yield from strategy.validate_subresource(subresource, obj, old)
        else:
            yield from strategy.validate(obj, old)

    # What both share

    def _attributes(
        self, kind: ServedKind, operation: str, obj: Obj, old: Obj | None, origin: Origin, subresource: str
    ) -> Attributes:
        metadata = obj["metadata"]
        return Attributes(
            kind,
            operation,
            metadata.get("namespace") or "",
            metadata.get("name") or "",
            subresource,
            obj,
            old,
            origin.user,
            origin.dry_run,
            origin.options,
            origin.warnings,
        )

    def _manage(self, kind: ServedKind, old: Obj | None, obj: Obj, origin: Origin, subresource: str, now: str) -> None:
        if not origin.manager:
            # Server-side apply has written managedFields itself.
            return
        compiled = kind.compiled
        if compiled is None:
            return
        # What a new object's status says is the server's doing, and owned by nobody.
        status = obj.pop("status", None) if old is None and kind.has_status else None
        managed.update_managed_fields(
            old,
            obj,
            compiled.root,
            manager=origin.manager,
            api_version=kind.resource.api_version,
            subresource=subresource,
            now=now,
        )
        if status is not None:
            obj["status"] = status

    def _refuse_invalid(self, kind: ServedKind, obj: Obj, errors: Iterable[FieldError]) -> None:
        # A body has room for a hundred thousand mistakes; a reader has not.
        found = list(islice(errors, _ERRORS_SHOWN))
        if found:
            metadata = obj["metadata"]
            name = metadata.get("name") or metadata.get("generateName") or ""
            raise invalid(kind.resource.kind, kind.resource.group, name, found)

    async def _put(
        self, kind: ServedKind, obj: Obj, expected: int, origin: Origin, cached: Cached | None = None
    ) -> Written:
        """Encode and commit; what is stored already is not written again."""
        cache = kind.cache
        codec, encodings = kind.storage_kind.codec, self._core.encodings
        if kind.strategy.nulls:
            kind.strategy.complete(obj)
        stored = obj if kind.is_storage else await encodings.stored(kind, obj)
        value = codec.encode(stored)
        metadata = obj["metadata"]
        key = codec.key(metadata.get("namespace") or "", metadata["name"])
        if cached is not None and value == codec.unstamp(cached.data, cached.revision):
            return Written(await encodings.one(kind, cached), cached.revision)
        if origin.dry_run:
            if expected == 0 and cache.by_key(key) is not None:
                raise Conflict(None)
            data = codec.stamp(value, cached.revision) if cached is not None else value
            return Written(await encodings.data(kind, data), cached.revision if cached else 0, created=not expected)
        cache.expect(key, value, stored)
        try:
            ttl_s = self._core.event_ttl_s if kind.strategy.expires else None
            revision = await self._commit(Put(key, value, expected, ttl_s))
        except BaseException:
            cache.forget(key, value)
            raise
        entry = cache.by_key(key)
        data = entry.data if entry is not None and entry.revision == revision else codec.stamp(value, revision)
        return Written(await encodings.data(kind, data), revision, created=not expected)

    async def _remove(self, kind: ServedKind, obj: Obj, cached: Cached, origin: Origin) -> Written:
        """The last finalizer is gone: the object goes."""
        codec = kind.codec
        revision = cached.revision
        if not origin.dry_run:
            revision = await self._commit(Delete(cached.key, cached.revision))
        return Written(codec.stamp(codec.encode(obj), revision), revision, gone=True)

    async def remove(self, cached: Cached, *, dry_run: bool = False) -> int:
        """Delete what is stored at exactly this revision.  Raises Conflict, StatusError."""
        return cached.revision if dry_run else await self._commit(Delete(cached.key, cached.revision))

    async def put_deleting(self, kind: ServedKind, obj: Obj, cached: Cached, origin: Origin) -> Written:
        """Store an object whose deletion has begun, without the hooks of an update.  Raises Conflict."""
        return await self._put(kind, obj, cached.revision, origin, cached)

    async def _commit(self, op: Put | Delete) -> int:
        """Raises Conflict, StatusError 503. When it returns, the caches have the revision."""
        caches = self._core.caches
        try:
            revision = await caches.store.commit((op,))
        except StoreUnavailable as error:
            raise unavailable(str(error)) from error
        if caches.revision < revision:
            await caches.wait(revision)
        return revision

    async def catch_up(self, lost: Conflict) -> None:
        """Wait until the cache shows what won."""
        if lost.current is not None:
            await self._core.caches.wait(lost.current.mod_revision)
        else:
            await self._core.caches.sync()
