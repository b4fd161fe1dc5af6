"""Get, list and watch, answered from the watch cache under Kubernetes' resourceVersion rules.

Without a resourceVersion a read is consistent: it shows everything acknowledged before it began. `0` takes what the
cache has; any other is the least that the answer must contain, or with `resourceVersionMatch=Exact` (and on the later
chunks of a list) exactly what it shows. Plain lists are joined from stored bytes; only Tables, metadata-only answers
and versions that are not the stored one are made from decoded objects.
"""

from __future__ import annotations

from typing import Any

from navarch.api.errors import StatusError, bad_request, expired, unexplained
from navarch.apiserver import converted
from navarch.apiserver.caches import Caches
from navarch.apiserver.changes import Cached
from navarch.apiserver.continuing import NOW, ContinueExpired, decode_token, encode_token
from navarch.apiserver.encodings import Encodings
from navarch.apiserver.list_options import EVERYTHING, EXACT, ListOptions, list_options_of, wrong_version
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.selecting import Selection, selection_of
from navarch.apiserver.served import ServedKind
from navarch.apiserver.watchcache import WatchCache
from navarch.client.transport import Request
from navarch.records import mutable
from navarch.store.base import Compacted

_LIST_TOO_OLD = "The resourceVersion for the provided list is too old."


@mutable
class Listed:
    """A list or a chunk of one; `remaining` None where it is not known (selectors)."""

    items: list[Cached]
    revision: int
    token: str = ""
    remaining: int | None = None


class Reading:
    """Reads of any stored resource."""

    def __init__(self, caches: Caches, work: LongWork, encodings: Encodings) -> None:
        self._caches = caches
        self._work = work
        self._encodings = encodings

    async def get(self, kind: ServedKind, namespace: str, name: str, version: str = "") -> Cached:
        """Raises StatusError 404, 500 (for a version that is none), 504."""
        caches, resource = self._caches, kind.resource
        if not version:
            # `sync`, without one more step for each of the many.
            newest = await caches.store.revision()
            if newest > caches.revision:
                await caches.wait(newest)
        elif version != "0":
            if why := wrong_version(version):
                raise unexplained(why)
            await caches.wait(int(version))
        cache = kind.cache
        cached = cache.get(namespace if resource.namespaced else "", name)
        if cached is None:
            raise kind.absent(namespace if resource.namespaced else "", name)
        return cached

    async def items(self, request: Request, kind: ServedKind, namespace: str) -> Listed:
        """Raises StatusError 400, 410, 422, 504."""
        options = list_options_of(request.query) if request.query else EVERYTHING
        selection = selection_of(options, kind, namespace)
        version, limit = options.version, options.limit
        if version == "0" or selection.single:
            # Any version will do; chunks are for reads that must be consistent.
            limit = 0
        if options.token and not selection.single:
            return await self._continue(kind, selection, options, limit)
        if not version:
            revision = await self._caches.sync()
        else:
            if why := wrong_version(version):
                raise bad_request(f"invalid resource version: {why}")
            revision = int(version)
            await self._caches.wait(revision)
            if options.match == EXACT or (limit and not options.match and revision):
                items = await self._items_at(kind, selection, revision, "", expired(_LIST_TOO_OLD))
                return await self._chunk(kind, items, selection, revision, limit)
            revision = self._caches.revision
        return await self._chunk(kind, _scoped(kind.cache, selection, ""), selection, revision, limit)

    async def _continue(self, kind: ServedKind, selection: Selection, options: ListOptions, limit: int) -> Listed:
        revision, start = decode_token(options.token, namespaced=kind.resource.namespaced)
        if options.version and options.version != "0":
            raise bad_request("specifying resource version is not allowed when using continue")
        after = kind.cache.codec.prefix + start
        if revision <= NOW:
            revision = await self._caches.sync()
            items = _scoped(kind.cache, selection, after)
        else:
            await self._caches.wait(revision)
            items = await self._items_at(kind, selection, revision, after, ContinueExpired(start))
        return await self._chunk(kind, items, selection, revision, limit)

    async def _items_at(
        self, kind: ServedKind, selection: Selection, revision: int, after: str, too_old: StatusError
    ) -> list[Cached]:
        """Everything in the scope as it was."""
        cache = kind.cache
        items = cache.items_at(revision, selection.namespace, after=after)
        if items is None:
            prefix = cache.codec.prefix + (f"{selection.namespace}/" if selection.namespace else "")
            try:
                page = await self._caches.store.range(prefix, revision=revision, after=after)
            except Compacted:
                raise too_old from None
            items = cache.from_store(page.entries)
        return items

    async def _chunk(
        self, kind: ServedKind, items: list[Cached], selection: Selection, revision: int, limit: int
    ) -> Listed:
        """What is wanted of the objects in the scope, up to `limit`; as in Kubernetes there is more to come as long as
        objects are left to be looked at."""
        if not limit:
            found = await selection.of(items, self._work)
            if selection.shown is not None:
                found = await converted.wanted_of(self._encodings, kind, selection, found)
            return Listed(found, revision)
        if selection.shown is not None:
            shown, seen = await converted.first_of(self._encodings, kind, selection, items, limit)
        else:
            shown, seen = await selection.first(items, limit, self._work)
        if seen == len(items):
            return Listed(shown, revision)
        last = shown[-1]
        token = encode_token(revision, f"{last.namespace}/{last.name}")
        return Listed(shown, revision, token, None if selection.has_selectors else len(items) - seen)


def _scoped(cache: WatchCache, selection: Selection, after: str) -> list[Cached]:
    """Everything in the scope as it is."""
    if selection.single:
        found = cache.get(selection.namespace, selection.name)
        return [found] if found is not None and found.key > after else []
    return cache.items(selection.namespace, after=after)


def list_metadata(listed: Listed) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": str(listed.revision)}
    if listed.token:
        metadata["continue"] = listed.token
    if listed.remaining is not None:
        metadata["remainingItemCount"] = listed.remaining
    return metadata
