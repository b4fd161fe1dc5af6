"""What waits for each watcher: references to changes, one object per change for all watchers, within one bound for all.

In: changes, from `watchcache`, in revision order.  Out: notices, from which `watching` makes the lines of a stream, so
many at a time as a chunk may have bytes.

While little is sent, who has something to send is woken at once. While much is, all who have are woken together, every
few milliseconds: what has gathered by then is one record of TLS and one system call for each of them.

Who does not keep up is cut off, the slowest first: when a change that still waits for a watcher has left the ring of
recent changes (nobody else remembers it), and when more waits for all watchers of a server together than `limit`.
What was waiting is forgotten at once; the client lists and watches again, as after any watch that ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from navarch.apiserver.changes import ADDED, BOOKMARK, DELETED, MODIFIED, Cached, Change, Notice

Wanted = Callable[[Cached], bool]
# A path and a value, by which a watcher can be found.
Scope = tuple[str, str]

EVERYTHING: Final[Scope] = ("", "")
NAMESPACE: Final = "metadata.namespace"

# References that wait for all watchers together, eight bytes each.
BACKLOG_MAX: Final = 2_000_000
# What is left after some have been cut off.
_AFTER_CUT: Final = 0.75
CHUNK_BYTES: Final = 64 << 10

# So many may be woken at once, and so many a second for a long time: a tenth of a processor. A sixth of that, and it is
# quiet again.
_WAKES_AT_ONCE: Final = 2_000
_WAKES_PER_S: Final = 10_000
_QUIET_PER_S: Final = 1_500
GATHER_S: Final = 0.02
# Woken in one turn of the loop: two milliseconds of sending.
_WOKEN_PER_TURN: Final = 200


class Pace:
    """When watchers are woken."""

    def __init__(self) -> None:
        self._allowance = float(_WAKES_AT_ONCE)
        self._at_s = 0.0
        self._gathered: list[Watcher] = []
        self._beat: asyncio.Handle | None = None

    def wake(self, watcher: Watcher) -> None:
        """The watcher has something to send, which it had not before."""
        if self._beat is not None:
            self._gathered.append(watcher)
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        allowance = self._allowance + (now_s - self._at_s) * _WAKES_PER_S
        self._at_s = now_s
        self._allowance = min(allowance, _WAKES_AT_ONCE) - 1
        if self._allowance >= 0:
            watcher.wake()
            return
        self._gathered.append(watcher)
        self._beat = loop.call_later(GATHER_S, self._wake_gathered)

    def _wake_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        busy = len(gathered) > _QUIET_PER_S * GATHER_S
        loop = asyncio.get_running_loop()
        self._beat = loop.call_later(GATHER_S, self._wake_gathered) if busy else None
        self._wake_some(gathered)

    def _wake_some(self, watchers: list[Watcher], start: int = 0) -> None:
        for watcher in watchers[start : start + _WOKEN_PER_TURN]:
            watcher.wake()
        if start + _WOKEN_PER_TURN < len(watchers):
            asyncio.get_running_loop().call_soon(self._wake_some, watchers, start + _WOKEN_PER_TURN)


class Backlogs:
    """What waits for all of a server's watchers together."""

    def __init__(self, limit: int = BACKLOG_MAX) -> None:
        self.limit = limit
        self.waiting = 0
        self.cut = 0
        self.pace = Pace()
        # In the order in which they came, which decides among those that are equally slow.
        self._watchers: dict[Watcher, None] = {}

    def add(self, watcher: Watcher) -> None:
        self._watchers[watcher] = None

    def discard(self, watcher: Watcher) -> None:
        self._watchers.pop(watcher, None)

    def cut_slowest(self) -> None:
        for watcher in sorted(self._watchers, key=Watcher.backlog, reverse=True):
            if self.waiting <= self.limit * _AFTER_CUT:
                return
            watcher.cut()


class Watcher:
    """One watch: the changes that it still has to send. `wanted` None wants everything in its scope; else it wants
    nothing that does not have one of the values for each of `labels`."""

    __slots__ = ("_backlogs", "_pending", "_waiter", "closed", "labels", "namespace", "scope", "since", "wanted")

    def __init__(
        self,
        scope: Scope,
        wanted: Wanted | None,
        since: int,
        *,
        namespace: str = "",
        labels: Sequence[tuple[str, frozenset[str]]] = (),
    ) -> None:
        self.scope = scope
        self.namespace = namespace
        self.labels = labels
        self.wanted = wanted
        self.since = since
        self.closed = False
        self._backlogs = Backlogs()
        self._pending: list[Notice] = []
        self._waiter: asyncio.Future[None] | None = None

    def join(self, backlogs: Backlogs) -> None:
        self._backlogs = backlogs
        backlogs.add(self)

    def leave(self) -> None:
        """The watch is over, whatever still waits."""
        self.closed = True
        self._forget()
        self._backlogs.discard(self)

    def backlog(self) -> int:
        return len(self._pending)

    def offer(self, change: Change, oldest: int = 0) -> None:
        """Queue the change if its object is, or was, one that this watch shows. Changes up to `oldest` have left the
        ring."""
        if change.revision <= self.since:
            return
        wanted = self.wanted
        if wanted is None:
            type_ = change.type
        else:
            after = change.new is not None and wanted(change.new)
            before = after if change.steady else change.old is not None and wanted(change.old)
            if after:
                type_ = MODIFIED if before else ADDED
            elif before:
                type_ = DELETED
            else:
                return
        if self._pending and self._pending[0].revision <= oldest:
            self.cut()
        else:
            self._push(change.notice(type_))

    def bookmark(self, revision: int) -> None:
        self._push(Notice(BOOKMARK, None, revision))

    def _push(self, notice: Notice) -> None:
        if self.closed:
            return
        pending = self._pending
        pending.append(notice)
        backlogs = self._backlogs
        backlogs.waiting += 1
        if backlogs.waiting > backlogs.limit:
            backlogs.cut_slowest()
        if len(pending) == 1 and self._waiter is not None:
            backlogs.pace.wake(self)

    def close(self) -> None:
        """End the watch after what waits."""
        self.closed = True
        self.wake()

    def cut(self) -> None:
        """End the watch of a reader that is too slow: it is told to start again rather than waited for."""
        if not self.closed:
            self._backlogs.cut += 1
        self._forget()
        self.close()

    def _forget(self) -> None:
        self._backlogs.waiting -= len(self._pending)
        self._pending = []

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self) -> Sequence[Notice]:
        """What has come since the last call, at least one notice but no more than a chunk; nothing when the watch is
        over."""
        while not self._pending and not self.closed:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        pending = self._pending
        size = 0
        for index, notice in enumerate(pending):
            size += notice.size
            if size > CHUNK_BYTES and index:
                taken = pending[:index]
                del pending[:index]
                break
        else:
            taken, self._pending = pending, []
        self._backlogs.waiting -= len(taken)
        return taken
