"""What an API server does on the side, again and again: forgets old history, deletes what has expired, gives memory
back.

Each chore has its own task and pace. Whatever one raises is logged, counted (`navarch_housekeeping_failures_total`) and
retried after a growing delay; it disturbs neither the others nor itself for good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from navarch import heap
from navarch.apiserver.caches import Caches
from navarch.client.supervision import Delay
from navarch.records import frozen
from navarch.world import World

log = logging.getLogger(__name__)

COMPACT_EVERY_S: Final = 300.0
CROWDED_EVERY_S: Final = 20.0
EXPIRE_EVERY_S: Final = 30.0
TRIM_EVERY_S: Final = 20.0
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 60.0


@frozen
class Chore:
    name: str
    every_s: float
    do: Callable[[], Awaitable[object]]


class Housekeeping:
    """Runs its chores from `start` to `stop`."""

    def __init__(self, chores: Sequence[Chore], failed: Callable[[str], None]) -> None:
        self._chores = chores
        self._failed = failed
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep(chore), name=f"chore {chore.name}") for chore in self._chores]

    def add(self, chore: Chore) -> None:
        """One more, while the others run."""
        self._tasks.append(asyncio.create_task(self._keep(chore), name=f"chore {chore.name}"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _keep(self, chore: Chore) -> None:
        delay = Delay(RETRY_S, RETRY_MAX_S)
        pause_s = chore.every_s
        while True:
            await asyncio.sleep(pause_s)
            try:
                await chore.do()
            except Exception:
                self._failed(chore.name)
                pause_s = min(delay.failed(), chore.every_s)
                log.exception("%s failed; trying again in %g s", chore.name, pause_s)
            else:
                delay.succeeded()
                pause_s = chore.every_s


class Compaction:
    """Each turn forgets what was history at the last one, so that nobody loses what he has just read. Between two turns
    lies `pause_s`, or less where the store says that history takes too much room."""

    def __init__(self, caches: Caches, pause_s: float = 0.0) -> None:
        self._caches = caches
        self._before = caches.revision
        self._pause_s = pause_s
        self._last = asyncio.get_running_loop().time()

    async def __call__(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._last < self._pause_s and not await self._caches.store.crowded():
            return
        self._last = now
        self._caches.rest()
        await self._caches.store.compact(self._before)
        self._before = self._caches.revision


class Memory:
    """What recent changes, watchers and long answers took goes back to the system soon after they are gone."""

    def __init__(self, caches: Caches, world: World) -> None:
        self._caches = caches
        self._world = world

    async def __call__(self) -> None:
        self._caches.rest()
        await self._world.in_thread(heap.trim)


def chores_of(caches: Caches, world: World) -> list[Chore]:
    return [
        Chore("compaction", CROWDED_EVERY_S, Compaction(caches, COMPACT_EVERY_S)),
        Chore("memory", TRIM_EVERY_S, Memory(caches, world)),
        Chore("expiry", EXPIRE_EVERY_S, caches.store.expire),
    ]
