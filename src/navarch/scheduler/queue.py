"""Pods that wait for a node: ready ones by priority and age, those backing off after a refusal, and those that
nothing has happened for since they were refused.

In: pending PodInfos, refusals, cluster events.  Out: the next pod to try.  A refused pod waits until an event that
one of the plugins that refused it declares helpful, then until its back-off (1 s doubling to 10 s) is over; whatever
happens, it is tried again after five minutes. Pods with scheduling gates wait outside until the gates are gone.
Invariant: a pod is in exactly one place.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Iterable
from dataclasses import field

from navarch.api.meta import Obj
from navarch.records import mutable
from navarch.scheduler.framework import ClusterEvent, Plugin
from navarch.scheduler.podinfo import PodInfo

FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 10.0
LONGEST_WAIT_S = 300.0

Hints = Callable[[PodInfo], Iterable[Plugin]]


@mutable
class _Waiting:
    pod: PodInfo
    since_s: float
    ready_at_s: float
    gates: bool = False
    place: str = "active"
    tickets: int = field(default=0)


class SchedulingQueue:
    """`plugins_of` gives the plugins of a pod's profile, whose hints decide what wakes it."""

    def __init__(
        self,
        plugins_of: Hints,
        *,
        first_backoff_s: float = FIRST_BACKOFF_S,
        last_backoff_s: float = LAST_BACKOFF_S,
    ) -> None:
        self._plugins_of = plugins_of
        self._first_backoff_s = first_backoff_s
        self._last_backoff_s = last_backoff_s
        self._pods: dict[str, _Waiting] = {}
        self._active: list[tuple[int, float, int, str]] = []
        self._backing_off: list[tuple[float, int, str]] = []
        self._asleep: dict[str, _Waiting] = {}
        self._missed: dict[str, list[ClusterEvent]] = {}
        self._tickets = 0
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, uid: str) -> bool:
        return uid in self._pods

    def get(self, uid: str) -> PodInfo | None:
        waiting = self._pods.get(uid)
        return waiting.pod if waiting is not None else None

    def counts(self) -> dict[str, int]:
        """How many pods wait where."""
        result = {"active": 0, "backoff": 0, "unschedulable": 0, "gated": 0}
        for waiting in self._pods.values():
            result[waiting.place] += 1
        return result

    # Pods come and go.

    def add(self, pod: PodInfo) -> None:
        """A new pending pod."""
        now_s = _now_s()
        self._pods.pop(pod.uid, None)
        self._asleep.pop(pod.uid, None)
        waiting = self._pods[pod.uid] = _Waiting(pod, now_s, now_s)
        if is_gated(pod.obj):
            waiting.gates, waiting.place = True, "gated"
        else:
            self._activate(waiting)

    def update(self, pod: PodInfo) -> None:
        """A pending pod changed: where the change is its own doing, it is tried again."""
        waiting = self._pods.get(pod.uid)
        if waiting is None:
            self.add(pod)
            return
        old = waiting.pod
        pod.recall(old)
        waiting.pod = pod
        if waiting.gates:
            if not is_gated(pod.obj):
                waiting.gates = False
                self._activate(waiting)
        elif waiting.place == "unschedulable" and _asks_anew(old, pod):
            self._retry(waiting)

    def remove(self, uid: str) -> None:
        """The pod is gone or somebody bound it."""
        self._pods.pop(uid, None)
        self._asleep.pop(uid, None)
        self._missed.pop(uid, None)

    def expect(self, uid: str) -> None:
        """The pod is looked at, and will be refused once some writes are done if nothing takes it; what happens from
        the first call on, until then, must not be lost on it."""
        self._missed.setdefault(uid, [])

    def refuse(self, pod: PodInfo, rejected_by: frozenset[str], *, outright: bool = False) -> None:
        """The pod fits nowhere for now. Without plugins that refused it (an error) it just backs off."""
        now_s = _now_s()
        pod.rejected_by, pod.rejected_outright = rejected_by, outright
        delay_s = min(self._first_backoff_s * 2 ** min(max(pod.attempts - 1, 0), 30), self._last_backoff_s)
        waiting = self._pods[pod.uid] = _Waiting(pod, now_s, now_s + delay_s)
        missed = self._missed.pop(pod.uid, [])
        if rejected_by and not any(self._may_help(pod, event) for event in missed):
            waiting.place = "unschedulable"
            self._asleep[pod.uid] = waiting
            self._wake.set()
        else:
            self._back_off(waiting)

    def park(self, pod: PodInfo, held_by: frozenset[str]) -> None:
        """The pod waits for something and was not looked at: no attempt, so it goes on as soon as that has come."""
        now_s = _now_s()
        pod.rejected_by, pod.rejected_outright = held_by, True
        pod.attempts -= 1
        waiting = self._pods[pod.uid] = _Waiting(pod, now_s, now_s)
        if any(self._may_help(pod, event) for event in self._missed.pop(pod.uid, [])):
            self._activate(waiting)
            return
        waiting.place = "unschedulable"
        self._asleep[pod.uid] = waiting
        self._wake.set()

    # Events.

    def happened(self, event: ClusterEvent) -> None:
        """Move pods that the event may have made schedulable."""
        for events in self._missed.values():
            events.append(event)
        for waiting in list(self._asleep.values()):
            if self._may_help(waiting.pod, event):
                self._retry(waiting)

    def retry_all(self) -> None:
        for waiting in list(self._asleep.values()):
            self._retry(waiting)

    def _may_help(self, pod: PodInfo, event: ClusterEvent) -> bool:
        return any(
            plugin.name in pod.rejected_by and event.change in plugin.changes and plugin.wakes(pod, event)
            for plugin in self._plugins_of(pod)
        )

    # Taking.

    async def ready(self) -> None:
        """Wait until there is a pod to take."""
        while self._first() is None:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._next_timer_s()):
                    await self._wake.wait()

    def pop(self) -> PodInfo | None:
        """The next pod if one is ready; it is no longer in the queue."""
        waiting = self._first()
        if waiting is None:
            return None
        heapq.heappop(self._active)
        del self._pods[waiting.pod.uid]
        waiting.pod.attempts += 1
        return waiting.pod

    def _first(self) -> _Waiting | None:
        self._ripen()
        while self._active:
            _, _, ticket, uid = self._active[0]
            waiting = self._pods.get(uid)
            if waiting is not None and waiting.place == "active" and waiting.tickets == ticket:
                return waiting
            heapq.heappop(self._active)
        return None

    def _ripen(self) -> None:
        now_s = _now_s()
        while self._backing_off and self._backing_off[0][0] <= now_s:
            _, ticket, uid = heapq.heappop(self._backing_off)
            waiting = self._pods.get(uid)
            if waiting is not None and waiting.place == "backoff" and waiting.tickets == ticket:
                self._activate(waiting)
        # In order of refusal, so the first that has not waited long enough ends the search.
        while self._asleep:
            oldest = next(iter(self._asleep.values()))
            if oldest.since_s + LONGEST_WAIT_S > now_s:
                break
            self._retry(oldest)

    def _next_timer_s(self) -> float | None:
        now_s = _now_s()
        due = [self._backing_off[0][0]] if self._backing_off else []
        oldest = next(iter(self._asleep.values()), None)
        if oldest is not None:
            due.append(oldest.since_s + LONGEST_WAIT_S)
        return max(min(due) - now_s, 0.0) if due else None

    def _retry(self, waiting: _Waiting) -> None:
        self._asleep.pop(waiting.pod.uid, None)
        if waiting.ready_at_s > _now_s():
            self._back_off(waiting)
        else:
            self._activate(waiting)

    def _back_off(self, waiting: _Waiting) -> None:
        waiting.place = "backoff"
        self._tickets += 1
        waiting.tickets = self._tickets
        heapq.heappush(self._backing_off, (waiting.ready_at_s, waiting.tickets, waiting.pod.uid))
        self._wake.set()

    def _activate(self, waiting: _Waiting) -> None:
        waiting.place = "active"
        self._tickets += 1
        waiting.tickets = self._tickets
        entry = (-waiting.pod.priority, waiting.since_s, waiting.tickets, waiting.pod.uid)
        heapq.heappush(self._active, entry)
        self._wake.set()


def _asks_anew(old: PodInfo, new: PodInfo) -> bool:
    if old.traits is not new.traits or old.priority != new.priority:
        return True
    # Claims that were made for it.
    return new.traits.device_claims and _told(old) != _told(new)


def _told(pod: PodInfo) -> object:
    return (pod.obj.get("status") or {}).get("resourceClaimStatuses")


def is_gated(pod: Obj) -> bool:
    return bool(pod["spec"].get("schedulingGates"))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
