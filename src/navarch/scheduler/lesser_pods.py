"""What pods of each priority take of every node, so that preemption sees at once where removing lesser pods could help.

Follows the columns' log of pods as the counters do; filled when a pod first looks for victims. Pure.
"""

from __future__ import annotations

import numpy as np

from navarch.scheduler.columns import PODS, BoolArray, IntArray, NodeColumns, PodChange
from navarch.scheduler.podinfo import PodInfo, Traits


class LesserPods:
    """Sums over placed pods by priority; arrays are as long as the columns' capacity."""

    def __init__(self, columns: NodeColumns) -> None:
        self._columns = columns
        self._position = -1
        self._capacity = 0
        self._by_priority: dict[int, dict[str, IntArray]] = {}

    def on(self, priority: int) -> BoolArray:
        """Rows that have pods of a priority below this one."""
        found: BoolArray = self.below(priority, PODS) > 0
        return found

    def below(self, priority: int, resource: str) -> IntArray:
        """What pods of a priority below this one request of a resource; of `pods`, how many they are."""
        self._follow()
        total: IntArray = np.zeros(self._columns.capacity, np.int64)
        for value, taken in self._by_priority.items():
            if value < priority and resource in taken:
                total += taken[resource]
        return total

    def _follow(self) -> None:
        columns = self._columns
        end = columns.pod_log.end
        changes: list[PodChange] | None = None
        if self._position >= 0 and self._capacity == columns.capacity:
            changes = columns.pod_log.since(self._position)
        if changes is None:
            self._fill()
        else:
            for change in changes:
                self._add(change.row, change.priority, change.traits, change.sign)
        self._position = end

    def _fill(self) -> None:
        """Of what may be a hundred thousand pods most are alike, so that they are counted first."""
        self._by_priority.clear()
        self._capacity = self._columns.capacity
        for row, pods in enumerate(self._columns.pods):
            alike: dict[tuple[int, int], list[PodInfo]] = {}
            for pod in pods.values():
                alike.setdefault((pod.priority, pod.traits.serial), []).append(pod)
            for same in alike.values():
                self._add(row, same[0].priority, same[0].traits, len(same))

    def _add(self, row: int, priority: int, traits: Traits, count: int) -> None:
        taken = self._by_priority.setdefault(priority, {})
        self._take(taken, row, PODS, count)
        for resource, amount in traits.requests.items():
            if amount:
                self._take(taken, row, resource, count * amount)

    def _take(self, taken: dict[str, IntArray], row: int, resource: str, amount: int) -> None:
        array = taken.get(resource)
        if array is None:
            array = taken[resource] = np.zeros(self._capacity, np.int64)
        array[row] += amount
