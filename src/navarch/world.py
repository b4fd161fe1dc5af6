"""`World`: the one place where time, chance, identity and threads come from, so that a run can be made to repeat.

What a component may know of the world outside the API comes in through one object: the time of day and a clock that
never goes back, streams of random numbers, identifiers, and what to do with a function that would block. `RealWorld` is
the machine's; `navarch.sim.virtual.VirtualWorld` is one where time passes only between events and every run with one
seed is the same. `tools/check_world.py` keeps `datetime.now`, `time`, `random`, `uuid4`, `os.urandom` and `secrets` out
of everything but this module and what makes keys.

Streams are one per component and name: another draw in one place moves nothing elsewhere. Identifiers (uids, suffixes
of names, token ids) have streams of their own, which a server that goes on from stored data salts (`incarnate`): a
restart with the same seed draws none that was given out before.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from random import Random, SystemRandom
from typing import ParamSpec, Protocol, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


class Clock(Protocol):
    """Where the time of day comes from. Sleeping is the event loop's business (`asyncio.sleep`), which a simulator
    replaces together with this."""

    def now(self) -> datetime:
        """The current time, timezone-aware, UTC."""
        ...


class World(Clock, Protocol):
    """Everything that would make two runs differ."""

    def monotonic(self) -> float:
        """Seconds since some moment, never going back: for measuring how long something takes."""
        ...

    def random(self, component: str, name: str = "") -> Random:
        """The stream of one component and name; asked for again, the same stream goes on."""
        ...

    def identities(self, component: str, name: str = "") -> Random:
        """Like `random`, for what must never be the same twice: uids, suffixes of names, token ids. Ask at each use:
        `incarnate` begins these streams anew."""
        ...

    def incarnate(self, revision: int) -> None:
        """Called with the highest revision of the data that is gone on from: identifiers from here on are others than
        those that were drawn up to it."""
        ...

    async def in_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what would keep the event loop from its work."""
        ...

    async def in_own_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what may never return: it takes no other's thread, and the end of the process does not wait for it."""
        ...


class Streams:
    """Random streams by component and name. With a seed each is the same in every run; without, none is, and those of a
    component are one, however many names there are in the course of time."""

    def __init__(self, seed: int | None, salt: str = "") -> None:
        self._seed = seed
        self._salt = salt
        self._made: dict[tuple[str, str], Random] = {}

    def of(self, component: str, name: str = "") -> Random:
        if self._seed is None:
            name = ""
        stream = self._made.get((component, name))
        if stream is None:
            seed = None if self._seed is None else "\0".join((str(self._seed), self._salt, component, name))
            # Asked for by several threads at once, it is one all the same.
            stream = self._made.setdefault((component, name), Random(seed))
        return stream

    def salted(self, salt: str) -> Streams:
        return Streams(self._seed, salt)


class SystemClock:
    """The machine's time of day."""

    # Without a frame of Python: every request asks.
    now = staticmethod(partial(datetime.now, UTC))


class RealWorld:
    """The machine's time and threads; chance repeats where a seed is given. `clock` replaces the time of day alone."""

    def __init__(self, seed: int | None = None, *, clock: Clock | None = None) -> None:
        if clock is not None:
            self.now = clock.now  # type: ignore[method-assign]
        self._streams = Streams(seed)
        self._identities = Streams(seed, "identities")

    # Without a frame of Python: every request asks, for the second twice.
    now = SystemClock.now
    monotonic = staticmethod(time.monotonic)

    def random(self, component: str, name: str = "") -> Random:
        return self._streams.of(component, name)

    def identities(self, component: str, name: str = "") -> Random:
        return self._identities.of(component, name)

    def incarnate(self, revision: int) -> None:
        # Not the revision: a token is issued without a write, and another server may go on from the same one.
        if revision > 0:
            self._identities = self._identities.salted(os.urandom(16).hex())

    async def in_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        # Commands use this module too, and need no event loop.
        import asyncio

        return await asyncio.to_thread(function, *args, **kwargs)

    async def in_own_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        import asyncio
        import threading

        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def tell(error: BaseException | None, value: T | None) -> None:
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(cast(T, value))

        def run() -> None:
            error, value = None, None
            try:
                value = function(*args, **kwargs)
            except BaseException as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(tell, error, value)

        threading.Thread(target=run, name=getattr(function, "__name__", "call"), daemon=True).start()
        return await outcome

    def unpredictable(self) -> Random:
        """What nobody can guess, whatever the seed: against forged answers, and for names beside those of others."""
        return SystemRandom()

    def pause(self, seconds_s: float) -> None:
        """Wait without an event loop, as commands do."""
        time.sleep(seconds_s)


MACHINE = RealWorld()
"""For what is of this machine alone and never simulated: commands, supervision, files and processes on the host."""
