"""All watch caches, fed by one watch of the store, and the one revision up to which they are complete.

In: the store.  Out: a `WatchCache` per stored resource, and waiting until a revision has arrived. A consistent read
asks the store for its revision and waits until the caches have it; with an embedded store they nearly always have.
Resources come and go while the feed runs.

Invariant: `revision` never goes back; every cache contains every event up to it and nothing after. The events of one
commit are taken in without an await between them, so nobody reads half of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Container, Iterable

from navarch.api.errors import StatusError, expired, timeout, too_large_resource_version
from navarch.api.meta import Obj, Resource
from navarch.apiserver.codec import Codec
from navarch.apiserver.watchcache import WatchCache
from navarch.apiserver.watchers import Backlogs
from navarch.kinds import resources as r
from navarch.kinds.base import Kind
from navarch.store.base import Entry, Event, Progress, Store

log = logging.getLogger(__name__)

ROOT = "/registry/"
_WAIT_S = 3.0
_TURNS = 2
_RETRY_S = 0.2
_RETRY_MAX_S = 10.0
_LOAD_ATTEMPTS = 5


class Caches:
    """`run` keeps them up to date until cancelled; `start` returns once they are filled."""

    def __init__(self, store: Store, kinds: Iterable[Kind]) -> None:
        self.store = store
        # What a store wants written again although it says the same: it is encrypted with a key of yesterday.
        self._stale: Container[str] = getattr(store, "stale", ())
        self.backlogs = Backlogs()
        self.revision = 0
        # How often something went wrong, and what is wrong now.
        self.failures = 0
        self.problem = ""
        self._by_prefix: dict[str, WatchCache] = {}
        self._by_resource: dict[tuple[str, str], WatchCache] = {}
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        # Events for resources that are being loaded, until they are.
        self._loading: dict[str, list[Event]] = {}
        self._fills = 0
        for kind in kinds:
            if not kind.virtual:
                self._register(kind)

    def is_stale(self, key: str) -> bool:
        return key in self._stale

    async def add(self, kind: Kind) -> WatchCache:
        """The cache behind a kind, filled, while all others are kept up to date.  Raises StatusError,
        StoreUnavailable."""
        prefix = Codec(kind.stored_resource).prefix
        if self._task is None or prefix in self._by_prefix:
            return self._register(kind)
        if prefix in self._loading:
            raise RuntimeError(f"{prefix} is being loaded already")
        cache = WatchCache(Codec(kind.stored_resource), kind.strategy, self.backlogs)
        try:
            await self._load(prefix, cache)
        finally:
            self._loading.pop(prefix, None)
        self._by_prefix[prefix] = cache
        self._by_resource[_name(kind.stored_resource)] = cache
        return self._register(kind)

    async def _load(self, prefix: str, cache: WatchCache) -> None:
        for _ in range(_LOAD_ATTEMPTS):
            fills = self._fills
            later = self._loading[prefix] = []
            page = await self.store.range(prefix)
            # Not ahead of the others: what it shows then is what the feed has brought, no more.
            await self.sync()
            if self._fills == fills:
                cache.load(page.entries, page.revision)
                now = asyncio.get_running_loop().time()
                for event in later:
                    if event.revision > page.revision:
                        self._apply(cache, event, now)
                return
            # The feed was lost in between, and with it perhaps some of this resource's events.
        raise timeout(f"{prefix} could not be loaded: the store was lost again and again")

    def remove(self, resource: Resource) -> None:
        """Forget a resource: its watches end, its events are left aside. What is stored stays stored."""
        cache = self._by_resource.pop(_name(resource), None)
        if cache is None or cache in self._by_resource.values():
            # Another version is still served from it.
            return
        del self._by_prefix[cache.codec.prefix]
        for watcher in cache.watchers():
            watcher.close()

    def _register(self, kind: Kind) -> WatchCache:
        """Kinds that are stored as another version share that version's cache."""
        resource = kind.stored_resource
        known = self._by_resource.get(_name(resource))
        if known is None:
            codec = Codec(resource)
            known = WatchCache(codec, kind.strategy, self.backlogs)
            self._by_prefix[codec.prefix] = known
            self._by_resource[_name(resource)] = known
        self._by_resource[_name(kind.resource)] = known
        return known

    def of(self, resource: Resource) -> WatchCache:
        return self._by_resource[resource.group, resource.plural]

    def by_resource(self) -> dict[tuple[str, str], WatchCache]:
        """Every cache by group and plural."""
        return dict(self._by_resource)

    def all(self) -> Iterable[WatchCache]:
        return self._by_prefix.values()

    # Following the store

    async def start(self) -> None:
        await self._fill()
        self._task = asyncio.create_task(self._run(), name="watch-cache")

    @property
    def following(self) -> bool:
        """Whether the caches are being kept up to date."""
        return self._task is not None and not self._task.done() and not self.problem

    async def read_again(self) -> None:
        """Fill all anew: what the store could not read it now can. Watches end, since nothing was written."""
        if self._task is None:
            return
        await self._leave_off()
        try:
            await self._fill()
        finally:
            # Also if that failed: it fills them when the store can be read.
            self._task = asyncio.create_task(self._run(), name="watch-cache")

    async def _leave_off(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def stop(self) -> None:
        await self._leave_off()
        for cache in self.all():
            for watcher in cache.watchers():
                watcher.close()

    async def _fill(self) -> None:
        page = await self.store.range(ROOT)
        self._fills += 1
        entries: dict[str, list[Entry]] = {prefix: [] for prefix in self._by_prefix}
        for entry in page.entries:
            found = entries.get(_prefix_of(entry.key))
            if found is not None:
                found.append(entry)
        for prefix, cache in self._by_prefix.items():
            cache.load(entries[prefix], page.revision)
        self._advance(page.revision)

    async def _run(self) -> None:
        delay_s = _RETRY_S
        while True:
            before = self.revision
            try:
                await self._follow()
            except Exception:
                # Whatever it was (Compacted, StoreUnavailable): nobody may go on reading caches that stand still.
                self.failures += 1
                log.exception("the watch caches lost the store; filling them anew")
            if self.revision > before:
                delay_s = _RETRY_S
            while True:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
                try:
                    await self._fill()
                    break
                except Exception as error:
                    self.failures += 1
                    self.problem = str(error)
                    log.exception("the watch caches cannot be filled; trying again in %.1f s", delay_s)
            self.problem = ""

    async def _follow(self) -> None:
        now = asyncio.get_running_loop().time
        async for event in self.store.watch(ROOT, self.revision):
            if isinstance(event, Progress):
                # Not with each event: those of one commit share a revision, and readers see all of them or none.
                self._advance(event.revision)
                continue
            prefix = _prefix_of(event.key)
            cache = self._by_prefix.get(prefix)
            if cache is not None:
                self._apply(cache, event, now())
            elif prefix in self._loading:
                self._loading[prefix].append(event)

    def _apply(self, cache: WatchCache, event: Event, now: float) -> None:
        try:
            cache.apply(event, now)
        except Exception:
            # One undecodable value must not stop the feed of all others.
            self.failures += 1
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

    async def begin(self) -> None:
        """Forget how a new cluster came about: who asks for what was before is told that it is too old, as by a cluster
        that has been there for a while."""
        revision = await self.sync()
        await self.store.compact(revision)
        for cache in self.all():
            cache.begin(revision)

    # For admission and the server's own use

    def rest(self) -> None:
        """Hold no more of the past than somebody may ask for."""
        now = asyncio.get_running_loop().time()
        for cache in self.all():
            cache.rest(now)


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


def _name(resource: Resource) -> tuple[str, str]:
    return resource.group, resource.plural


def _prefix_of(key: str) -> str:
    """`/registry/apps/deployments/` of `/registry/apps/deployments/default/web`."""
    return key[: key.index("/", key.index("/", len(ROOT)) + 1) + 1]


def too_old(revision: int, oldest: int) -> StatusError:
    """A watch from a revision that the ring no longer reaches."""
    return expired(f"too old resource version: {revision} ({oldest})")
