"""Graceful node shutdown: when the machine is about to go, its pods end in order, the least important first.

In: logind's word that the machine shuts down, which waits for the lock that is held. Out: pods that ended as Failed,
each within its own grace period and that of its priority's; a node that is not ready and takes no more pods. If the
machine stays after all, so does the node, without those pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from navarch.api.meta import Obj
from navarch.node.config import ShutdownPeriod
from navarch.node.engine.admission import Refusal
from navarch.node.engine.pods import Pods
from navarch.node.engine.worker import PodWorker

log = logging.getLogger(__name__)

_MESSAGE: Final = "Pod was terminated in response to imminent node shutdown."
_CONDITION: Final = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "TerminationByKubelet",
    "message": _MESSAGE,
}
_LOOK_EVERY_S: Final = 0.1
NOT_NOW: Final = Refusal("NodeShutdown", "Pod was rejected as the node is shutting down.")


class Announcer(Protocol):
    """Who knows that the machine is about to go, and waits for locks: `logind.Logind`."""

    def shutdowns(self) -> AsyncIterator[bool]: ...
    async def longest_delay_s(self) -> float: ...
    async def inhibit(self) -> int: ...


Connect = Callable[[], AbstractAsyncContextManager[Announcer]]


def in_order(periods: Iterable[ShutdownPeriod], pods: Iterable[Obj]) -> list[tuple[float, list[Obj]]]:
    """The pods that end together, and how long they have; first those that end first. A pod belongs to the highest
    priority that is not above its own, and where all are, to the lowest. Pure."""
    ascending = sorted(periods)
    groups: list[tuple[float, list[Obj]]] = [(period.seconds, []) for period in ascending]
    for pod in pods:
        priority = int(pod["spec"].get("priority") or 0)
        index = max((i for i, period in enumerate(ascending) if period.priority <= priority), default=0)
        groups[index][1].append(pod)
    return [group for group in groups if group[1]]


class NodeShutdown:
    """`changed` is called when `active` has: the node's status says so."""

    def __init__(
        self, periods: Sequence[ShutdownPeriod], pods: Pods, connect: Connect, changed: Callable[[], None]
    ) -> None:
        self._periods = periods
        self._pods = pods
        self._connect = connect
        self._changed = changed
        self.active = False

    async def run(self) -> None:
        """Follow logind until it goes.  Raises OSError."""
        async with self._connect() as announcer:
            await self._check_delay(announcer)
            lock = await announcer.inhibit()
            try:
                async for leaving in announcer.shutdowns():
                    self._set(leaving)
                    if leaving:
                        await self.end_pods()
                        _let_go(lock)
                        lock = -1
                    elif lock < 0:
                        lock = await announcer.inhibit()
            finally:
                _let_go(lock)

    async def _check_delay(self, announcer: Announcer) -> None:
        wanted_s, given_s = sum(period.seconds for period in self._periods), await announcer.longest_delay_s()
        if wanted_s > given_s:
            log.warning(
                "logind waits %g s before the machine shuts down, pods are to have %g s: set InhibitDelayMaxSec in "
                "logind.conf", given_s, wanted_s,
            )  # fmt: skip

    def _set(self, active: bool) -> None:
        log.info("the machine %s", "shuts down" if active else "does not shut down after all")
        self.active = active
        self._changed()

    async def end_pods(self) -> None:
        """End all pods, one group after the other."""
        workers = {worker.uid: worker for worker in self._pods if worker.takes_room}
        for seconds, pods in in_order(self._periods, [worker.pod for worker in workers.values()]):
            group = [workers[pod["metadata"]["uid"]] for pod in pods]
            for worker in group:
                worker.fail("Terminated", _MESSAGE, [_CONDITION], grace_s=round(seconds))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await _until_ended(group)


async def _until_ended(workers: Sequence[PodWorker]) -> None:
    while any(worker.takes_room for worker in workers):  # noqa: ASYNC110 - once in the life of a machine
        await asyncio.sleep(_LOOK_EVERY_S)


def _let_go(lock: int) -> None:
    if lock >= 0:
        os.close(lock)
