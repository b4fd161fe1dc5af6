"""Stopping: one container, or a whole pod in Kubernetes' order within its grace period.

A container's preStop hook and its own shutdown share the grace period. In a pod all preStop hooks run at once; then the
regular containers stop together, then the sidecars in reverse order of their start, then the sandbox. A later, shorter
grace period replaces a longer one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from navarch.api.meta import Obj
from navarch.client.supervision import Delay, unless_cancelled
from navarch.node import podspec
from navarch.node.engine.observed import ObservedContainer
from navarch.node.engine.plan import Kill
from navarch.node.engine.podprobes import PodProbes
from navarch.node.engine.podstate import PodState
from navarch.node.probes.handlers import Outcome, run_hook
from navarch.node.probes.prober import termination_grace
from navarch.node.runtime.base import NotFound

# What is left to a container whose preStop hook, or those that stop before it, used up the grace period.
_LEAST_GRACE_S: Final = 2
# What takes no longer costs nothing of the grace period.
_MOMENT_S: Final = 0.5


def leaves(error: Exception) -> list[Exception]:
    """The errors of a task group one by one."""
    if isinstance(error, ExceptionGroup):
        return [leaf for one in error.exceptions for leaf in leaves(one)]
    return [error]


class Stopper:
    """Owned by a PodWorker."""

    def __init__(self, worker: PodState, probes: PodProbes) -> None:
        self._worker = worker
        self._probes = probes
        self._killing: set[str] = set()
        self._stopping: asyncio.Task[None] | None = None
        self._deadline_s = 0.0
        self._delay = Delay()

    def kill(self, kill: Kill) -> None:
        """Stop one container of a pod that goes on, beside the worker's turns."""
        if kill.instance.id in self._killing:
            return
        grace_s = podspec.grace_period_s(self._worker.pod)
        state = self._worker.memory.get(kill.container["name"])
        if state is not None and state.doomed_by:
            own = termination_grace(kill.container, state.doomed_by)
            grace_s = grace_s if own is None else own
        task = asyncio.create_task(
            self._kill(kill.container, kill.instance, kill.message, grace_s), name=f"stop {kill.container['name']}"
        )
        self._worker.spawn(task)

    def stop_pod(self, grace_s: int) -> None:
        """Stop everything within `grace_s`, beside the worker's turns; again with less grace shortens it."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + grace_s
        if self._stopping is not None and not self._stopping.done():
            if deadline_s >= self._deadline_s - 0.5:
                return
            self._stopping.cancel()
            self._killing.clear()
        self._deadline_s = deadline_s
        name = f"stop {podspec.quoted(self._worker.pod)}"
        self._stopping = asyncio.create_task(self._stop_or_wait(name, deadline_s), name=name)
        self._worker.spawn(self._stopping)

    async def _stop_or_wait(self, name: str, deadline_s: float) -> None:
        """What cannot be stopped now is tried again by a later turn, which this one's end brings about: not at once."""
        try:
            await unless_cancelled(self._stop_pod(deadline_s))
        except Exception as error:
            problems = leaves(error)
            for problem in problems:
                self._worker.parts.failures.note(name, problem)
            self._worker.event("Warning", "FailedKillPod", f"error killing pod: {problems[0]}")
            await asyncio.sleep(self._delay.failed())
        else:
            self._delay.succeeded()

    async def stop_leftovers(self) -> None:
        """Stop what is left of a sandbox that failed, before a new one is made."""
        running = [instance for instance in self._worker.observed.all() if instance.running]
        for instance in running:
            with contextlib.suppress(NotFound):
                await self._worker.parts.runtime.stop_container(instance.id, _LEAST_GRACE_S)
        await self._stop_sandboxes()

    async def _stop_pod(self, deadline_s: float) -> None:
        worker = self._worker
        running = [instance for instance in worker.observed.all() if instance.running]
        sidecars = [
            container["name"] for container in podspec.init_containers(worker.pod) if podspec.is_sidecar(container)
        ]
        # Who stops when: the later in the list, the earlier.
        turns = [[one for one in running if one.name == name] for name in sidecars]
        turns.append([one for one in running if one.name not in sidecars])
        stopped: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as tasks:
            for turn in reversed(turns):
                earlier = tuple(stopped)
                for instance in turn:
                    work = unless_cancelled(self._stop(instance, deadline_s, earlier))
                    stopped.append(tasks.create_task(work, name=f"stop {instance.name}"))
        await self._stop_sandboxes()

    async def _stop(
        self, instance: ObservedContainer, deadline_s: float, earlier: Sequence[asyncio.Task[None]]
    ) -> None:
        """Stop a container of a pod that ends; `earlier` are those that it stops after, while there is time."""
        loop = asyncio.get_running_loop()
        container = podspec.find_container(self._worker.pod, instance.name) or {"name": instance.name}

        async def its_turn() -> None:
            if earlier:
                await asyncio.wait(earlier, timeout=max(deadline_s - loop.time(), 0))

        grace_s = max(round(deadline_s - loop.time()), 0)
        await self._kill(container, instance, f"Stopping container {instance.name}", grace_s, its_turn)

    async def _stop_sandboxes(self) -> None:
        for sandbox in self._worker.observed.sandboxes:
            with contextlib.suppress(NotFound):
                await self._worker.parts.runtime.stop_sandbox(sandbox.id)

    async def _kill(
        self,
        container: Obj,
        instance: ObservedContainer,
        message: str,
        grace_s: int,
        its_turn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Stop a container within `grace_s`: its hook, then, once `its_turn` has come, the container itself."""
        worker = self._worker
        name = container["name"]
        if instance.id in self._killing:
            return
        self._killing.add(instance.id)
        worker.event("Normal", "Killing", message, name)
        self._probes.stopping(name)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            hook = (container.get("lifecycle") or {}).get("preStop")
            if hook and grace_s > 0:
                await self._pre_stop(container, instance, hook, grace_s)
            if its_turn is not None:
                await its_turn()
            if loop.time() - began_s >= _MOMENT_S:
                grace_s = max(grace_s - round(loop.time() - began_s), _LEAST_GRACE_S)
            with contextlib.suppress(NotFound):
                await worker.parts.runtime.stop_container(instance.id, grace_s)
        finally:
            self._killing.discard(instance.id)

    async def _pre_stop(self, container: Obj, instance: ObservedContainer, hook: Obj, grace_s: int) -> None:
        worker = self._worker
        parts = worker.parts
        try:
            async with asyncio.timeout(grace_s):
                call = run_hook(
                    parts.runtime, parts.caller, worker.pod, container, hook, instance.id, worker.pod_ip(), worker.event
                )
                outcome = await unless_cancelled(call)
        except TimeoutError:
            return
        except Exception as error:
            # The container stops all the same.
            parts.failures.note(f"preStop of {container['name']} in {podspec.quoted(worker.pod)}", error)
            outcome = Outcome(False, str(error))
        if not outcome.ok:
            worker.event("Warning", "FailedPreStopHook", "PreStopHook failed", container["name"])
