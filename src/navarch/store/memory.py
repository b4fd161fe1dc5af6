"""The store that lives and dies with its process: tests, simulations, `--store memory`.

Every key keeps its versions since the last compaction, oldest first, so that ranges at a past revision and watches from
one are answered from the same structure. Nothing awaits: a commit is applied and published at once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

from navarch.store.base import Compacted, Conflict, Delete, Entry, Event, Page, Put
from navarch.store.feed import Feed


class _Version(NamedTuple):
    revision: int
    create_revision: int
    value: bytes | None


def _revision_of(version: _Version) -> int:
    return version.revision


class MemoryStore:
    """`history_limit` bounds how many past commits are kept even when nobody calls `compact`."""

    def __init__(self, *, history_limit: int = 20_000) -> None:
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

    async def commit(self, op: Put | Delete) -> int:
        key = op.key
        current = self._current(key)
        if op.expected is not None and op.expected != (current.mod_revision if current else 0):
            raise Conflict(current)
        if isinstance(op, Delete):
            if current is None:
                raise Conflict(None)
            value = None
        else:
            value = op.value
        self._revision += 1
        revision = self._revision
        create_revision = current.create_revision if current else revision
        versions = self._versions.get(key)
        if versions is None:
            self._versions[key] = [_Version(revision, create_revision, value)]
            insort(self._keys, key)
        else:
            versions.append(_Version(revision, create_revision, value))
        event = Event(key, value, revision, create_revision)
        self._log.append(event)
        self._feed.publish((event,))
        if len(self._log) > 2 * self._history_limit:
            self._forget(self._log[-self._history_limit].revision)
        return revision

    async def watch(self, prefix: str, since: int) -> AsyncIterator[Event]:
        if since < self._compacted:
            raise Compacted(self._compacted)
        subscription = self._feed.subscribe(prefix)
        try:
            past = [event for event in self._log if event.revision > since and event.key.startswith(prefix)]
            for event in past:
                yield event
            seen = past[-1].revision if past else since
            while True:
                for event in await subscription.take():
                    if event.revision > seen:
                        yield event
        finally:
            self._feed.unsubscribe(subscription)

    async def revision(self) -> int:
        return self._revision

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
