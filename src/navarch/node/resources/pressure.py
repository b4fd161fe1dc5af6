"""Pressure: which thresholds are crossed, for how long; the node's conditions that follow; what is to be acted on.

A state machine over observations: `take` is told what is left, and answers nothing that it was not told. A soft
threshold counts after its grace period, one that was acted on until its minimum is won back, and a condition stays for
a while after its cause has gone, so that the scheduler does not see it flutter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from navarch.api.meta import Obj
from navarch.node.config import EvictionConfig
from navarch.node.resources.signals import Signals
from navarch.node.thresholds import ALLOCATABLE_MEMORY, CONDITIONS, MEMORY, Threshold
from navarch.world import Clock

_WORDS: Final = {
    "MemoryPressure": (
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ),
}


class Pressure:
    """What the conditions MemoryPressure, DiskPressure and PIDPressure say, and eviction acts on. `on_change` is called
    when a condition comes or goes."""

    def __init__(self, config: EvictionConfig, clock: Clock, *, pods_enforced: bool = True) -> None:
        self._thresholds = list(config.thresholds)
        if pods_enforced:
            # What all pods have together is bounded, and short in the same way.
            self._thresholds += [
                Threshold(ALLOCATABLE_MEMORY, one.level, 0.0, one.reclaim)
                for one in config.thresholds
                if one.signal == MEMORY and one.hard
            ]
        self._transition = timedelta(seconds=config.transition_s)
        self._clock = clock
        self._crossed_at: dict[Threshold, datetime] = {}
        self._acted_on: set[Threshold] = set()
        self._seen_at: dict[str, datetime] = {}
        self.signals: Signals = {}
        self.on_change: Callable[[], None] | None = None

    def take(self, signals: Signals) -> list[Threshold]:
        """What is left now. Returns the thresholds to act on, the most urgent first."""
        now, before = self._clock.now(), self.pressed()
        self.signals = signals
        crossed = [
            one
            for one in self._thresholds
            if _short(one, signals) or (one in self._acted_on and _not_back(one, signals))
        ]
        self._crossed_at = {one: self._crossed_at.get(one, now) for one in crossed}
        for one in crossed:
            self._seen_at[CONDITIONS[one.signal]] = now
        due = [one for one in crossed if now - self._crossed_at[one] >= timedelta(seconds=one.grace_s)]
        self._acted_on = set(due)
        if self.pressed() != before and self.on_change is not None:
            self.on_change()
        # Memory before all else: what is short of it, dies.
        return sorted(due, key=lambda one: one.resource != "memory")

    def pressed(self) -> list[str]:
        """The conditions that the node has."""
        now = self._clock.now()
        return [
            kind for kind in _WORDS if (seen := self._seen_at.get(kind)) is not None and now - seen < self._transition
        ]

    def conditions(self) -> list[Obj]:
        """The three conditions, without times."""
        pressed = self.pressed()
        return [_condition(kind, kind in pressed) for kind in _WORDS]

    def level_of(self, resource: str, thresholds: Sequence[Threshold]) -> tuple[int, int] | None:
        """The level, and what is available, of the first of these thresholds that is of a resource."""
        for one in thresholds:
            left = self.signals.get(one.signal)
            if one.resource == resource and left is not None:
                return one.level.of(left.capacity), left.available
        return None


def _short(threshold: Threshold, signals: Signals) -> bool:
    left = signals.get(threshold.signal)
    return left is not None and left.available < threshold.level.of(left.capacity)


def _not_back(threshold: Threshold, signals: Signals) -> bool:
    left = signals.get(threshold.signal)
    if left is None:
        return False
    return left.available < threshold.level.of(left.capacity) + threshold.reclaim.of(left.capacity)


def _condition(kind: str, pressed: bool) -> Obj:
    reason, message = _WORDS[kind][0 if pressed else 1]
    return {"type": kind, "status": "True" if pressed else "False", "reason": reason, "message": message}
