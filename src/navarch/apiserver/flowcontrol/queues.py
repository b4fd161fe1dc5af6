"""Requests that wait for seats of one priority level, so that no flow keeps another from its turn.

In: requests with their flow and the seats that they need.  Out: futures, done when their request may run. A flow has a
hand of queues, dealt by its hash; a request waits in the one with least work. The next to run comes from the queue that
has got least so far, counted in seats times seconds of a virtual clock that runs slower the more queues there are: fair
queuing, as in Kubernetes' API priority and fairness. What a request takes is guessed when it starts, and put right when
it ends.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import field
from functools import lru_cache
from typing import Final

from navarch.apiserver.flowcontrol.seats import Queuing
from navarch.records import mutable

# What a request is thought to take until it has.
_GUESS_S: Final = 0.003


@mutable(eq=False)
class Waiting:
    """A request that waits; `turn` is done when it may run. It is `out` once it waits no longer, and `runs` if that is
    because it may run."""

    seats: int
    turn: asyncio.Future[None]
    queues: Queues
    queue: Queue
    since_s: float
    out: bool = False
    runs: bool = False


@mutable(eq=False)
class Queue:
    """`start` is where, in virtual time, the service of its next request begins."""

    waiting: deque[Waiting] = field(default_factory=deque)
    running_seats: int = 0
    waiting_seats: int = 0
    start: float = 0.0

    @property
    def is_active(self) -> bool:
        return bool(self.waiting) or self.running_seats > 0


@lru_cache(maxsize=4096)
def hand_of(flow: str, queues: int, size: int) -> tuple[int, ...]:
    """The numbers of the queues of a flow: `size` different ones of `queues`, the same for the same flow."""
    number = int.from_bytes(hashlib.blake2b(flow.encode("utf-8", "surrogateescape"), digest_size=16).digest(), "big")
    left = list(range(queues))
    hand = []
    for _ in range(min(size, queues)):
        number, index = divmod(number, len(left))
        hand.append(left.pop(index))
    return tuple(hand)


class Queues:
    """Those of one level."""

    def __init__(self, config: Queuing) -> None:
        self.config = config
        self._queues = [Queue() for _ in range(config.queues)]
        self._virtual = 0.0
        self._real_s = 0.0
        self._active = 0
        self.length = 0

    def waiting(self) -> Iterator[tuple[int, Waiting]]:
        """Everybody who waits, with the number of their queue."""
        for number, queue in enumerate(self._queues):
            for each in queue.waiting:
                yield number, each

    def add(self, flow: str, seats: int, now_s: float) -> Waiting | None:
        """Wait in one of the flow's queues; None where that is full."""
        hand = hand_of(flow[:256], self.config.queues, self.config.hand_size)
        queue = min((self._queues[number] for number in hand), key=lambda each: each.running_seats + each.waiting_seats)
        if len(queue.waiting) >= self.config.queue_length_limit:
            return None
        if not queue.is_active:
            queue.start = self._virtual
            self._active += 1
        made = Waiting(seats, asyncio.get_running_loop().create_future(), self, queue, now_s)
        queue.waiting.append(made)
        queue.waiting_seats += seats
        self.length += 1
        return made

    def leave(self, waiting: Waiting) -> None:
        """Wait no longer, having had no turn."""
        if not waiting.out:
            waiting.queue.waiting.remove(waiting)
            self._is_out(waiting)
            self._settle(waiting.queue)

    def next(self) -> Waiting | None:
        """Who is next; None where nobody waits."""
        with_requests = (queue for queue in self._queues if queue.waiting)
        queue = min(with_requests, key=lambda each: each.start + each.waiting[0].seats * _GUESS_S, default=None)
        return None if queue is None else queue.waiting[0]

    def begin(self, waiting: Waiting) -> None:
        """Let it run from now on."""
        queue = waiting.queue
        queue.waiting.remove(waiting)
        self._is_out(waiting)
        waiting.runs = True
        if not waiting.turn.done():
            waiting.turn.set_result(None)
        queue.running_seats += waiting.seats
        queue.start += waiting.seats * _GUESS_S

    def end(self, waiting: Waiting, took_s: float) -> None:
        """It has run."""
        queue = waiting.queue
        queue.running_seats -= waiting.seats
        queue.start += waiting.seats * (took_s - _GUESS_S)
        self._settle(queue)

    def advance(self, now_s: float, running_seats: int) -> None:
        """Let virtual time pass: the seats that ran since, divided among the queues that had something to do."""
        if self._active:
            self._virtual += (now_s - self._real_s) * running_seats / self._active
        self._real_s = now_s

    def _is_out(self, waiting: Waiting) -> None:
        waiting.out = True
        waiting.queue.waiting_seats -= waiting.seats
        self.length -= 1

    def _settle(self, queue: Queue) -> None:
        if not queue.is_active:
            self._active -= 1
