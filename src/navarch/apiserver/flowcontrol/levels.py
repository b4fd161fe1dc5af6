"""One priority level at work: who runs, who waits, who is turned away.

Invariant: what `begin` or `wait` let in is ended by exactly one `leave`; the seats that run are at most the level's
limit, but for a single request that needs more than there are. An exempt level only counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from navarch.api.errors import StatusError, TextError
from navarch.apiserver.flowcontrol.queues import Queues, Waiting
from navarch.apiserver.flowcontrol.seats import Demand, LevelConfig
from navarch.records import mutable

# A quarter of the minute that a request has.
WAIT_S: Final = 15.0
RETRY_AFTER_S: Final = 1
_TOO_MANY: Final = "Too many requests, please try again later."


@mutable
class Counts:
    """What has become of the requests of one flow schema at one level."""

    dispatched: int = 0
    waited: int = 0
    waited_s: float = 0.0
    rejected_full: int = 0
    rejected_limit: int = 0
    rejected_late: int = 0


@mutable
class Running:
    """One request that runs; `waited` where it had to."""

    seats: int
    began_s: float
    waited: Waiting | None = None


EXEMPT: Final = Running(1, 0.0)


class Level:
    """`limit` is how many seats may run at a time; changed from outside, by `set_limit`."""

    def __init__(self, config: LevelConfig, limit: int, monotonic: Callable[[], float]) -> None:
        self.config = config
        self.limit = limit
        self.demand = Demand()
        self.running = 0
        self.running_seats = 0
        self.queues: Queues | None = None
        self._monotonic = monotonic
        self.configure(config)

    def configure(self, config: LevelConfig) -> None:
        """Go on as `config` says; whoever waits in queues that are no longer there runs at once."""
        before, self.config = self.queues, config
        if before is not None and before.config == config.queuing:
            return
        self.queues = None if config.queuing is None else Queues(config.queuing)
        if before is not None:
            for _, waiting in list(before.waiting()):
                before.begin(waiting)
                self._run(waiting.seats)

    def set_limit(self, limit: int) -> None:
        self.limit = limit
        self._dispatch()

    def begin(self, seats: int, counts: Counts) -> Running | None:
        """Run at once, if that can be. Otherwise `wait`."""
        if self.config.exempt:
            # One seat each, and no book is kept of when: these are most requests of small clusters.
            counts.dispatched += 1
            self.running += 1
            self.running_seats += 1
            if self.running > self.demand.highest:
                self.demand.highest = self.running
            return EXEMPT
        if (self.queues is not None and self.queues.length) or not self._fits(seats):
            return None
        now_s = self._monotonic()
        self.demand.change(seats, now_s)
        self.running += 1
        self.running_seats += seats
        counts.dispatched += 1
        return Running(seats, now_s)

    async def wait(self, flow: str, seats: int, counts: Counts) -> Running:
        """Run when it is this request's turn.  Raises StatusError 429."""
        now_s = self._monotonic()
        self.demand.change(seats, now_s)
        try:
            running = await self._in_turn(flow, seats, now_s, counts)
        except BaseException:
            self.demand.change(-seats, self._monotonic())
            raise
        counts.dispatched += 1
        counts.waited += 1
        counts.waited_s += running.began_s - now_s
        return running

    def leave(self, running: Running) -> None:
        """A request has ended, in whatever way."""
        if running is EXEMPT:
            self.running -= 1
            self.running_seats -= 1
            return
        now_s = self._monotonic()
        self.demand.change(-running.seats, now_s)
        queues, waited = self.queues, running.waited
        if queues is not None:
            queues.advance(now_s, self.running_seats)
        self.running -= 1
        self.running_seats -= running.seats
        if waited is not None:
            waited.queues.end(waited, now_s - running.began_s)
        self._dispatch()

    def _fits(self, seats: int) -> bool:
        # One that needs more than there are at all runs alone.
        return self.running_seats + seats <= self.limit or self.running_seats == 0

    def _run(self, seats: int) -> None:
        self.running += 1
        self.running_seats += seats

    async def _in_turn(self, flow: str, seats: int, now_s: float, counts: Counts) -> Running:
        queues = self.queues
        if queues is None:
            counts.rejected_limit += 1
            raise too_many()
        queues.advance(now_s, self.running_seats)
        waiting = queues.add(flow, seats, now_s)
        if waiting is None:
            counts.rejected_full += 1
            raise too_many()
        self._dispatch()
        try:
            async with asyncio.timeout(WAIT_S):
                await waiting.turn
        except BaseException as error:
            queues.leave(waiting)
            if waiting.runs:
                # Its turn came in the very moment.
                self.running -= 1
                self.running_seats -= waiting.seats
                queues.end(waiting, 0.0)
                self._dispatch()
            if isinstance(error, TimeoutError):
                counts.rejected_late += 1
                raise too_many() from None
            raise
        return Running(seats, self._monotonic(), waiting)

    def _dispatch(self) -> None:
        """Let run who may."""
        queues = self.queues
        if queues is None or not queues.length:
            return
        while (waiting := queues.next()) is not None and self._fits(waiting.seats):
            if waiting.turn.done():
                # Its client has gone, and its task has yet to say so.
                queues.leave(waiting)
                continue
            queues.begin(waiting)
            self._run(waiting.seats)


def too_many() -> StatusError:
    """What Kubernetes says to whom it turns away."""
    return TextError(429, "TooManyRequests", _TOO_MANY, headers={"Retry-After": str(RETRY_AFTER_S)})
