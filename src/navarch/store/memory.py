"""The store that lives and dies with its process: tests, simulations, `--store memory`.

Every key keeps its versions since the last compaction, oldest first, so that ranges at a past revision and watches from
one are answered from the same structure. Nothing awaits: a commit is applied and published at once.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from navarch.store.base import MAX_OPS, Compacted, Conflict, Delete, Entry, Event, Page, Progress, Put, check_ops
from navarch.store.expiry import Deadlines
from navarch.store.feed import Feed
from navarch.world import Clock, SystemClock


class _Version(NamedTuple):
    revision: int
    create_revision: int
    value: bytes | None


def _revision_of(version: _Version) -> int:
    return version.revision


class MemoryStore:
    """`history_limit` bounds how many past commits are kept even when nobody calls `compact`."""

    max_ops = MAX_OPS

    def __init__(self, *, history_limit: int = 20_000, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._deadlines = Deadlines()
        self._versions: dict[str, list[_Version]] = {}
        self._keys: list[str] = []
        self._log: deque[Event] = deque()
        self._revision = 0
        self._compacted = 0
        self._history_limit = history_limit
        self._feed = Feed()

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def get(self, key: str) -> Entry | None:
        return self._current(key)

    def _current(self, key: str) -> Entry | None:
        versions = self._versions.get(key)
        if not versions:
            return None
        last = versions[-1]
        return None if last.value is None else Entry(key, last.value, last.create_revision, last.revision)

    async def range(self, prefix: str, *, revision: int = 0, limit: int = 0, after: str = "") -> Page:
        if revision and revision < self._compacted:
            raise Compacted(self._compacted)
        at = revision or self._revision
        keys = self._keys
        index = bisect_right(keys, after) if after > prefix else bisect_left(keys, prefix)
        entries: list[Entry] = []
        remaining = 0
        while index < len(keys) and keys[index].startswith(prefix):
            entry = self._as_of(keys[index], at)
            index += 1
            if entry is None:
                continue
            if limit and len(entries) >= limit:
                remaining += 1
            else:
                entries.append(entry)
        return Page(entries, at, remaining > 0, remaining)

    def _as_of(self, key: str, revision: int) -> Entry | None:
        versions = self._versions[key]
        last = versions[-1]
        if last.revision > revision:
            index = bisect_right(versions, revision, key=_revision_of) - 1
            if index < 0:
                return None
            last = versions[index]
        return None if last.value is None else Entry(key, last.value, last.create_revision, last.revision)

    async def commit(self, ops: Sequence[Put | Delete]) -> int:
        check_ops(ops)
        found = [self._check(op) for op in ops]
        revision = self._revision = self._revision + 1
        events = [self._apply(op, current, revision) for op, current in zip(ops, found, strict=True)]
        self._log.extend(events)
        self._feed.publish(events, revision)
        if len(self._log) > 2 * self._history_limit:
            self._forget(self._log[-self._history_limit].revision)
        return revision

    def _check(self, op: Put | Delete) -> Entry | None:
        current = self._current(op.key)
        if op.expected is not None and op.expected != (current.mod_revision if current else 0):
            raise Conflict(current, op.key)
        if current is None and isinstance(op, Delete):
            raise Conflict(None, op.key)
        return current

    def _apply(self, op: Put | Delete, current: Entry | None, revision: int) -> Event:
        key = op.key
        value = None
        if isinstance(op, Put):
            value = op.value
            if op.ttl_s is not None:
                self._deadlines.add(key, revision, self._clock.now().timestamp() + op.ttl_s)
        create_revision = current.create_revision if current else revision
        version = _Version(revision, create_revision, value)
        versions = self._versions.get(key)
        if versions is None:
            self._versions[key] = [version]
            insort(self._keys, key)
        else:
            versions.append(version)
        return Event(key, value, revision, 0 if value is None else create_revision)

    async def watch(self, prefix: str, since: int) -> AsyncIterator[Event | Progress]:
        if since < self._compacted:
            raise Compacted(self._compacted)
        subscription = self._feed.subscribe(prefix)
        try:
            seen = max(since, self._revision)
            for event in [event for event in self._log if event.revision > since and event.key.startswith(prefix)]:
                yield event
            yield Progress(seen)
            while True:
                events, revision = await subscription.take()
                for event in events:
                    if event.revision > seen:
                        yield event
                yield Progress(revision)
        finally:
            self._feed.unsubscribe(subscription)

    async def revision(self) -> int:
        return self._revision

    def known_revision(self) -> int:
        return self._revision

    async def check(self) -> None:
        return

    async def crowded(self) -> bool:
        # `history_limit` sees to that.
        return False

    async def expire(self) -> int:
        expired = 0
        for key, revision in self._deadlines.over(self._clock.now().timestamp()):
            with contextlib.suppress(Conflict):
                await self.commit((Delete(key, revision),))
                expired += 1
        return expired

    async def compact(self, revision: int) -> None:
        self._forget(min(revision, self._revision))

    def _forget(self, revision: int) -> None:
        if revision <= self._compacted:
            return
        self._compacted = revision
        touched: set[str] = set()
        while self._log and self._log[0].revision <= revision:
            touched.add(self._log.popleft().key)
        for key in touched:
            self._forget_versions(key, revision)

    def _forget_versions(self, key: str, revision: int) -> None:
        """Keep the version that was current at `revision` and everything newer; a tombstone needs no keeping."""
        versions = self._versions[key]
        first = bisect_right(versions, revision, key=_revision_of) - 1
        if first >= 0 and versions[first].value is None:
            first += 1
        if first > 0:
            del versions[:first]
        if not versions:
            del self._versions[key]
            del self._keys[bisect_left(self._keys, key)]
