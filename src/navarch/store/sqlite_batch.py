"""A batch of commits: what one SQL statement writes, what it makes of the index, and who waits for it.

In: commits in order of arrival, and where the keys stand.  Out: rows, events and standings; or the key for which a
commit has to be refused, which leaves the batch as it was. On the event loop, without a read from disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from navarch.store.base import Delete, Event, Put
from navarch.store.sqlite_file import Standing, first_position
from navarch.world import Clock


class Waiting(NamedTuple):
    ops: Sequence[Put | Delete]
    done: asyncio.Future[int]


class Refused(NamedTuple):
    """A commit whose precondition on `key` does not hold."""

    key: str
    done: asyncio.Future[int]


class Batch:
    """`index` is what it makes of the store's (None: the key goes)."""

    __slots__ = ("_before", "acknowledged", "events", "expiring", "index", "refused", "rows")

    def __init__(self, before: Mapping[str, Standing]) -> None:
        self._before = before
        self.rows: list[Any] = []
        self.events: list[Event] = []
        self.index: dict[str, Standing | None] = {}
        self.expiring: list[tuple[str, int, float]] = []
        self.acknowledged: list[tuple[asyncio.Future[int], int]] = []
        self.refused: list[Refused] = []

    def _standing(self, key: str) -> Standing | None:
        """Where the key stands once the batch is written as it is now."""
        return self.index[key] if key in self.index else self._before.get(key)

    def refusal_of(self, ops: Sequence[Put | Delete]) -> str | None:
        """The first key whose precondition does not hold."""
        for op in ops:
            known = self._standing(op.key)
            if op.expected is not None and op.expected != (known.mod if known else 0):
                return op.key
            if known is None and isinstance(op, Delete):
                return op.key
        return None

    def add(self, waiting: Waiting, revision: int, clock: Clock) -> None:
        position = first_position(revision)
        for op in waiting.ops:
            key = op.key
            known = self._standing(key)
            create = known.create if known else revision
            value = expires = None
            if isinstance(op, Put):
                value = op.value
                if op.ttl_s is not None:
                    expires = clock.now().timestamp() + op.ttl_s
                    self.expiring.append((key, revision, expires))
            self.index[key] = None if value is None else Standing(create, position)
            self.rows += (position, key, value, create, known.position if known else 0, expires)
            self.events.append(Event(key, value, revision, 0 if value is None else create))
            position += 1
        self.acknowledged.append((waiting.done, revision))
