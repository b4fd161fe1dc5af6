"""The one way in which an object is created or changed: over HTTP, in process, by a subresource or by the server
itself.

Only kinds as they are stored come this way; who serves another version converts before and after.

In: an object (create) or a function from the stored object to the wanted one (modify).  Out: what is stored now. The
steps, in Kubernetes' order: defaults, managed fields, mutating admission (defaults again for what it added), then the
kind's preparation (uid, times, generation, status: whatever a client or a plugin said of them), validation, validating
admission, canonical bytes, commit. What was reserved on the way is given back on every way out but the commit. A modify
whose commit loses a race starts over from the newer object, to which a revision that the request named is compared;
one that changes nothing writes nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from itertools import islice

import orjson

from navarch.api import apply as managed
from navarch.api.errors import (
    FieldError,
    StatusError,
    already_exists,
    conflict,
    internal,
    invalid,
)
from navarch.api.errors import timeout as timed_out
from navarch.api.managers import readable
from navarch.api.meta import Obj, generated_name
from navarch.api.metadata_validation import validate_new_finalizers, validate_object_meta, validate_object_meta_update
from navarch.api.structural import fits
from navarch.apiserver import objectmeta
from navarch.apiserver.admitting import CREATE, NOT_ADMITTED, UPDATE, Admission, admission
from navarch.apiserver.changes import Cached
from navarch.apiserver.codec import decode
from navarch.apiserver.companions import NOTHING
from navarch.apiserver.core import Core
from navarch.apiserver.longwork import SHORT
from navarch.apiserver.served import ServedKind
from navarch.apiserver.storing import Storing
from navarch.apiserver.writes import MAIN, Commit, How, Origin, Wanted, Written
from navarch.kinds.base import Subresource
from navarch.store.base import Conflict

_MODIFY_ATTEMPTS = 50
_NAME_ATTEMPTS = 8
_ERRORS_SHOWN = 1000


class Writing:
    """The write pipeline of an API server."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.storing = Storing(core)

    # Create

    async def create(self, kind: ServedKind, obj: Obj, origin: Origin) -> Written:
        """`obj` belongs to the pipeline from here on; its namespace is set."""
        core, strategy = self._core, kind.strategy
        stated = objectmeta.wipe_on_create(obj)
        metadata = obj["metadata"]
        namespace, now = metadata.get("namespace") or "", core.now_text()
        apart, size = core.work.apart, origin.size
        if origin.alike is None:
            await apart(size, strategy.defaults, obj)
        if strategy.stamps:
            strategy.stamp(obj, now, None)
        await apart(size, self._manage, kind, None, obj, origin, "", now)
        name = metadata.get("name") or ""
        async with self._admission(origin, kind, CREATE, namespace, name, obj=obj, size=size) as admitted:
            if admitted.mutates:
                await self._mutate(kind, admitted, obj, size, shared=False)
            prepared = (kind, obj, origin, namespace, now, stated)
            base = self._prepare_new(*prepared) if size <= SHORT else await apart(size, self._prepare_new, *prepared)
            holding = self.storing.take(kind, obj, None)
            await core.work.attempt(
                size, lambda: self._refuse_invalid(kind, obj, self._create_errors(kind, obj, origin))
            )
            origin.warnings.extend(await apart(size, list, strategy.warnings(obj, None)))
            await admitted.validate(obj)
            stated.refuse_revision()
            return await self._commit_new(kind, obj, origin, base, Commit(admitted, holding))

    def _prepare_new(
        self, kind: ServedKind, obj: Obj, origin: Origin, namespace: str, now: str, stated: objectmeta.Stated
    ) -> str:
        """What the server says of a new object, whoever said something else before. Returns what the name was generated
        from; empty for one that was stated."""
        core, strategy = self._core, kind.strategy
        metadata = obj["metadata"]
        if namespace:
            metadata["namespace"] = namespace
        base = "" if metadata.get("name") else metadata.get("generateName") or ""
        if base:
            metadata["name"] = generated_name(base, core.world.identities("names", kind.resource.plural))
        objectmeta.fill_on_create(obj, kind, now, core.world.identities("uids", kind.resource.plural), stated)
        strategy.prepare_create(obj)
        strategy.name_requester(obj, origin.requester)
        if "status" not in obj and (status := kind.first_status()) is not None:
            obj["status"] = status
        for finalizer in strategy.finalizers_on_create(obj):
            if finalizer not in metadata.setdefault("finalizers", []):
                metadata["finalizers"].append(finalizer)
        if entries := metadata.pop("managedFields", None):
            # Last, as an update leaves them, so that one that changes nothing gives the same bytes.
            metadata["managedFields"] = entries
        origin.warnings.extend(strategy.early_warnings(obj))
        return base

    def _create_errors(self, kind: ServedKind, obj: Obj, origin: Origin) -> Iterable[FieldError]:
        strategy = (origin.requested or kind).strategy
        own = strategy.validate(obj, None)
        if not strategy.metadata_first and (first := next(own, None)) is not None:
            yield first
            yield from own
            return
        yield from validate_object_meta(obj, namespaced=kind.resource.namespaced, name_rule=strategy.name_rule)
        if strategy.finalizers_have_domains:
            yield from validate_new_finalizers(obj)
        yield from own

    async def _commit_new(self, kind: ServedKind, obj: Obj, origin: Origin, base: str, how: Commit) -> Written:
        resource = kind.resource
        metadata = obj["metadata"]
        for attempt in range(_NAME_ATTEMPTS):
            try:
                return await self.storing.put(kind, obj, 0, origin, how)
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
        missing: Callable[[], Awaitable[Obj]] | None = None,
    ) -> Written:
        """Change a stored object; `missing` gives the object to create where none is stored."""
        core = self._core
        cache = kind.cache
        resource = kind.resource
        await core.caches.sync()
        for _ in range(_MODIFY_ATTEMPTS):
            cached = cache.get(namespace, name)
            if cached is None:
                if missing is None or cache.why_unreadable(namespace, name):
                    raise kind.absent(namespace, name)
                try:
                    return await self.create(kind, await missing(), origin.creating())
                except StatusError as error:
                    if error.reason != "AlreadyExists":
                        raise
                    # Somebody else was quicker: then it is theirs that is changed.
                    await core.caches.sync()
                    continue
            old = await core.encodings.obj(kind, cached)
            obj = await core.work.apart(origin.size + len(cached.data), wanted, old)
            revision = objectmeta.requested_revision(obj)
            if revision and revision != cached.revision:
                raise conflict(resource.plural, resource.group, name)
            if not how.patch:
                objectmeta.check_uid(obj, old, kind)
            if not revision and not kind.strategy.allow_unconditional_update and how == MAIN:
                wrong = FieldError(
                    "FieldValueInvalid", "metadata.resourceVersion", "must be specified for an update", 0
                )
                # Kubernetes names the resource here, where it names the kind elsewhere.
                raise invalid(resource.plural, resource.group, name, [wrong])
            try:
                return await self._replace(kind, obj, old, cached, origin, how)
            except Conflict as lost:
                # Also where the request named a revision: the object may be gone, which is told as such.
                await self.storing.catch_up(lost)
        raise timed_out(f"the object {name} is being changed too often; try again")

    async def _replace(self, kind: ServedKind, obj: Obj, old: Obj, cached: Cached, origin: Origin, how: How) -> Written:
        """One attempt to put `obj` in the place of `old`.  Raises Conflict where that is no longer what is stored."""
        strategy, through = kind.strategy, kind.strategy.through(how.subresource)
        owns = through.owns_what_it_says or strategy.owns_what_it_says
        apart, size = self._core.work.apart, origin.size + len(cached.data)
        now = self._core.now_text() if how.manage or strategy.stamps else ""

        def prepare() -> None:
            self._keep(kind, obj, old, cached)
            through.prepare(strategy, obj, old)

        def shape() -> None:
            if not through.trusted:
                if how.subresource != "status" or not strategy.defaults_specification_only:
                    strategy.defaults(obj)
                if strategy.stamps:
                    strategy.stamp(obj, now, old)
            if owns:
                self._keep(kind, obj, old, cached)
            else:
                # Before the owners of fields are recorded: what a write may not change is not its manager's either.
                prepare()
            if how.manage:
                self._manage(kind, old, obj, origin, how.subresource, now)

        def check() -> None:
            if how.subresource != "status":
                objectmeta.bump_generation(obj, old, kind)
            managed.keep_times(obj, old)
            self._refuse_invalid(kind, obj, self._update_errors(kind, through, obj, old, origin))
            if not how.subresource:
                origin.warnings.extend(strategy.warnings(obj, old))

        await apart(size, shape)
        async with self._admit_update(kind, obj, old, cached, origin, how) as admitted:
            changed = admitted.mutates and await self._mutate_update(kind, admitted, obj, old, size, how)
            if changed or owns:
                await apart(size, prepare)
            holding = NOTHING if through.trusted else self.storing.take(kind, obj, old)
            if not through.trusted:
                await self._core.work.attempt(size, check)
            await admitted.validate(obj if how.view is None else how.view.of(obj))
            if objectmeta.may_go(obj, kind):
                return await self.storing.put_away(
                    kind, obj, cached, origin, Commit(admitted, self.storing.release(kind, old))
                )
            return await self.storing.put(kind, obj, cached.revision, origin, Commit(admitted, holding), cached, old)

    def _admit_update(
        self, kind: ServedKind, obj: Obj, old: Obj, cached: Cached, origin: Origin, how: How
    ) -> Admission:
        if not how.admit:
            return NOT_ADMITTED
        view = how.view
        return self._admission(
            origin,
            kind,
            UPDATE,
            cached.namespace,
            cached.name,
            how.subresource,
            obj if view is None else None,
            old if view is None else view.of(old),
            origin.size + len(cached.data),
        )

    async def _mutate_update(
        self, kind: ServedKind, admitted: Admission, obj: Obj, old: Obj, size: int, how: How
    ) -> bool:
        """Whether admission changed anything that needs a second look."""
        view = how.view
        if not admitted.leaves_whole:
            await self._core.work.apart(size, admitted.guard, old if view is None else view.of(old))
        if view is None:
            return await self._mutate(kind, admitted, obj, size, shared=True)
        shown = view.of(obj)
        before = orjson.dumps(shown)
        await admitted.mutate(shown)
        if orjson.dumps(shown) == before:
            return False
        view.put(obj, shown)
        return True

    def _keep(self, kind: ServedKind, obj: Obj, old: Obj, cached: Cached) -> None:
        """Restore what no write may change."""
        metadata = obj["metadata"]
        metadata["name"] = cached.name
        if cached.namespace:
            metadata["namespace"] = cached.namespace
        objectmeta.keep_on_update(obj, old)
        kind.strategy.complete(obj)
        metadata["resourceVersion"] = old["metadata"]["resourceVersion"]

    def _update_errors(
        self, kind: ServedKind, through: Subresource, obj: Obj, old: Obj, origin: Origin
    ) -> Iterable[FieldError]:
        strategy = (origin.requested or kind).strategy
        # Kubernetes looks at the metadata before and in the kind's own validation, and says so twice.
        wrong = list(validate_object_meta_update(obj, old))
        wrong += validate_object_meta(obj, namespaced=kind.resource.namespaced, name_rule=strategy.name_rule)
        yield from wrong
        yield from wrong
        finalizers = obj["metadata"].get("finalizers")
        had = frozenset(old["metadata"].get("finalizers") or ())
        if strategy.finalizers_have_domains and finalizers and not had.issuperset(finalizers):
            for _ in range(2):
                yield from validate_new_finalizers(obj)
        yield from through.validate(strategy, obj, old)

    # What both share

    def _admission(
        self,
        origin: Origin,
        kind: ServedKind,
        operation: str,
        namespace: str,
        name: str,
        subresource: str = "",
        obj: Obj | None = None,
        old: Obj | None = None,
        size: int = 0,
    ) -> Admission:
        return admission(
            self._core.admission,
            origin,
            kind,
            operation,
            namespace=namespace,
            name=name,
            subresource=subresource,
            obj=obj,
            old=old,
            size=size,
            work=self._core.work,
        )

    async def _mutate(self, kind: ServedKind, admitted: Admission, obj: Obj, size: int, *, shared: bool) -> bool:
        """Let admission change the object, of about `size` bytes, with defaults for what it added; whether it needs a
        second look then. What plugins get is a copy: the object shares what it does not change with the stored one."""
        if admitted.leaves_whole:
            # No second look, and of what may be shared only that is copied in which fields are replaced.
            if shared and type(spec := obj.get("spec")) is dict:
                obj["spec"] = dict(spec)
            await admitted.mutate(obj)
            return False
        apart = self._core.work.apart
        before = await apart(size, orjson.dumps, obj)
        mutated = await admitted.mutate(await apart(size, decode, before) if shared else obj)
        return mutated is not None and await apart(size, self._take_mutated, kind, obj, before, mutated)

    def _take_mutated(self, kind: ServedKind, obj: Obj, before: bytes, mutated: Obj) -> bool:
        """Whether admission made something else of the object, which was `before`; it is in `obj` then."""
        if orjson.dumps(mutated) == before:
            return False
        if mutated is not obj:
            obj.clear()
            obj.update(mutated)
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict):
            raise internal("admission left an object without metadata")
        entries = metadata.get("managedFields")
        if entries and orjson.dumps(entries) not in before and not readable(entries):
            # Who owns what is not lost because a plugin could not write it down.
            metadata["managedFields"] = decode(before)["metadata"].get("managedFields") or []
        if (compiled := kind.compiled) is not None:
            compiled.default(obj)
        kind.strategy.defaults(obj)
        return True

    def _manage(self, kind: ServedKind, old: Obj | None, obj: Obj, origin: Origin, subresource: str, now: str) -> None:
        if not origin.manager:
            # Server-side apply has written managedFields itself.
            return
        asked = origin.requested
        if asked is not None and asked.from_storage is not None:
            shown, was = asked.from_storage(obj), None if old is None else asked.from_storage(old)
            self._manage(asked, was, shown, replace(origin, requested=None), subresource, now)
            entries = shown["metadata"].pop("managedFields", None)
            obj["metadata"].pop("managedFields", None)
            if entries:
                obj["metadata"]["managedFields"] = entries
            return
        compiled = kind.compiled
        if compiled is None:
            return
        if kind.own_schemas is not None and not fits(obj, compiled.root):
            # Validation will say what is wrong with it, and nobody owns what is not stored.
            return
        # What a new object says of what it cannot set (its status) is the server's doing, and owned by nobody.
        apart = {}
        if old is None:
            resets = kind.strategy.resets("", has_status=kind.has_status)
            apart = {name: obj.pop(name) for name in resets if name in obj}
        elif not subresource and kind.has_status and obj.get("status") is not old.get("status"):
            # So is what a change of something else makes it say.
            apart["status"], obj["status"] = obj.get("status"), old.get("status")
        managed.update_managed_fields(
            old,
            obj,
            compiled.root,
            manager=origin.manager,
            api_version=kind.resource.api_version,
            subresource=subresource,
            now=now,
            custom=kind.own_schemas is not None,
            outcome=origin.outcome,
            alike=origin.alike,
        )
        obj.update(apart)
        if apart and obj.get("status", apart) is None:
            del obj["status"]

    def _refuse_invalid(self, kind: ServedKind, obj: Obj, errors: Iterable[FieldError]) -> None:
        # A body has room for a hundred thousand mistakes; a reader has not.
        found = list(islice(errors, _ERRORS_SHOWN))
        if found:
            metadata = obj["metadata"]
            name = metadata.get("name") or metadata.get("generateName") or ""
            raise invalid(kind.resource.kind, kind.resource.group, name, found)
