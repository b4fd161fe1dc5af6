"""Resizing in place: containers' CPU and memory changed while they run, as the pod's `resize` subresource allows.

First what the pod states is allocated, if the node has room for it: until then the condition PodResizePending says that
it waits (Deferred) or asks for what the node can never give (Infeasible). Then each container is given its new amounts,
or is restarted with them where its resize policy says so; meanwhile, and while that fails, there is
PodResizeInProgress.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, NamedTuple

from navarch.api.meta import Obj
from navarch.kinds.core.resource_lists import limits_of
from navarch.node.engine.admission import INFEASIBLE, Refusal
from navarch.node.engine.allocation import Allocation, resizable
from navarch.node.engine.observed import ObservedContainer
from navarch.node.engine.podstate import PodState
from navarch.node.resources.amounts import container_resources, pod_totals, whole
from navarch.node.runtime.base import NotFound, RuntimeFailure

_ERROR: Final = "Error"
_RETRY: Final = timedelta(seconds=10)
# Whoever takes room from the node says so when it goes; this is for what nobody says.
_LOOK_AGAIN: Final = timedelta(minutes=3)


class _Progress(NamedTuple):
    reason: str = ""
    message: str = ""


class _Change(NamedTuple):
    """A running container that does not have yet what it is allocated."""

    container: Obj
    instance: ObservedContainer
    before: Obj


class Resizer:
    """Owned by a PodWorker."""

    def __init__(self, worker: PodState) -> None:
        self._worker = worker
        place = worker.parts.config.pod_directory(worker.uid) / "resources.json"
        self._allocation = Allocation(worker.pod, place)
        self._pending: Refusal | None = None
        self._progress: _Progress | None = None

    def applied(self, pod: Obj) -> Obj:
        """The pod as it is to be run: with what it is allocated."""
        return self._allocation.applied(pod)

    def record(self, container: Obj, container_id: str) -> None:
        """A container has been made with the resources of its specification."""
        self._allocation.give(container, container_id)

    def given(self, container: Obj) -> Obj:
        """The amounts that a container has now, for its status."""
        latest = self._worker.observed.latest(container["name"])
        given = self._allocation.given(container["name"], latest.id) if latest is not None and latest.running else None
        return given if given is not None else container.get("resources") or {}

    def conditions(self) -> list[Obj]:
        """What the pod's status says of a resize."""
        found: list[Obj] = []
        if self._pending is not None:
            reason, message = self._pending
            found.append({"type": "PodResizePending", "status": "True", "reason": reason, "message": message})
        if self._progress is not None:
            found.append({"type": "PodResizeInProgress", "status": "True", **_told(self._progress)})
        return found

    @property
    def under_way(self) -> bool:
        return self._progress is not None

    @property
    def waits_for_room(self) -> bool:
        return self._pending is not None and self._pending.reason != INFEASIBLE

    def allocate(self) -> None:
        """Allocate what the pod states, if the node has room for it."""
        worker, stated = self._worker, self._worker.stated
        if not self._allocation.differs(stated):
            self._pending = None
            return
        refused = worker.parts.room(stated)
        if refused is None:
            self._pending, self._progress = None, _Progress()
            self._allocation.allocate(stated)
            worker.take(stated)
            worker.event("Normal", "ResizeStarted", _summary("started", stated))
            return
        if refused.reason != INFEASIBLE:
            worker.wake_after(_LOOK_AGAIN)
        if refused != self._pending:
            self._pending = refused
            words = _summary(refused.reason, stated, refused.message)
            worker.event("Warning", f"Resize{refused.reason}", words)

    async def apply(self) -> None:
        """Give every running container what it is allocated."""
        self.allocate()
        changes = list(self._changes())
        if changes and self._progress is None:
            # Begun by an earlier kubelet.
            self._progress = _Progress()
        if self._progress is None:
            return
        if changes:
            try:
                await self._give(changes)
            except RuntimeFailure as error:
                self._failed(str(error))
                return
        if not any(self._unsettled()):
            self._completed()

    def _changes(self) -> Iterator[_Change]:
        for container in resizable(self._worker.pod):
            instance = self._worker.observed.current(container["name"])
            if instance is None or not instance.running:
                continue
            before = self._allocation.given(container["name"], instance.id)
            if before is not None and before != (container.get("resources") or {}):
                yield _Change(container, instance, before)

    def _unsettled(self) -> Iterator[bool]:
        """Whether a container still has other amounts, or has been stopped and will come back with its new ones."""
        yield from (True for _ in self._changes())
        for container in resizable(self._worker.pod):
            instance = self._worker.observed.current(container["name"])
            state = self._worker.memory.get(container["name"])
            if instance is not None and instance.exited and state is not None and state.resized:
                yield True

    async def _give(self, changes: Sequence[_Change]) -> None:
        worker = self._worker
        in_place = [change for change in changes if not _needs_restart(change)]
        await self._refuse_what_is_in_use(in_place)
        before = {change.container["name"]: change.before for change in changes}
        if _memory_limit(_as_before(worker.pod, before)) <= _memory_limit(worker.pod):
            # The pod's own limits make room first, and follow last: in between the sum of its containers must fit.
            await worker.parts.resources.publish(worker.pod)
        for change in changes:
            if _needs_restart(change):
                state = worker.memory[change.container["name"]]
                state.doomed = f"Container {change.container['name']} resize requires restart"
                state.again = state.resized = True
        for change in in_place:
            await self._update(change)
        await worker.parts.resources.publish(worker.pod)

    async def _refuse_what_is_in_use(self, changes: Sequence[_Change]) -> None:
        """Raises RuntimeFailure where a container uses more memory than it would be left: the kernel would kill it."""
        lower = {change.instance.id: change.container for change in changes if _takes_memory(change)}
        if not lower:
            return
        problems = []
        for stats in await self._worker.parts.runtime.stats():
            container = lower.get(stats.id)
            limit = whole(limits_of(container)["memory"]) if container is not None else 0
            if container is not None and stats.memory_used_bytes >= limit:
                problems.append(
                    f'attempting to set container "{container["name"]}" memory limit ({limit}) '
                    f"below current usage ({stats.memory_used_bytes})"
                )
        if problems:
            listed = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise RuntimeFailure(f"cannot decrease memory limits: {listed}")

    async def _update(self, change: _Change) -> None:
        worker = self._worker
        node = worker.parts.node
        wanted = container_resources(
            worker.pod,
            change.container,
            memory_capacity=node.memory_capacity,
            unified=node.unified_cgroups,
            settings=worker.parts.config.cgroups,
            swap_capacity=node.swap_capacity,
        )
        # Zero means "as it is": taking a limit away is said with -1.
        if not wanted.cpu_quota_us:
            wanted = replace(wanted, cpu_period_us=100_000, cpu_quota_us=-1)
        if not wanted.memory_limit_bytes:
            wanted = replace(wanted, memory_limit_bytes=-1)
        try:
            await worker.parts.runtime.update_resources(change.instance.id, wanted)
        except NotFound:
            return
        self.record(change.container, change.instance.id)

    def _failed(self, message: str) -> None:
        worker = self._worker
        now = _Progress(_ERROR, message)
        if now != self._progress:
            self._progress = now
            worker.event("Warning", "ResizeError", _summary("error", worker.pod, message))
        worker.wake_after(_RETRY)

    def _completed(self) -> None:
        worker = self._worker
        self._progress = None
        worker.event("Normal", "ResizeCompleted", _summary("completed", worker.pod))
        # Others may be waiting for what it gave back.
        worker.parts.freed()


