"""Room on the node: NodeResourcesFit, which also scores by how much of each resource would be left or used, and
NodeResourcesBalancedAllocation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from navarch.kinds.core.resource_lists import units
from navarch.records import frozen
from navarch.scheduler.columns import CPU, MEMORY, PODS, BoolArray, FloatArray, IntArray, NodeColumns
from navarch.scheduler.framework import Change, ClusterEvent, Plugin, Refusal, Scope
from navarch.scheduler.podinfo import PodInfo, is_extended
from navarch.scheduler.table import NodeTable, Rows

LEAST_ALLOCATED: Final = "LeastAllocated"
MOST_ALLOCATED: Final = "MostAllocated"
REQUESTED_TO_CAPACITY_RATIO: Final = "RequestedToCapacityRatio"
_NATIVE: Final = (CPU, MEMORY, "ephemeral-storage")
_PERCENT: Final = 100


@frozen
class ScoringStrategy:
    """What makes a node better, and how much each resource counts; `shape` are points (percent used, score up to 10)
    between which scores are interpolated, for RequestedToCapacityRatio."""

    type: str = LEAST_ALLOCATED
    weights: tuple[tuple[str, int], ...] = ((CPU, 1), (MEMORY, 1))
    shape: tuple[tuple[int, int], ...] = ()


class NodeResourcesFit(Plugin):
    """Refuse nodes without room for the pod's requests; prefer those that the strategy likes, without one those with
    most room left. Extended resources that are `ignored`, by name or by what stands before their slash, are others' to
    look after."""

    name = "NodeResourcesFit"
    scope = Scope.ROW
    changes = frozenset({Change.NODE_ADDED, Change.NODE_UPDATED, Change.POD_DELETED, Change.POD_UPDATED})

    def __init__(
        self,
        strategy: ScoringStrategy | None = None,
        *,
        ignored: frozenset[str] = frozenset(),
        ignored_groups: frozenset[str] = frozenset(),
    ) -> None:
        self._strategy = strategy or ScoringStrategy()
        self._ignored = ignored
        self._ignored_groups = ignored_groups
        self._by_percent = _interpolated(self._strategy.shape)

    def needs(self, pod: PodInfo) -> Mapping[str, int]:
        """What nodes must have for the pod."""
        requests = pod.traits.requests
        if not self._ignored and not self._ignored_groups:
            return {name: wanted for name, wanted in requests.items() if wanted > 0}
        return {name: wanted for name, wanted in requests.items() if wanted > 0 and not self._ignores(name)}

    def _ignores(self, resource: str) -> bool:
        if not is_extended(resource):
            return False
        return resource in self._ignored or resource.partition("/")[0] in self._ignored_groups

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        if nodes.alone >= 0 and not pod.traits.extended:
            return np.array((self._has_room(pod, nodes.columns, nodes.alone),))
        fits: BoolArray = nodes.requested(PODS) < nodes.allocatable(PODS)
        for resource, wanted in self.needs(pod).items():
            allocatable = nodes.allocatable(resource)
            room = nodes.requested(resource) + wanted <= allocatable
            if is_extended(resource) and nodes.environment.devices.class_of(resource) is not None:
                # Where the node has none of it, claims of devices see to it.
                room |= allocatable == 0
            fits &= room
        return fits

    def _has_room(self, pod: PodInfo, columns: NodeColumns, row: int) -> bool:
        """Whether one row has; extended resources aside."""
        for resource, wanted in ((PODS, 1), *self.needs(pod).items()):
            index = columns.resource(resource)
            if int(columns.requested[index][row]) + wanted > int(columns.allocatable[index][row]):
                return False
        return True

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        reasons: dict[str, int] = {}
        curable: BoolArray = np.ones(len(nodes), np.bool_)
        if full := int(np.count_nonzero(nodes.requested(PODS) >= nodes.allocatable(PODS))):
            reasons["Too many pods"] = full
        for resource, wanted in self.needs(pod).items():
            allocatable = nodes.allocatable(resource)
            if is_extended(resource) and nodes.environment.devices.class_of(resource) is not None:
                allocatable = np.where(allocatable == 0, nodes.requested(resource) + wanted, allocatable)
            if short := int(np.count_nonzero(nodes.requested(resource) + wanted > allocatable)):
                reasons[f"Insufficient {resource}"] = short
                # No pod need leave a node that is too small even when empty.
                curable &= allocatable >= wanted
        return Refusal(reasons, curable)

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        if nodes.alone >= 0 and self._strategy.type == LEAST_ALLOCATED:
            return np.array((self._free(pod, nodes.columns, nodes.alone),), np.float64)
        total: IntArray = np.zeros(len(nodes), np.int64)
        weights: IntArray = np.zeros(len(nodes), np.int64)
        for resource, weight in self._strategy.weights:
            found = _used_with_defaults(pod, nodes.columns, nodes.rows, resource)
            if found is None:
                continue
            allocatable, used = found
            points = self._points(allocatable, used)
            counts = allocatable > 0
            if self._strategy.type == REQUESTED_TO_CAPACITY_RATIO:
                # As in Kubernetes, a resource that earns nothing does not weigh either.
                counts &= points > 0
            total += np.where(counts, points, 0) * weight
            weights += counts * weight
        if self._strategy.type == REQUESTED_TO_CAPACITY_RATIO:
            return np.floor(total / np.maximum(weights, 1) + 0.5)
        score: FloatArray = (total // np.maximum(weights, 1)).astype(np.float64)
        return score

    def _free(self, pod: PodInfo, columns: NodeColumns, row: int) -> int:
        """How much of one row would be left, in percent, over the resources."""
        total = weights = 0
        for resource, weight in self._strategy.weights:
            found = _used_with_defaults(pod, columns, row, resource)
            if found is None:
                continue
            allocatable, used = int(found[0]), int(found[1])
            if allocatable > 0:
                total += max(allocatable - used, 0) * _PERCENT // allocatable * weight
                weights += weight
        return total // weights if weights else 0

    def _points(self, allocatable: IntArray, used: IntArray) -> IntArray:
        """How good each node is for one resource, 0 to 100."""
        if self._strategy.type == LEAST_ALLOCATED:
            free: IntArray = np.maximum(allocatable - used, 0) * _PERCENT // np.maximum(allocatable, 1)
            return free
        percent: IntArray = np.minimum(used, allocatable) * _PERCENT // np.maximum(allocatable, 1)
        return percent if self._strategy.type == MOST_ALLOCATED else self._by_percent[percent]

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.new is not None and event.change in (Change.NODE_ADDED, Change.NODE_UPDATED):
            new = units((event.new.get("status") or {}).get("allocatable"))
            native = {name: wanted for name, wanted in pod.traits.requests.items() if not is_extended(name)}
            if any(new.get(name, 0) < wanted for name, wanted in native.items() if wanted > 0):
                return False
            if event.change is Change.NODE_UPDATED and event.old is not None:
                old = units((event.old.get("status") or {}).get("allocatable"))
                return any(new.get(name, 0) > old.get(name, 0) for name in [*pod.traits.requests, PODS])
        return True


def _used_with_defaults(
    pod: PodInfo, columns: NodeColumns, rows: Rows | int, resource: str
) -> tuple[IntArray, IntArray] | None:
    """What rows have of a resource and what would be used with the pod there, where pods that request neither CPU nor
    memory count a little; None for an extended resource that the pod does not request, which says nothing then."""
    if resource == CPU:
        used = columns.nonzero_milli_cpu[rows] + pod.traits.nonzero_milli_cpu
    elif resource == MEMORY:
        used = columns.nonzero_memory[rows] + pod.traits.nonzero_memory
    else:
        wanted = pod.traits.requests.get(resource, 0)
        if not wanted and resource not in _NATIVE:
            return None
        used = columns.requested[columns.resource(resource)][rows] + wanted
    return columns.allocatable[columns.resource(resource)][rows], used


def _interpolated(shape: Sequence[tuple[int, int]]) -> IntArray:
    """The score, up to 100, for each percentage used."""
    scores: IntArray = np.zeros(_PERCENT + 1, np.int64)
    points = [(utilization, score * 10) for utilization, score in shape]
    for percent in range(_PERCENT + 1 if points else 0):
        after = next((index for index, (utilization, _) in enumerate(points) if percent <= utilization), len(points))
        if after in (0, len(points)):
            scores[percent] = points[min(after, len(points) - 1)][1]
            continue
        (left, low), (right, high) = points[after - 1], points[after]
        # Truncated towards the left point, as Go divides.
        scores[percent] = low + int((high - low) * (percent - left) / (right - left))
    return scores


class NodeResourcesBalancedAllocation(Plugin):
    """Prefer nodes on which the pod brings the used proportions of the resources closer together."""

    name = "NodeResourcesBalancedAllocation"
    scope = Scope.ROW

    def __init__(self, resources: Sequence[str] = (CPU, MEMORY)) -> None:
        self._resources = tuple(resources)

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        # A pod that requests none of them leaves every node's balance as it is.
        return any(pod.traits.requests.get(resource) for resource in self._resources)

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        if nodes.alone >= 0 and self._resources == (CPU, MEMORY):
            return np.array((_improvement(pod, nodes.columns, nodes.alone),), np.float64)
        found = []
        for resource in self._resources:
            wanted = pod.traits.requests.get(resource, 0)
            if wanted or resource in _NATIVE:
                found.append((nodes.allocatable(resource), nodes.requested(resource), wanted))
        after = _balance([(allocatable, requested + wanted) for allocatable, requested, wanted in found])
        before = _balance([(allocatable, requested) for allocatable, requested, _ in found])
        # Half of the points for what changes nothing keeps scores as far apart as those of Kubernetes are.
        score: FloatArray = 50 + (50 + after - before) // 2
        return score


def _improvement(pod: PodInfo, columns: NodeColumns, row: int) -> int:
    """The score of one row, by CPU and memory alone."""
    shares = []
    for resource in (CPU, MEMORY):
        index = columns.resource(resource)
        allocatable, requested = int(columns.allocatable[index][row]), int(columns.requested[index][row])
        if allocatable <= 0:
            return 50 + 50 // 2
        after = (requested + pod.traits.requests.get(resource, 0)) / allocatable
        shares.append((min(requested / allocatable, 1.0), min(after, 1.0)))
    (cpu, cpu_after), (memory, memory_after) = shares
    before = math.floor((1 - abs(cpu - memory) / 2) * 100)
    return 50 + (50 + math.floor((1 - abs(cpu_after - memory_after) / 2) * 100) - before) // 2


def _balance(used: Sequence[tuple[IntArray, IntArray]]) -> FloatArray:
    """100 where all of the resources that a node has are used in the same proportion, less the more they differ."""
    fractions = [np.minimum(requested / np.maximum(allocatable, 1), 1.0) for allocatable, requested in used]
    if len(used) == 2:
        # With two the standard deviation is half their distance; with one there is nothing to balance.
        both = (used[0][0] > 0) & (used[1][0] > 0)
        deviation = np.where(both, np.abs(fractions[0] - fractions[1]) / 2, 0.0)
    else:
        deviation = _deviation(fractions, [allocatable > 0 for allocatable, _ in used])
    balance: FloatArray = np.floor((1 - deviation) * 100)
    return balance


def _deviation(fractions: Sequence[FloatArray], present: Sequence[BoolArray]) -> FloatArray:
    """The standard deviation over those resources that each node has."""
    has = np.array(present, np.bool_)
    values = np.where(has, np.array(fractions), 0.0)
    count = np.maximum(has.sum(axis=0), 1)
    mean = values.sum(axis=0) / count
    deviation: FloatArray = np.sqrt((np.where(has, values - mean, 0.0) ** 2).sum(axis=0) / count)
    return deviation
