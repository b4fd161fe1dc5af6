"""A pod that starts over as a whole, in its place: the action RestartAllContainers of a container's restart rules.

In: a container that ended as such a rule says. Out: no init or regular container is left in the runtime, so that the
next turn begins with the first init container; the sandbox with its addresses, volumes and devices stay. What runs is
killed at once, without hooks. Level-triggered: the containers that asked for it are removed last, so that a kubelet
that was killed in between goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from navarch.client.supervision import Delay, unless_cancelled
from navarch.node import podspec
from navarch.node.engine.observed import ObservedContainer
from navarch.node.engine.plan import ContainerMemory
from navarch.node.engine.podcleanup import PodCleanup
from navarch.node.engine.podprobes import PodProbes
from navarch.node.engine.podstate import PodState
from navarch.node.engine.restarting import MESSAGE, RESTARTING, restartable, who_asks
from navarch.node.runtime.base import NotFound


class WholeRestart:
    """Owned by a PodWorker."""

    def __init__(self, worker: PodState, probes: PodProbes, cleanup: PodCleanup) -> None:
        self._worker = worker
        self._probes = probes
        self._cleanup = cleanup
        self._task: asyncio.Task[None] | None = None
        self._delay = Delay()

    def is_under_way(self) -> bool:
        """Whether the pod is to start over, or about to: then nothing else is done for it."""
        if self._task is not None and not self._task.done():
            return True
        asking = who_asks(self._worker.pod, self._worker.observed)
        if not asking:
            return False
        name = f"restart {podspec.quoted(self._worker.pod)}"
        self._task = asyncio.create_task(self._restart_or_wait(name, asking), name=name)
        self._worker.spawn(self._task)
        return True

    async def _restart_or_wait(self, name: str, asking: Sequence[ObservedContainer]) -> None:
        """What fails is tried again by the turn that this one's end brings about, and not at once."""
        try:
            await unless_cancelled(self._restart(asking))
        except Exception as error:
            self._worker.parts.failures.note(name, error)
            await asyncio.sleep(self._delay.failed())
        else:
            self._delay.succeeded()

    async def _restart(self, asking: Sequence[ObservedContainer]) -> None:
        names = [container["name"] for container in restartable(self._worker.pod)]
        last = {instance.id for instance in asking}
        instances = [one for name in names for one in self._worker.observed.containers.get(name) or ()]
        async with asyncio.TaskGroup() as tasks:
            for instance in instances:
                if instance.running:
                    tasks.create_task(unless_cancelled(self._kill(instance)), name=f"kill {instance.name}")
        self._note(names)
        for instance in sorted(instances, key=lambda one: one.id in last):
            await self._cleanup.remove_instance(instance)

    async def _kill(self, instance: ObservedContainer) -> None:
        worker = self._worker
        worker.event("Normal", "Killing", f"Stopping container {instance.name}", instance.name)
        self._probes.stopping(instance.name)
        with contextlib.suppress(NotFound):
            await worker.parts.runtime.stop_container(instance.id, 0)

    def _note(self, names: Sequence[str]) -> None:
        """Remember of each container that was made how often it will have been restarted."""
        worker = self._worker
        for name in names:
            latest = worker.observed.latest(name)
            if latest is not None:
                worker.started_over[name] = latest.restart_count + 1
                worker.memory[name] = ContainerMemory(waiting_reason=RESTARTING, waiting_message=MESSAGE)
