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
from navarch.node.engine import retries
from navarch.node.engine.admission import INFEASIBLE, Refusal
from navarch.node.engine.allocation import Allocation, Given, resizable, whole_of, with_whole
from navarch.node.engine.observed import ObservedContainer
from navarch.node.engine.podstate import PodState
from navarch.node.resources.amounts import container_resources, pod_totals, whole
from navarch.node.runtime.base import NotFound, RuntimeFailure

_ERROR: Final = "Error"
_RESIZED: Final = ("cpu", "memory")
# Whoever takes room from the node says so when it goes; this is for what nobody says.
_LOOK_AGAIN: Final = timedelta(minutes=3)


class _Progress(NamedTuple):
    reason: str = ""
    message: str = ""


class _Change(NamedTuple):
    """A running container that does not have yet what it is allocated."""

    container: Obj
    instance: ObservedContainer
    before: Given
    now: Given


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
        return given.own if given is not None else container.get("resources") or {}

    def given_whole(self) -> Obj:
        """The amounts that the pod as a whole has now, for its status."""
        return self._allocation.given_whole

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
        differs = bool(changes) or self._allocation.given_whole != whole_of(self._worker.pod)
        if differs and self._progress is None:
            # Begun by an earlier kubelet.
            self._progress = _Progress()
        if self._progress is None:
            return
        if differs:
            try:
                await self._give(changes)
            except RuntimeFailure as error:
                self._failed(str(error))
                return
        if not any(self._unsettled()):
            self._completed()

    def _changes(self) -> Iterator[_Change]:
        whole = whole_of(self._worker.pod)
        for container in resizable(self._worker.pod):
            instance = self._worker.observed.current(container["name"])
            if instance is None or not instance.running:
                continue
            before = self._allocation.given(container["name"], instance.id)
            now = Given(container.get("resources") or {}, whole)
            if before is not None and (before.own != now.own or _bounds(before) != _bounds(now)):
                yield _Change(container, instance, before, now)

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
        before = {change.container["name"]: change.before.own for change in changes}
        as_before = with_whole(_as_before(worker.pod, before), self._allocation.given_whole)
        await self._refuse_what_is_in_use(in_place, as_before)
        if _memory_limit(as_before) <= _memory_limit(worker.pod):
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
        self._allocation.give_whole()

    async def _refuse_what_is_in_use(self, changes: Sequence[_Change], as_before: Obj) -> None:
        """Raises RuntimeFailure where more memory is in use than would be left: the kernel would kill for it."""
        pod = self._worker.pod
        lower = {change.instance.id: change for change in changes if _takes_memory(change)}
        pod_limit = math.inf
        if whole_of(pod) and _memory_limit(pod) < _memory_limit(as_before):
            pod_limit = _memory_limit(pod)
        if not lower and pod_limit == math.inf:
            return
        ids, used, problems = {one.id for one in self._worker.observed.all() if one.running}, 0, []
        for stats in await self._worker.parts.runtime.stats():
            used += stats.memory_used_bytes if stats.id in ids else 0
            change = lower.get(stats.id)
            limit = _memory_of(change.now) if change is not None else math.inf
            if change is not None and stats.memory_used_bytes >= limit:
                problems.append(
                    f'attempting to set container "{change.container["name"]}" memory limit ({limit}) '
                    f"below current usage ({stats.memory_used_bytes})"
                )
        if used >= pod_limit:
            problems.insert(0, f"attempting to set pod memory limit ({pod_limit}) below current usage ({used})")
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
        worker.wake_after(retries.AGAIN)

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
    if whole_of(pod):
        told["resources"] = _in_order(whole_of(pod))
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
    return _memory_of(change.now) < _memory_of(change.before)


def _memory_of(given: Given) -> float:
    return whole(_amounts(given, "memory")[1] or 0) or math.inf


def _needs_restart(change: _Change) -> bool:
    stated = change.container.get("resizePolicy") or []
    policies = {policy["resourceName"]: policy["restartPolicy"] for policy in stated}
    return any(
        policies.get(name) == "RestartContainer" and _amounts(change.before, name) != _amounts(change.now, name)
        for name in _RESIZED
    )


def _bounds(given: Given) -> list[tuple[Any, Any]]:
    return [_amounts(given, name) for name in _RESIZED]


def _amounts(given: Given, name: str) -> tuple[Any, Any]:
    """A container's request and limit; the limit is its pod's where it has none of its own."""
    own = (given.own.get("limits") or {}).get(name)
    limit = own if own is not None else (given.whole.get("limits") or {}).get(name)
    return (given.own.get("requests") or {}).get(name), limit
