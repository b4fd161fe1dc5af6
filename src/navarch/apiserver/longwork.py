"""Work that takes long, done so that everybody else is served meanwhile.

In: work in small steps (an iterator that yields between them).  Out: it is done. An event loop serves nobody while a
function runs, so that a few megabytes of YAML would stop a whole cluster for seconds. Here work goes on for a slice of
a few milliseconds, then lets the loop turn. Several works take turns, one slice in each turn of the loop, so that what
others wait does not grow with their number.

What cannot be divided (`apart`) runs in a thread, if the object that it is about is so big that it takes more than
some milliseconds, or turns out to do so (`attempt`). Python's threads take turns of five milliseconds, so one such work
runs at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, ParamSpec, TypeVar

from navarch.api.patience import TooLongError, impatiently
from navarch.world import World

P = ParamSpec("P")
T = TypeVar("T")

SLICE_S: Final = 0.003
# Bytes of an object about which nothing takes longer than some milliseconds.
SHORT: Final = 16 * 1024


class LongWork:
    """One server's."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turn = asyncio.Lock()
        self._thread = asyncio.Lock()

    async def do(self, steps: Iterator[None]) -> None:
        """Run the steps to their end.  Raises what they raise."""
        while not await self.slice(steps):
            pass

    async def slice(self, steps: Iterator[None]) -> bool:
        """Run the steps for a slice of time; whether that was their end."""
        monotonic = self._world.monotonic
        async with self._turn:
            until = monotonic() + SLICE_S
            for _ in steps:
                if monotonic() >= until:
                    break
            else:
                return True
            # Within the turn, so that the next in line has its slice in another turn of the loop.
            await asyncio.sleep(0)
        return False

    async def turn(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that takes less than a slice, in another turn of the loop than this one."""
        async with self._turn:
            await asyncio.sleep(0)
            return function(*args, **kwargs)

    async def apart(self, size: int, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of an object of `size` bytes that nobody else has: away from the loop if it is big."""
        if size <= SHORT:
            return function(*args, **kwargs)
        async with self._thread:
            return await self._world.in_thread(function, *args, **kwargs)

    async def attempt(self, size: int, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `apart`, of what may take long with a small object, too: it gives up then, and is begun anew in a thread.
        What it had done by then, it does once more."""
        if size <= SHORT:
            try:
                return impatiently(function, *args, **kwargs)
            except TooLongError:
                pass
        async with self._thread:
            return await self._world.in_thread(function, *args, **kwargs)
