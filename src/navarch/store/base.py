"""Revisions, compare-and-swap, watch: the seam between the API server and whatever keeps its bytes.

A store maps keys (`/registry/pods/default/web-1`) to values (opaque bytes). Every commit is a transaction of one or
more operations, all or none, and gets the next revision: one number for the whole store, ever increasing, never reused,
also not after a crash. What is acknowledged is durable (the memory backend apart), and a watcher sees every commit
once, in revision order. Others may write at any time: no method assumes that this process is the only writer.

Invariants that each backend's tests check: a commit that returns has its revision visible to `get` and `range`; one of
which any precondition fails changes nothing; its operations share one revision; `range` at a revision shows the store
as it was then, or raises Compacted; a watch from `since` yields exactly the events with revision > since, or raises
Compacted, and says how far it is complete.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple, Protocol

from navarch.records import frozen

# How many operations one commit may have: in etcd as it is by default (`--max-txn-ops`), and in the stores that have no
# such limit, where this keeps one commit from holding up all others.
ETCD_MAX_OPS: Final = 128
MAX_OPS: Final = 3000


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


@frozen
class Put:
    """Write `value` under `key` if the key's mod revision is `expected` (0: it must not exist; None: in any case).
    With `ttl_s` the key is deleted about that many seconds later, unless it is written again before."""

    key: str
    value: bytes
    expected: int | None = None
    ttl_s: float | None = None


@frozen
class Delete:
    """Remove `key` if its mod revision is `expected` (None: in any case; the key must exist)."""

    key: str
    expected: int | None = None


class Event(NamedTuple):
    """What a commit did to one key. `value` is None for a delete (and `create_revision` 0); `create_revision` equals
    `revision` for a create. Events of one commit share their revision and come one behind the other."""

    key: str
    value: bytes | None
    revision: int
    create_revision: int


class Progress(NamedTuple):
    """A watch's word that it has yielded every event up to `revision`, whether or not there were any."""

    revision: int


class Conflict(Exception):
    """A precondition failed: that of `key`, which holds `current` (None: nothing)."""

    def __init__(self, current: Entry | None, key: str = "") -> None:
        super().__init__(f"precondition failed for {key}" if key else "precondition failed")
        self.current = current
        self.key = key


class Compacted(Exception):
    """The revision asked for is older than what the store still has; `oldest` can be asked for."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"revision compacted; the oldest available is {oldest}")
        self.oldest = oldest


class StoreUnavailable(Exception):
    """The store cannot serve now (disk full, I/O error, no quorum). A write that ends so has, as a rule, not happened;
    where the store itself cannot know (a connection lost on the way), watchers tell."""


class Lost(StoreUnavailable):
    """What is stored is not what it was when this cluster last ran; the message says what is known of it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}. Put the files back from a backup; or go on with what is left, and lose the rest: "
            "`navarch up --accept-loss`"
        )


class TooLarge(Exception):
    """The store takes no commit of this size, now or later."""


class Store(Protocol):
    """A revisioned key-value store. All methods belong to one event loop; none blocks it."""

    @property
    def max_ops(self) -> int:
        """How many operations one commit may have."""
        ...

    async def open(self) -> None:
        """Raises StoreUnavailable."""
        ...

    async def close(self) -> None: ...

    async def get(self, key: str) -> Entry | None: ...

    async def range(self, prefix: str, *, revision: int = 0, limit: int = 0, after: str = "") -> Page:
        """Entries whose key starts with `prefix` and is greater than `after`, in key order, as of `revision` (0: now).
        Raises Compacted."""
        ...

    async def commit(self, ops: Sequence[Put | Delete]) -> int:
        """Apply the operations durably, all or none, and return their common revision. Each key occurs once, and there
        are no more than `max_ops`. What was begun is finished: a caller that is cancelled meanwhile still gets the
        outcome, and the cancellation at its next await.  Raises Conflict, TooLarge, StoreUnavailable."""
        ...

    def watch(self, prefix: str, since: int) -> AsyncIterator[Event | Progress]:
        """Events under `prefix` with a revision greater than `since`, past ones first. A Progress follows the events of
        a commit, and one of at least N follows soon after `revision()` has returned N, whatever was written elsewhere.
        Raises Compacted, StoreUnavailable."""
        ...

    async def revision(self) -> int:
        """The store's newest revision, linearizable: no commit acknowledged before the call has a greater one."""
        ...

    def known_revision(self) -> int | None:
        """What `revision` would say, where the store can tell without asking anybody; else None."""
        ...

    async def check(self) -> None:
        """Raises StoreUnavailable where the store would take no write now."""
        ...

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`; current values stay."""
        ...

    async def crowded(self) -> bool:
        """Whether history takes so much room that it should be forgotten sooner than usual."""
        ...

    async def expire(self) -> int:
        """Delete the keys whose time is over, where the backend does not do that by itself; returns how many."""
        ...


def check_ops(ops: Sequence[Put | Delete], most: int = MAX_OPS) -> None:
    """What every backend refuses.  Raises ValueError."""
    if len(ops) == 1:
        return
    if not 0 < len(ops) <= most:
        raise ValueError(f"a commit has 1 to {most} operations, not {len(ops)}")
    if len({op.key for op in ops}) < len(ops):
        raise ValueError("a commit names each key once")
