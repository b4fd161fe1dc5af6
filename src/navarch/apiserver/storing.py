"""The last step of a write: what goes into the store, or out of it, and comes back as what a client reads.

In: an object that is whole and admitted, and what is written beside it (cluster IPs and the like).  Out: `Written`,
when the caches have it; or Conflict, where somebody was quicker. What is stored already is not written again.
"""

from __future__ import annotations

from operator import ne

from navarch.api.errors import timeout as timed_out
from navarch.api.errors import unavailable
from navarch.api.meta import Obj
from navarch.apiserver.admitting import Admission
from navarch.apiserver.changes import Cached
from navarch.apiserver.codec import Codec, decode
from navarch.apiserver.companions import NOTHING, Holding
from navarch.apiserver.core import Core
from navarch.apiserver.longwork import SHORT
from navarch.apiserver.served import ServedKind
from navarch.apiserver.writes import Commit, Origin, Written
from navarch.store.base import Conflict, Delete, Put, StoreUnavailable

_HOLDING_ATTEMPTS = 100


class Storing:
    """One server's."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def take(self, kind: ServedKind, obj: Obj, old: Obj | None) -> Holding:
        """What a new or changed object needs beside itself."""
        companion = self._core.companions.get(kind.resource)
        return NOTHING if companion is None else companion.take(obj, old)

    def release(self, kind: ServedKind, old: Obj) -> Holding:
        """What an object that goes had."""
        companion = self._core.companions.get(kind.resource)
        return NOTHING if companion is None else companion.release(old)

    async def put(
        self,
        kind: ServedKind,
        obj: Obj,
        expected: int,
        origin: Origin,
        how: Commit,
        cached: Cached | None = None,
        old: Obj | None = None,
    ) -> Written:
        """Encode and commit; what is stored already (`cached`; decoded, where somebody did that, `old`) is not written
        again."""
        cache, encodings = kind.cache, self._core.encodings
        codec = kind.storage_kind.codec
        size = origin.size + (len(cached.data) if cached is not None else 0)
        kind.strategy.complete(obj)
        for _ in range(_HOLDING_ATTEMPTS):
            stored = obj if kind.is_storage else await encodings.stored(kind, obj, size)
            if stored is not obj and (schemas := kind.storage_kind.own_schemas) is not None:
                # What the stored version does not know is not stored.
                await self._core.work.apart(size, schemas.structural.settle, stored)
            value = codec.encode(stored) if size <= SHORT else await self._core.work.apart(size, codec.encode, stored)
            metadata = obj["metadata"]
            key = codec.key(metadata.get("namespace") or "", metadata["name"])
            if cached is not None:
                differs = old is not None
                if differs:
                    differs = obj != old if size <= SHORT else await self._core.work.apart(size, ne, obj, old)
                if await self._is_stored(codec, value, cached, differs):
                    how.admitted.landed(obj)
                    return Written(await encodings.one(kind, cached), cached.revision)
            if origin.dry_run:
                if expected == 0 and cache.by_key(key) is not None:
                    raise Conflict(None, key)
                data = codec.stamp(value, cached.revision) if cached is not None else value
                return Written(await encodings.data(kind, data), cached.revision if cached else 0, created=not expected)
            cache.expect(key, value, stored)
            try:
                ttl_s = self._core.event_ttl_s if kind.strategy.expires else None
                revision = await self._commit(Put(key, value, expected, ttl_s), obj, how)
            except BaseException as error:
                cache.forget(key, value)
                if not isinstance(error, Conflict) or error.key == key:
                    raise
                await how.holding.lost(error)
                continue
            entry = cache.by_key(key)
            data = entry.data if entry is not None and entry.revision == revision else codec.stamp(value, revision)
            if not data.startswith(kind.head):
                data = await encodings.data(kind, data)
            return Written(data, revision, created=not expected)
        raise timed_out(f"what {metadata['name']} needs is being taken by others too often; try again")

    async def _is_stored(self, codec: Codec, value: bytes, cached: Cached, differs: bool) -> bool:
        """Whether these bytes say what is stored, in whichever order; `differs` where it is known that they do not."""
        if differs or self._core.caches.is_stale(cached.key):
            return False
        stored = codec.unstamp(cached.data, cached.revision)
        if value == stored or len(value) != len(stored):
            return value == stored
        return await self._core.work.apart(len(value), _say_the_same, value, stored)

    async def put_away(self, kind: ServedKind, obj: Obj, cached: Cached, origin: Origin, how: Commit) -> Written:
        """The last finalizer is gone: the object goes."""
        codec = kind.codec
        revision = cached.revision
        if not origin.dry_run:
            revision = await self._delete(cached, obj, how)
        # As in Kubernetes its writer reads what was written over, since nothing was written.
        return Written(codec.stamp(codec.encode(obj), cached.revision), revision, gone=True)

    async def remove(
        self, kind: ServedKind, obj: Obj, cached: Cached, admitted: Admission, *, dry_run: bool = False
    ) -> int:
        """Delete what is stored at exactly this revision.  Raises Conflict, StatusError."""
        if dry_run:
            return cached.revision
        return await self._delete(cached, obj, Commit(admitted, self.release(kind, obj)))

    async def _delete(self, cached: Cached, obj: Obj, how: Commit) -> int:
        """Raises Conflict, StatusError."""
        for _ in range(_HOLDING_ATTEMPTS):
            try:
                return await self._commit(Delete(cached.key, cached.revision), obj, how)
            except Conflict as error:
                if error.key == cached.key:
                    raise
                await how.holding.lost(error)
        raise timed_out(f"what {cached.name} had is being changed by others too often; try again")

    async def put_deleting(self, kind: ServedKind, obj: Obj, cached: Cached, origin: Origin) -> Written:
        """Store an object whose deletion has begun, without the hooks of an update.  Raises Conflict."""
        return await self.put(kind, obj, cached.revision, origin, Commit(), cached)

    async def _commit(self, op: Put | Delete, obj: Obj, how: Commit) -> int:
        """Raises Conflict, StatusError 503. When it returns, the caches have the revision."""
        caches = self._core.caches
        try:
            # The object first: who sees what it holds shall see it too.
            revision = await caches.store.commit((op, *how.holding.operations()))
        except StoreUnavailable as error:
            raise unavailable(str(error)) from error
        how.admitted.landed(obj)
        if caches.revision < revision:
            await caches.wait(revision)
        return revision

    async def catch_up(self, lost: Conflict) -> None:
        """Wait until the cache shows what won."""
        if lost.current is not None:
            await self._core.caches.wait(lost.current.mod_revision)
        else:
            await self._core.caches.sync()


def _say_the_same(value: bytes, stored: bytes) -> bool:
    return decode(value) == decode(stored)
