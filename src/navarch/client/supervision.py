"""One policy for errors in loops: whatever a part raises is logged and counted, and after a growing delay it goes on.

No error is known to be harmless, and none may end what keeps a cluster running: a bug in one path costs that path a
while, never the process. What runs beside others belongs to a task group whose tasks are made here.

Nor is every `CancelledError` an order to stop: a call whose connection was closed raises one, too, and what waits
has not been cancelled (`unless_cancelled`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from navarch.api.errors import StatusError

T = TypeVar("T")

log = logging.getLogger(__name__)

FIRST_DELAY_S: Final = 1.0
LAST_DELAY_S: Final = 60.0


class AbandonedError(Exception):
    """What was waited for was cancelled by somebody else."""


def _is_cancelled() -> bool:
    # Not in the frame of who waits: the error's traceback would keep the task, and the task the error, with all that
    # their frames hold, until the cycles are collected.
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def unless_cancelled(work: Awaitable[T]) -> T:
    """What comes of it. Raises AbandonedError where it was cancelled and the task that waits for it was not."""
    try:
        return await work
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        raise AbandonedError("what was waited for was cancelled") from error


class Failures:
    """Counts what was caught, by the kind of error; a kubelet shows it as `kubelet_caught_errors_total`."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, where: str, error: BaseException) -> None:
        """Log an error and count it. What the network or the server said needs no traceback."""
        kind = type(error).__name__
        self.counts[kind] = self.counts.get(kind, 0) + 1
        trace = None if isinstance(error, OSError | StatusError) else error
        log.error("%s: %s: %s", where, kind, error, exc_info=trace)


class Delay:
    """Doubles with every failure, and starts over with a success."""

    def __init__(self, first_s: float = FIRST_DELAY_S, last_s: float = LAST_DELAY_S) -> None:
        self._first_s = first_s
        self._last_s = last_s
        self._next_s = first_s

    def failed(self) -> float:
        """The seconds to wait now."""
        delay_s = self._next_s
        self._next_s = min(delay_s * 2, self._last_s)
        return delay_s

    def succeeded(self) -> None:
        self._next_s = self._first_s


async def until_done(name: str, run: Callable[[], Awaitable[None]], failures: Failures) -> None:
    """Run it, again where it fails, until it returns; one that worked for a while before is run again soon."""
    delay = Delay()
    while True:
        if await _returned(name, run, failures, delay):
            return
        await asyncio.sleep(delay.failed())


async def supervised(name: str, run: Callable[[], Awaitable[None]], failures: Failures) -> None:
    """Run what is to run for ever; where it fails or returns, run it again. Ends only by being cancelled."""
    delay = Delay()
    while True:
        await _returned(name, run, failures, delay)
        await asyncio.sleep(delay.failed())


async def _returned(name: str, run: Callable[[], Awaitable[None]], failures: Failures, delay: Delay) -> bool:
    """Run it once: whether it returned rather than failed."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        await unless_cancelled(run())
        return True
    except Exception as error:
        failures.note(name, error)
        return False
    finally:
        if loop.time() - began_s > LAST_DELAY_S:
            delay.succeeded()