def _told(progress: _Progress) -> Obj:
    return {name: value for name, value in progress._asdict().items() if value}


def _summary(what: str, pod: Obj, error: str = "") -> str:
    """An event's words: the amounts of the pod's containers."""
    told: Obj = {}
    for field in ("initContainers", "containers"):
        listed = pod["spec"].get(field)
        if listed:
            told[field] = [{"name": one["name"], "resources": _in_order(one.get("resources") or {})} for one in listed]
    told["generation"] = pod["metadata"].get("generation", 0)
    if error:
        told["error"] = error
    return f"Pod resize {what}: {json.dumps(told, separators=(',', ':'))}"


def _in_order(resources: Obj) -> Obj:
    """As Go writes them."""
    return {kind: dict(sorted(resources[kind].items())) for kind in ("limits", "requests") if resources.get(kind)}


def _as_before(pod: Obj, before: Mapping[str, Obj]) -> Obj:
    """The pod when its containers had these amounts."""
    spec = dict(pod["spec"])
    for field in ("initContainers", "containers"):
        spec[field] = [
            {**container, "resources": before.get(container["name"], container.get("resources") or {})}
            for container in spec.get(field) or []
        ]
    return {**pod, "spec": spec}


def _memory_limit(pod: Obj) -> float:
    return pod_totals(pod)[2] or math.inf


def _takes_memory(change: _Change) -> bool:
    now, before = limits_of(change.container).get("memory"), (change.before.get("limits") or {}).get("memory")
    return now is not None and (before is None or whole(now) < whole(before))


def _needs_restart(change: _Change) -> bool:
    stated = change.container.get("resizePolicy") or []
    policies = {policy["resourceName"]: policy["restartPolicy"] for policy in stated}
    now = change.container.get("resources") or {}
    return any(
        policies.get(name) == "RestartContainer" and _amounts(change.before, name) != _amounts(now, name)
        for name in ("cpu", "memory")
    )


def _amounts(resources: Obj, name: str) -> tuple[Any, Any]:
    return (resources.get("requests") or {}).get(name), (resources.get("limits") or {}).get(name)
