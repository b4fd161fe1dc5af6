"""Revisions, compare-and-swap, watch: the seam between the API server and whatever keeps its bytes.

A store maps keys (`/registry/pods/default/web-1`) to values (opaque bytes). Every commit gets the next revision: one
number for the whole store, ever increasing, never reused, also not after a crash. What is acknowledged is durable (the
memory backend apart), and a watcher sees every commit once, in revision order.

Invariants that each backend's tests check: a commit that returns has its revision visible to `get` and `range`; a
commit whose precondition fails changes nothing; `range` at a revision shows the store as it was then, or raises
Compacted; a watch from `since` yields exactly the events with revision > since, or raises Compacted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """A key's value with the revisions of its first and its last write (etcd's create and mod revision)."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int


class Page(NamedTuple):
    """A slice of a range in key order: `revision` is the one it was read at; `more` says that keys follow;
    `remaining` how many (approximate for etcd)."""

    entries: Sequence[Entry]
    revision: int
    more: bool
    remaining: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write `value` under `key` if the key's mod revision is `expected` (0: it must not exist; None: in any case)."""

    key: str
    value: bytes
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `key` if its mod revision is `expected` (None: in any case; the key must exist)."""

    key: str
    expected: int | None = None


class Event(NamedTuple):
    """A commit as watchers see it. `value` is None for a delete; `create_revision` equals `revision` for a create."""

    key: str
    value: bytes | None
    revision: int
    create_revision: int


class Conflict(Exception):
    """A precondition failed; `current` is what the key holds (None: nothing)."""

    def __init__(self, current: Entry | None) -> None:
        super().__init__("precondition failed")
        self.current = current


class Compacted(Exception):
    """The revision asked for is older than what the store still has; `oldest` can be asked for."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revision compacted; the oldest available is {oldest}")
        self.oldest = oldest


class StoreUnavailable(Exception):
    """The store cannot take the write now (disk full, I/O error, no quorum); nothing was written."""


class Store(Protocol):
    """A revisioned key-value store. All methods belong to one event loop; none blocks it."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, key: str) -> Entry | None: ...

    async def range(self, prefix: str, *, revision: int = 0, limit: int = 0, after: str = "") -> Page:
        """Entries whose key starts with `prefix` and is greater than `after`, in key order, as of `revision` (0: now).
        Raises Compacted."""
        ...

    async def commit(self, op: Put | Delete) -> int:
        """Apply one operation durably and return its revision.  Raises Conflict, StoreUnavailable."""
        ...

    def watch(self, prefix: str, since: int) -> AsyncIterator[Event]:
        """Events under `prefix` with a revision greater than `since`, past ones first.  Raises Compacted."""
        ...

    async def revision(self) -> int:
        """The store's newest revision, linearizable: no commit acknowledged before the call has a greater one."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`; current values stay."""
        ...
