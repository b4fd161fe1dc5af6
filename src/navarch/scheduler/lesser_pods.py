"""What pods of each priority take of every node, so that preemption sees at once where removing lesser pods could help.

Follows the columns' log of pods as the counters do; filled when a pod first looks for victims. Pure.
"""

from __future__ import annotations

import numpy as np

from navarch.scheduler.columns import PODS, BoolArray, IntArray, NodeColumns, PodChange


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
            self._by_priority.clear()
            self._capacity = columns.capacity
            changes = [PodChange(row, pod, 1) for row, pods in enumerate(columns.pods) for pod in pods.values()]
        for row, pod, sign in changes:
            taken = self._by_priority.setdefault(pod.priority, {})
            self._take(taken, row, PODS, sign)
            for resource, amount in pod.traits.requests.items():
                if amount:
                    self._take(taken, row, resource, sign * amount)
        self._position = end

    def _take(self, taken: dict[str, IntArray], row: int, resource: str, amount: int) -> None:
        array = taken.get(resource)
        if array is None:
            array = taken[resource] = np.zeros(self._capacity, np.int64)
        array[row] += amount
