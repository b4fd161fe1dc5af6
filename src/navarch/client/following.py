"""`follow()`: keep something outside the cluster in line with objects in it: kernel tables, routes, ports.

In: informers, and `apply`, which reads them and writes the difference. Out: `apply` is called once they have all synced
and after every change since its last call, however many there were. A call that fails is noted and repeated after a
growing delay, so `apply` has to be such that running it twice changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from navarch.api.meta import Obj
from navarch.client.informer import Informer
from navarch.client.supervision import Delay, Failures, supervised

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 30.0


class Applier:
    """Calls `apply` after each `changed()`, with `calm_s` between two calls. `check` is asked every `check_every_s`
    without a change: it says `changed()` where what was written is no longer there."""

    def __init__(
        self,
        name: str,
        apply: Callable[[], Awaitable[None]],
        failures: Failures,
        *,
        calm_s: float = 0.0,
        check: Callable[[], Awaitable[None]] | None = None,
        check_every_s: float | None = None,
    ) -> None:
        self._name = name
        self._apply = apply
        self._failures = failures
        self._calm_s = calm_s
        self._check = check
        self._check_every_s = check_every_s
        self._wake = asyncio.Event()

    def changed(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        delay = Delay(FIRST_RETRY_S, LAST_RETRY_S)
        while True:
            await self._changes()
            self._wake.clear()
            try:
                await self._apply()
            except Exception as error:
                self._failures.note(self._name, error)
                self.changed()
                await asyncio.sleep(delay.failed())
            else:
                delay.succeeded()
                await asyncio.sleep(self._calm_s)

    async def _changes(self) -> None:
        while not self._wake.is_set():
            try:
                async with asyncio.timeout(self._check_every_s):
                    await self._wake.wait()
            except TimeoutError:
                if self._check is None:
                    continue
                try:
                    await self._check()
                except Exception as error:
                    self._failures.note(self._name, error)


async def follow(
    name: str,
    informers: Sequence[Informer],
    apply: Callable[[], Awaitable[None]],
    failures: Failures | None = None,
    *,
    matters: Callable[[Obj, Obj], bool] = lambda _old, _new: True,
    calm_s: float = 0.0,
) -> None:
    """Until cancelled. `matters` says whether the change of an object from one state to another calls for anything."""
    failures = failures or Failures()
    applier = Applier(name, apply, failures, calm_s=calm_s)

    def updated(old: Obj, new: Obj) -> None:
        if matters(old, new):
            applier.changed()

    for informer in informers:
        informer.add_handler(lambda _: applier.changed(), updated, lambda _: applier.changed())
    await run_with(informers, applier, failures)


async def run_with(informers: Sequence[Informer], applier: Applier, failures: Failures) -> None:
    """Run informers, and once they have synced the applier, which begins with one call."""
    async with asyncio.TaskGroup() as tasks:
        for informer in informers:
            what = f"informer {informer.resource.group_resource}"
            tasks.create_task(supervised(what, informer.run, failures), name=what)
        for informer in informers:
            await informer.synced()
        applier.changed()
        await applier.run()
