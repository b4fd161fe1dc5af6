"""How many pods that a selector selects are on each node: what topology spread and pod affinity are computed from.

A counter is filled once by looking at every pod, and then follows the log of pods that come and go, so that placing
one pod costs one addition. Invariant: after `counts(selector)` the array equals a fresh count.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from navarch.scheduler.columns import IntArray, NodeColumns, PodChange
from navarch.scheduler.environment import Environment
from navarch.scheduler.podinfo import Traits
from navarch.scheduler.terms import PodSelector

_LIMIT = 512


class _Counter:
    """Counts of one conjunction of selectors; pods that are being deleted count only if `deleting`."""

    def __init__(self, selectors: tuple[PodSelector, ...], deleting: bool) -> None:
        self.selectors = selectors
        self.deleting = deleting
        self.counts: IntArray = np.zeros(0, np.int64)
        self.position = -1
        self.version = -1
        self._matching: dict[int, bool] = {}

    def refill(self, columns: NodeColumns, environment: Environment) -> None:
        self.counts = np.zeros(columns.capacity, np.int64)
        self.position = columns.pod_log.end
        self.version = environment.version
        self._matching.clear()
        for row, pods in enumerate(columns.pods):
            for pod in pods.values():
                if self._counts(pod.traits, pod.deleting, environment):
                    self.counts[row] += 1

    def follow(self, changes: list[PodChange], environment: Environment) -> None:
        for row, traits, _, deleting, sign in changes:
            if self._counts(traits, deleting, environment):
                self.counts[row] += sign

    def _counts(self, traits: Traits, deleting: bool, environment: Environment) -> bool:
        if deleting and not self.deleting:
            return False
        matching = self._matching.get(traits.serial)
        if matching is None:
            matching = self._matching[traits.serial] = matches_all(self.selectors, traits, environment)
        return matching


class PodCounters:
    """The counters in use, by what they count; the least recently used go first."""

    def __init__(self, columns: NodeColumns, environment: Environment) -> None:
        self._columns = columns
        self._environment = environment
        self._counters: OrderedDict[tuple[tuple[PodSelector, ...], bool], _Counter] = OrderedDict()

    def counts(self, *selectors: PodSelector, deleting: bool = True) -> IntArray:
        """Pods on each row that all `selectors` select; as long as the columns' capacity."""
        identity = (selectors, deleting)
        counter = self._counters.get(identity)
        if counter is None:
            counter = self._counters[identity] = _Counter(selectors, deleting)
            if len(self._counters) > _LIMIT:
                self._counters.popitem(last=False)
        else:
            self._counters.move_to_end(identity)
        columns = self._columns
        end = columns.pod_log.end
        changes: list[PodChange] | None = None
        if counter.version == self._environment.version and len(counter.counts) == columns.capacity:
            if counter.position == end:
                return counter.counts
            changes = columns.pod_log.since(counter.position)
        if changes is None:
            counter.refill(columns, self._environment)
        else:
            counter.follow(changes, self._environment)
            counter.position = end
        return counter.counts


def matches_all(selectors: tuple[PodSelector, ...], traits: Traits, environment: Environment) -> bool:
    """Whether every one of `selectors` selects a pod of these traits."""
    namespace_labels = environment.namespace_labels(traits.namespace)
    return all(s.matches(traits.namespace, traits.labels, namespace_labels) for s in selectors)
