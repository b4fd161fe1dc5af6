"""All watch caches, fed by one watch of the store, and the one revision up to which they are complete.

In: the store.  Out: a `WatchCache` per stored resource, and waiting until a revision has arrived. A consistent read
asks the store for its revision and waits until the caches have it; with an embedded store they nearly always have.

Invariant: `revision` never goes back; every cache contains every event up to it and nothing after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from navarch.api.errors import StatusError, expired, too_large_resource_version
from navarch.api.meta import Obj, Resource
from navarch.apiserver.codec import Codec
from navarch.apiserver.watchcache import WatchCache
from navarch.kinds import resources as r
from navarch.kinds.base import Kind
from navarch.store.base import Entry, Event, Progress, Store, StoreUnavailable

log = logging.getLogger(__name__)

ROOT = "/registry/"
_WAIT_S = 3.0
_TURNS = 2
_RETRY_S = 0.2


class Caches:
    """`run` keeps them up to date until cancelled; `start` returns once they are filled."""

    def __init__(self, store: Store, kinds: Iterable[Kind]) -> None:
        self.store = store
        self.revision = 0
        self._by_prefix: dict[str, WatchCache] = {}
        self._by_resource: dict[tuple[str, str], WatchCache] = {}
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        for kind in kinds:
            if not kind.virtual:
                self.add(kind)

    def add(self, kind: Kind) -> WatchCache:
        """The cache behind a kind; kinds that are stored as another version share that version's."""
        resource = kind.stored_resource
        known = self._by_resource.get((resource.group, resource.plural))
        if known is None:
            codec = Codec(resource)
            known = WatchCache(codec, kind.strategy)
            self._by_prefix[codec.prefix] = known
            self._by_resource[(resource.group, resource.plural)] = known
        self._by_resource[(kind.resource.group, kind.resource.plural)] = known
        return known

    def of(self, resource: Resource) -> WatchCache:
        return self._by_resource[(resource.group, resource.plural)]

    def all(self) -> Iterable[WatchCache]:
        return self._by_prefix.values()

    # Following the store

    async def start(self) -> None:
        await self._fill()
        self._task = asyncio.create_task(self._run(), name="watch-cache")

    @property
    def following(self) -> bool:
        """Whether the caches are being kept up to date."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for cache in self.all():
            for watcher in cache.watchers():
                watcher.close()

    async def _fill(self) -> None:
        page = await self.store.range(ROOT)
        entries: dict[str, list[Entry]] = {prefix: [] for prefix in self._by_prefix}
        for entry in page.entries:
            found = entries.get(_prefix_of(entry.key))
            if found is not None:
                found.append(entry)
        for prefix, cache in self._by_prefix.items():
            cache.load(entries[prefix], page.revision)
        self._advance(page.revision)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except Exception:
                # Whatever it was (Compacted, StoreUnavailable): nobody may go on reading caches that stand still.
                log.exception("the watch caches lost the store; filling them anew")
                await asyncio.sleep(_RETRY_S)
            try:
                await self._fill()
            except StoreUnavailable:
                log.warning("the store cannot be read", exc_info=True)

    async def _follow(self) -> None:
        now = asyncio.get_running_loop().time
        by_prefix = self._by_prefix
        async for event in self.store.watch(ROOT, self.revision):
            if isinstance(event, Progress):
                # Not with each event: those of one commit share a revision, and readers see all of them or none.
                self._advance(event.revision)
                continue
            cache = by_prefix.get(_prefix_of(event.key))
            if cache is not None:
                self._apply(cache, event, now())

    def _apply(self, cache: WatchCache, event: Event, now: float) -> None:
        try:
            cache.apply(event, now)
        except Exception:
            # One undecodable value must not stop the feed of all others.
            log.exception("cannot take in %s at revision %d", event.key, event.revision)

    def _advance(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        if self._waiters:
            still: list[tuple[int, asyncio.Future[None]]] = []
            for wanted, waiter in self._waiters:
                if wanted <= self.revision:
                    if not waiter.done():
                        waiter.set_result(None)
                else:
                    still.append((wanted, waiter))
            self._waiters = still

    # Waiting

    async def wait(self, revision: int, timeout_s: float = _WAIT_S) -> None:
        """Until the caches have `revision`.  Raises StatusError 504 "Too large resource version"."""
        # What is committed but not taken in yet is a turn or two of the loop away, which costs less than a timer.
        for _ in range(_TURNS):
            if revision <= self.revision:
                return
            await asyncio.sleep(0)
        if revision <= self.revision:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (revision, waiter)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            raise too_large_resource_version(revision, self.revision) from None
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    async def sync(self) -> int:
        """Until the caches have everything acknowledged before the call; returns their revision."""
        newest = await self.store.revision()
        if newest > self.revision:
            await self.wait(newest)
        return self.revision

    # For admission and the server's own use

    def trim(self) -> None:
        now = asyncio.get_running_loop().time()
        for cache in self.all():
            cache.trim(now)


# The cluster's own rules, which admission looks at for every object and never changes.
_LOOKED_AT = frozenset({r.LIMIT_RANGES, r.NAMESPACES, r.PRIORITY_CLASSES, r.RUNTIME_CLASSES, r.SERVICE_ACCOUNTS})


class CacheReader:
    """`admission.Reader` over the caches."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        cached = self._caches.of(resource).get(namespace if resource.namespaced else "", name)
        if cached is None:
            return None
        return cached.shared() if resource in _LOOKED_AT else cached.obj()

    def list(self, resource: Resource, namespace: str = "") -> Iterable[Obj]:
        found = self._caches.of(resource).items(namespace)
        return [cached.shared() if resource in _LOOKED_AT else cached.obj() for cached in found]


def _prefix_of(key: str) -> str:
    """`/registry/apps/deployments/` of `/registry/apps/deployments/default/web`."""
    return key[: key.index("/", key.index("/", len(ROOT)) + 1) + 1]


def too_old(revision: int, oldest: int) -> StatusError:
    """A watch from a revision that the ring no longer reaches."""
    return expired(f"too old resource version: {revision} ({oldest})")
