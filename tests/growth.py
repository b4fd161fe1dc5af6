"""How much CPU time something takes, told so that the rest of the process has no say in it.

A test process that has run hundreds of tests has a heap that the garbage collector needs a second to walk, threads of
other tests that end late, and a machine that other processes share. So the collector stands still while something is
measured, and what counts is the least of several tries: work that is too much is too much each time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

TRIES = 5
LEAST_S = 0.3  # below this, the clock and the caches say more than the work does


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """What is garbage goes before, and nobody looks for more meanwhile."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def cpu_s(work: Callable[[], object], *, enough_s: float = 0.0, tries: int = TRIES) -> float:
    """The least CPU seconds that `work` took in `tries` turns; the first turn below `enough_s` ends them."""
    least_s = float("inf")
    for _ in range(tries):
        with collector_at_rest():
            began_s = time.process_time()
            work()
            least_s = min(least_s, time.process_time() - began_s)
        if least_s < enough_s:
            break
    return least_s


async def async_cpu_s(work: Callable[[], Awaitable[object]], *, enough_s: float = 0.0, tries: int = TRIES) -> float:
    """As `cpu_s`, of something that is awaited."""
    least_s = float("inf")
    for _ in range(tries):
        with collector_at_rest():
            began_s = time.process_time()
            await work()
            least_s = min(least_s, time.process_time() - began_s)
        if least_s < enough_s:
            break
    return least_s


def grows_with_size(work: Callable[[int], object], size: int, *, never_much_s: float = LEAST_S) -> bool:
    """Whether `work` of `size` takes no more than thirty times what an eighth of it takes: its square would be 64.

    Where small sizes go another, cheaper way, `never_much_s` is what is no sign of anything.
    """
    work(size // 100)
    eighth_s = cpu_s(lambda: work(size // 8), tries=3)
    enough_s = max(30 * eighth_s, never_much_s)
    return cpu_s(lambda: work(size), enough_s=enough_s) < enough_s


async def async_grows_with_size(
    work: Callable[[int], Awaitable[object]], size: int, *, never_much_s: float = LEAST_S
) -> bool:
    """As `grows_with_size`, of something that is awaited."""
    await work(size // 100)
    eighth_s = await async_cpu_s(lambda: work(size // 8), tries=3)
    enough_s = max(30 * eighth_s, never_much_s)
    return await async_cpu_s(lambda: work(size), enough_s=enough_s) < enough_s
