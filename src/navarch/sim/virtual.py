"""Virtual time: an event loop whose time jumps to the next timer, and the world that goes with it.

`run(main, seed=…)` calls `main(world)` on such a loop. Whatever is ready is worked off while time stands still; when
nothing is left to do, time is that of the next timer: an hour of a cluster takes as long as its work takes. All order
comes from the program and the seed, so the same run gives the same bytes, in another process too:

- no sockets, pipes or processes: their answers come when they come. `exact=False` allows them; time then jumps while
  they are on their way.
- what would go to a thread is called in its place (`run_in_executor`, `asyncio.to_thread`, `World.in_thread`).
- tasks are numbered, and sets of tasks (task groups, `asyncio.wait`) are gone through by number, not by address.
- if nothing is ready and no timer is set, nothing can happen any more: `StandStill` names who waits for it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from contextvars import Context
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, ParamSpec, TypeVar

from navarch.world import Streams

P = ParamSpec("P")
T = TypeVar("T")

_NO_PLACE = "sockets, pipes and processes have no place in virtual time (exact=False allows them)"

START = datetime(2026, 1, 1, tzinfo=UTC)


class StandStill(RuntimeError):
    """Nothing is ready, nothing is scheduled: virtual time has no next moment."""


class VirtualWorld:
    """The world of a `VirtualLoop`: its time counted from `start`, and streams that repeat with the seed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int = 0, *, start: datetime = START) -> None:
        self._loop = loop
        self._start = start
        self._streams = Streams(seed)
        self._identities = Streams(seed, "identities")

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        return self._loop.time()

    def random(self, component: str, name: str = "") -> Random:
        return self._streams.of(component, name)

    def identities(self, component: str, name: str = "") -> Random:
        return self._identities.of(component, name)

    def incarnate(self, revision: int) -> None:
        if revision > 0:
            self._identities = self._identities.salted(f"identities from {revision}")

    async def in_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    async def in_own_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0."""

    def __init__(self, *, exact: bool = True) -> None:
        self._moment_us = 0
        self._exact = exact
        self._timers = itertools.count()
        super().__init__(_JumpingSelector(self, exact))
        numbers = itertools.count()

        def make(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T], **more: Any) -> _NumberedTask[T]:
            return _NumberedTask(work, loop=loop, number=next(numbers), **more)

        self.set_task_factory(make)  # type: ignore[arg-type]

    def time(self) -> float:
        return self._moment_us / 1e6

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        # Whole microseconds, upwards: asyncio fires timers that are due within its clock's resolution, and whoever
        # then finds that its own moment has not come waits for it again, for ever if time does not pass meanwhile.
        moment_us = round(when * 1e6)
        if moment_us / 1e6 < when:
            moment_us += 1
        timer = _Timer(moment_us / 1e6, callback, args, self, context)
        timer.number = next(self._timers)
        # As `call_at` does, which makes a timer of its own kind.
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        heapq.heappush(scheduled, timer)
        timer._scheduled = True
        return timer

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._moment_us += max(round(seconds * 1e6), 1)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        if not self._exact:
            return super().run_in_executor(executor, func, *args)
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_if_exact()
        return await super().subprocess_exec(*args, **kwargs)

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse_if_exact()
        return await super().subprocess_shell(*args, **kwargs)

    def _refuse_if_exact(self) -> None:
        if self._exact:
            raise RuntimeError(_NO_PLACE)


class _Timer(asyncio.TimerHandle):
    """Of those that are due at one moment, which real time hardly has two of, the one set first fires first. A heap
    alone would give them an order that changes with whatever else is in it."""

    number: int
    _scheduled: bool

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, _Timer):
            return NotImplemented
        return (self.when(), self.number) < (other.when(), other.number)


class _NumberedTask(asyncio.Task[T]):
    """A task that sets order by its number: by its address the order would differ from run to run."""

    def __init__(self, work: Coroutine[Any, Any, T], *, number: int, **more: Any) -> None:
        # Before the base class, which hashes the task as it registers it.
        self._number = number
        super().__init__(work, **more)

    def __hash__(self) -> int:
        return self._number


class _JumpingSelector(selectors.BaseSelector):
    """Asked to wait, it lets virtual time pass instead."""

    def __init__(self, loop: VirtualLoop, exact: bool) -> None:
        self._loop = loop
        self._exact = exact
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self._exact:
            ready = self._real.select(0 if timeout is not None else None)
            if ready:
                return ready
        if timeout is None:
            raise StandStill(_who_waits(self._loop))
        if timeout > 0:
            self._loop.jump(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        # The first is the loop's own, by which signals and threads wake it.
        if self._exact and len(self._real.get_map()) > 0:
            raise RuntimeError(_NO_PLACE)
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def _who_waits(loop: asyncio.AbstractEventLoop) -> str:
    names = sorted(task.get_name() for task in asyncio.all_tasks(loop))
    return f"nothing is scheduled, so nothing can happen any more; waiting: {', '.join(names)}"


def run(
    main: Callable[[VirtualWorld], Awaitable[T]], *, seed: int = 0, start: datetime = START, exact: bool = True
) -> T:
    """Call `main` with a virtual world and return what it returns."""

    async def whole() -> T:
        return await main(VirtualWorld(asyncio.get_running_loop(), seed, start=start))

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(exact=exact)) as runner:
        return runner.run(whole())


@contextmanager
def stamped_logs(world: VirtualWorld, handler: logging.Handler) -> Iterator[None]:
    """Let the records of a handler carry virtual time and nothing that differs from process to process."""
    began_s = world.now().timestamp()

    def stamp(record: logging.LogRecord) -> bool:
        now_s = world.now().timestamp()
        record.created = now_s
        record.msecs = now_s % 1 * 1000
        record.relativeCreated = (now_s - began_s) * 1000
        return True

    handler.addFilter(stamp)
    try:
        yield
    finally:
        handler.removeFilter(stamp)
