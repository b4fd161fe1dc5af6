"""Writes that are under way happen whatever becomes of who asked for them; so they are waited for.

A client that goes away cancels its request. A commit that was handed in by then is durable a moment later all the same,
and what hangs on its outcome (reservations that are kept or given back, caches) must learn it. So a cancellation that
meets a running commit waits for it: the commit returns or raises as ever, and the cancellation strikes at the caller's
next await.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

_T = TypeVar("_T")


class Outcome(asyncio.Future[_T]):
    """A future that who waits for it cannot cancel: a task that is cancelled meanwhile goes on when it is done."""

    def cancel(self, msg: object = None) -> bool:
        return False


async def settle(outcome: Outcome[_T]) -> _T:
    """The outcome, also for a caller that is cancelled while waiting."""
    try:
        return await outcome
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            # Again, so that it is not swallowed; once only, so that a timeout still recognises it as its own.
            task.uncancel()
            task.cancel()
        return outcome.result()
