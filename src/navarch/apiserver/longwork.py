"""Work that takes long, done so that everybody else is served meanwhile.

In: work in small steps (an iterator that yields between them).  Out: it is done. An event loop serves nobody while a
function runs, so that a few megabytes of YAML would stop a whole cluster for seconds. Here work goes on for a slice of
a few milliseconds, then lets the loop turn. Several works take turns, one slice in each turn of the loop, so that what
others wait does not grow with their number.

No threads: Python's run one at a time, each keeps the others waiting longer than a slice does, and when they are done
is up to the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

SLICE_S = 0.003


class LongWork:
    """One server's; `monotonic` is its world's."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._turn = asyncio.Lock()

    async def do(self, steps: Iterator[None]) -> None:
        """Run the steps to their end.  Raises what they raise."""
        monotonic = self._monotonic
        while True:
            async with self._turn:
                until = monotonic() + SLICE_S
                for _ in steps:
                    if monotonic() >= until:
                        break
                else:
                    return
                # Within the turn, so that the next in line has its slice in another turn of the loop.
                await asyncio.sleep(0)
