"""What the API server knows of one stored resource: every object's bytes, a small index, and the recent changes.

In: the store's events, in revision order.  Out: gets, lists and watches without touching the store. An object is held
as the bytes that clients receive (resourceVersion spliced in once) plus what selectors look at; it is decoded again
only for who must change it. Recent changes stay in a ring: it answers watches that start in the past and lists at a
recent revision; what is older is answered with 410 (watch) or from the store's history (list).

Invariant: when `apply` returns, the entries, the ring and every watcher's queue agree on the event's revision.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from navarch.api.errors import unknown_path
from navarch.api.meta import Obj
from navarch.apiserver.changes import Cached, Change
from navarch.apiserver.codec import Codec, canonical, decode, encode_json, exact
from navarch.apiserver.scanning import MANY, scanner
from navarch.apiserver.watchers import Backlogs, Watcher
from navarch.apiserver.watchindex import WatcherIndex
from navarch.kinds.base import Strategy
from navarch.store.base import Entry, Event

log = logging.getLogger(__name__)

RING_MAX: Final = 20_000
RING_MIN: Final = 100
# However big they are: who watches has this much to catch up with.
RING_LEAST: Final = 8
RING_AGE_S: Final = 75.0
# Of what nobody but the ring holds, which is what was replaced.
RING_BYTES: Final = 32 << 20
# Changes in which what was made for watchers is kept, too, which all that are up to date are sent.
WARM_BYTES: Final = 1 << 20

_NO_LABELS: Mapping[str, str] = {}
_NO_FIELDS: Mapping[str, str] = {}


class SortedKeys:
    """The keys in order. A few additions are inserted in place; many wait and are sorted in when next looked at."""

    __slots__ = ("_keys", "_new")

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = sorted(keys)
        self._new: list[str] = []

    def add(self, key: str) -> None:
        self._new.append(key)

    def remove(self, key: str) -> None:
        keys = self._settled()
        del keys[bisect_left(keys, key)]

    def _settled(self) -> list[str]:
        if self._new:
            if len(self._new) < 32:
                for key in self._new:
                    insort(self._keys, key)
            else:
                self._keys += self._new
                self._keys.sort()
            self._new = []
        return self._keys

    def under(self, prefix: str, after: str = "") -> list[str]:
        """The keys that start with `prefix` and are greater than `after`, in order."""
        keys = self._settled()
        low = bisect_left(keys, max(prefix, after))
        if after and low < len(keys) and keys[low] == after:
            low += 1
        return keys[low : bisect_left(keys, prefix[:-1] + chr(ord(prefix[-1]) + 1))]


class WatchCache:
    """The cache of one stored resource; its strategy says which fields selectors may use beyond the name."""

    def __init__(self, codec: Codec, strategy: Strategy, backlogs: Backlogs | None = None) -> None:
        self.codec = codec
        self.backlogs = backlogs if backlogs is not None else Backlogs()
        self.selectable = tuple(strategy.selectable)
        self._selected: Callable[[Obj], Mapping[str, str]] = strategy.selected
        self._looked_at = tuple(strategy.selected_by)
        # Makes what was stored what the schema says now, where that may have changed since: defaults, for the most.
        self.settle: Callable[[Obj], bool] | None = None
        # What the two above were made for.
        self.fitted_for: tuple[object, ...] = ()
        self.listeners: list[Callable[[Change], None]] = []
        self.events_total = 0
        # Its resource is served no more: what is being written is refused, what is being watched ends.
        self.closed = False
        self._settled: asyncio.Future[None] | None = None
        # Whether there are bytes in another version than the one that is stored now.
        self.mixed = False
        # Why, by key.
        self.undecodable: dict[str, str] = {}
        self._entries: dict[str, Cached] = {}
        self._keys = SortedKeys()
        self._ring: deque[Change] = deque()
        self._ring_bytes = 0
        # The newest of the ring.
        self._warm: deque[Change] = deque()
        self._warm_bytes = 0
        # Changes with a greater revision than this are all in the ring.
        self.oldest = 0
        self.last_change = 0
        self._watchers = WatcherIndex()
        self._hints: dict[str, tuple[bytes, Mapping[str, str], Mapping[str, str]]] = {}

    def labels_of(self, name: str) -> Mapping[str, str] | None:
        """Of an object without a namespace; None where there is none."""
        cached = self.get("", name)
        return None if cached is None else cached.labels

    def __len__(self) -> int:
        return len(self._entries)

    def why_unreadable(self, namespace: str, name: str) -> str:
        """What is wrong with the stored value of an object that `get` does not find; empty where there is none."""
        key = self.codec.key(namespace, name)
        why = self.undecodable.get(key)
        return f"the stored value of {key} cannot be decoded: {why}" if why else ""

    # Filling

    def load(self, entries: Sequence[Entry], revision: int) -> None:
        """Start from what the store has at `revision`; watchers there were cannot go on."""
        for watcher in self.watchers():
            watcher.close()
        self._watchers.clear()
        self._forget_changes()
        self._hints.clear()
        before = self._entries
        self.undecodable.clear()
        self.mixed = False
        plain = len(entries) < MANY or self.settle is not None
        read = decode if plain else scanner((*self.selectable, *self._looked_at))
        found = ((one.key, self._readable(one.key, one.value, one.mod_revision, None, read)) for one in entries)
        self._entries = {key: cached for key, cached in found if cached is not None}
        self._keys = SortedKeys(self._entries)
        self.oldest = self.last_change = revision
        for key in {**before, **self._entries} if self.listeners else ():
            old, new = before.get(key), self._entries.get(key)
            if (old.revision if old else 0) != (new.revision if new else 0):
                for listener in self.listeners:
                    listener(Change(self.codec, key, revision, old, new, 0.0))

    def begin(self, revision: int) -> None:
        """Nobody has seen anything before this revision: no watch and no list goes back further."""
        self._forget_changes()
        self.oldest, self.last_change = max(self.oldest, revision), max(self.last_change, revision)

    def expect(self, key: str, value: bytes, obj: Obj) -> None:
        """Tell what a value about to be committed will index as, which saves decoding it when its event arrives.
        Raises StatusError 404 where the resource is served no more."""
        if self.closed:
            raise unknown_path()
        self._hints[key] = (value, obj["metadata"].get("labels") or _NO_LABELS, self.fields_of(obj))

    def forget(self, key: str, value: bytes) -> None:
        """The value was not committed after all (or nobody waits to know)."""
        hint = self._hints.get(key)
        if hint is not None and hint[0] is value:
            del self._hints[key]
            self._settle()

    # The end, and changes of the index

    def close(self) -> None:
        """The resource is served no more."""
        self.closed = True
        for watcher in self.watchers():
            watcher.close()

    async def settled(self) -> None:
        """Until no write is under way any more; after `close`."""
        while self._hints:
            self._settled = asyncio.get_running_loop().create_future()
            await self._settled

    def _settle(self) -> None:
        if self._settled is not None and not self._settled.done() and not self._hints:
            self._settled.set_result(None)

    def refitted(
        self,
        selectable: Sequence[str],
        selected: Callable[[Obj], Mapping[str, str]],
        settle: Callable[[Obj], bool] | None,
    ) -> Iterator[None]:
        """Index by other fields, and show objects as another schema has them, in steps between which the cache is used
        as before; watches there end, since what they look at is not what they looked at."""
        made: dict[str, tuple[Cached, Mapping[str, str], bytes]] = {}
        self.settle = settle
        while True:
            todo = [cached for cached in self._entries.values() if made.get(cached.key, (None,))[0] is not cached]
            if not todo:
                break
            for cached in todo:
                obj = decode(cached.data)
                data = exact(encode_json(obj)) if settle is not None and settle(obj) else cached.data
                made[cached.key] = (cached, selected(obj), data)
                yield
        self.selectable, self._selected = tuple(selectable), selected
        for cached, fields, data in made.values():
            cached.fields = fields
            if data is not cached.data:
                cached.data, cached.kept = data, None
        # What is being written was looked at with the old fields.
        self._hints = dict.fromkeys(self._hints, (b"", _NO_LABELS, _NO_FIELDS))
        self._forget_changes()
        self.oldest = max(self.oldest, self.last_change)
        for watcher in self.watchers():
            watcher.close()

    def fields_of(self, obj: Obj) -> Mapping[str, str]:
        if not self.selectable:
            return _NO_FIELDS
        return self._selected(obj)

    def _cached(
        self, key: str, value: bytes, revision: int, old: Cached | None, read: Callable[[bytes], Obj] = decode
    ) -> Cached:
        if not value.startswith(self.codec.head):
            value = canonical(value)
            self.mixed = self.mixed or not value.startswith(self.codec.head)
        data = self.codec.stamp(value, revision)
        hint = self._hints.pop(key, None)
        if self.closed:
            self._settle()
        if hint is not None and hint[0] is value:
            _, labels, fields = hint
        else:
            obj = read(value)
            if self.settle is not None and self.settle(obj):
                data = self.codec.stamp(exact(encode_json(obj)), revision)
            labels, fields = obj["metadata"].get("labels") or _NO_LABELS, self.fields_of(obj)
        if old is None:
            namespace, name = key[len(self.codec.prefix) :].split("/", 1)
            return Cached(key, sys.intern(namespace), name, revision, data, labels, fields)
        # What an object is called and how it is found is held once for all its versions.
        return Cached(
            old.key,
            old.namespace,
            old.name,
            revision,
            data,
            old.labels if old.labels == labels else labels,
            old.fields if old.fields == fields else fields,
        )

    def _readable(
        self, key: str, value: bytes, revision: int, old: Cached | None, read: Callable[[bytes], Obj] = decode
    ) -> Cached | None:
        """None for a value that cannot be decoded: what it was is in the log, and that it is so in `undecodable`."""
        try:
            return self._cached(key, value, revision, old, read)
        except Exception as error:
            self.undecodable[key] = f"{type(error).__name__}: {error}"
            log.exception("the stored value of %s (revision %d) cannot be decoded", key, revision)
            return None

    def apply(self, event: Event, now: float) -> None:
        """Take in one store event and hand it to the watchers that may want it. To them an object whose value cannot
        be decoded is gone: nobody goes on with what it was before."""
        key = event.key
        old = self._entries.get(key)
        if self.undecodable:
            self.undecodable.pop(key, None)
        new = None if event.value is None else self._readable(key, event.value, event.revision, old)
        if new is None:
            if old is None:
                return
            del self._entries[key]
            self._keys.remove(key)
        else:
            self._entries[key] = new
            if old is None:
                self._keys.add(key)
        change = Change(self.codec, key, event.revision, old, new, now)
        self._ring.append(change)
        self._ring_bytes += change.held
        self._warm.append(change)
        self._warm_bytes += change.size
        if self._warm_bytes > WARM_BYTES:
            self._cool(WARM_BYTES)
        self.last_change = event.revision
        self.events_total += 1
        self._dispatch(change)
        for listener in self.listeners:
            listener(change)
        if len(self._ring) > RING_MIN or self._ring_bytes > RING_BYTES:
            self.trim(now)

    def _cool(self, limit: int) -> None:
        warm = self._warm
        while warm and self._warm_bytes > limit:
            cooled = warm.popleft()
            cooled.cool()
            self._warm_bytes -= cooled.size

    def _forget_changes(self) -> None:
        self._cool(0)
        for change in self._ring:
            change.release()
        self._ring.clear()
        self._ring_bytes = 0

    def rest(self, now: float) -> None:
        """Hold no more than somebody may ask for: what is done now and then, whether there are changes or not."""
        self.trim(now)
        self._cool(0)

    def trim(self, now: float) -> None:
        """Drop changes that are too old or too many."""
        ring = self._ring
        while (
            len(ring) > RING_MAX
            or (len(ring) > RING_MIN and ring[0].time < now - RING_AGE_S)
            or (len(ring) > RING_LEAST and self._ring_bytes > RING_BYTES)
        ):
            dropped = ring.popleft()
            dropped.release()
            self._ring_bytes -= dropped.held
            self.oldest = dropped.revision

    # Watching

    def _dispatch(self, change: Change) -> None:
        if self._watchers:
            oldest = self.oldest
            for watcher in self._watchers.concerned(change, self.selectable):
                watcher.offer(change, oldest)

    def watch(self, watcher: Watcher) -> None:
        """Start a watch: changes since its revision that are still in the ring, then live ones. The caller has made
        sure that `watcher.since` is not below `oldest`."""
        watcher.join(self.backlogs)
        if self.closed:
            watcher.close()
        if watcher.since < self.last_change:
            for change in self.changes_since(watcher.since):
                if in_scope(change, watcher.scope):
                    watcher.offer(change, self.oldest)
        self._watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        watcher.leave()
        self._watchers.discard(watcher)

    def watchers(self) -> Iterator[Watcher]:
        return iter(self._watchers)

    def changes_since(self, revision: int) -> list[Change]:
        found: list[Change] = []
        for change in reversed(self._ring):
            if change.revision <= revision:
                break
            found.append(change)
        found.reverse()
        return found

    # Reading

    def get(self, namespace: str, name: str) -> Cached | None:
        return self._entries.get(f"{self.codec.prefix}{namespace}/{name}")

    def by_key(self, key: str) -> Cached | None:
        return self._entries.get(key)

    def items(self, namespace: str = "", *, after: str = "") -> list[Cached]:
        """In key order: everything, or one namespace; only keys greater than `after`."""
        if not self._entries:
            # As most caches that admission looks into for each write.
            return []
        prefix = f"{self.codec.prefix}{namespace}/" if namespace else self.codec.prefix
        return list(map(self._entries.__getitem__, self._keys.under(prefix, after)))

    def items_at(self, revision: int, namespace: str = "", *, after: str = "") -> list[Cached] | None:
        """Like `items`, as of a past revision; None where the ring does not go back that far."""
        if revision >= self.last_change:
            return self.items(namespace, after=after)
        if revision < self.oldest:
            return None
        prefix = f"{self.codec.prefix}{namespace}/" if namespace else self.codec.prefix
        then: dict[str, Cached | None] = {}
        for change in reversed(self._ring):
            if change.revision <= revision:
                break
            if change.key.startswith(prefix) and change.key > after:
                then[change.key] = change.old
        keys = self._keys.under(prefix, after)
        gone = [key for key in then if key not in self._entries]
        if gone:
            keys = sorted(keys + gone)
        found = (then[key] if key in then else self._entries[key] for key in keys)
        return [cached for cached in found if cached is not None]

    def from_store(self, entries: Iterable[Entry]) -> list[Cached]:
        """Entries read from the store's history, in the form that this cache keeps."""
        return [self._cached(entry.key, entry.value, entry.mod_revision, None) for entry in entries]


def in_scope(change: Change, scope: tuple[str, str]) -> bool:
    path, value = scope
    if not path:
        return True
    return any(cached is not None and cached.field(path) == value for cached in (change.new, change.old))
