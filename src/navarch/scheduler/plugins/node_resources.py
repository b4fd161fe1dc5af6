"""Room on the node: NodeResourcesFit (with its least-allocated score) and NodeResourcesBalancedAllocation."""

from __future__ import annotations

import numpy as np

from navarch.kinds.core.resource_lists import units
from navarch.scheduler.columns import CPU, MEMORY, PODS, BoolArray, FloatArray, IntArray
from navarch.scheduler.framework import Change, ClusterEvent, Plugin, Refusal, Scope
from navarch.scheduler.podinfo import PodInfo, is_extended
from navarch.scheduler.table import NodeTable


class NodeResourcesFit(Plugin):
    """Refuse nodes without room for the pod's requests; prefer those with most room left."""

    name = "NodeResourcesFit"
    scope = Scope.ROW
    changes = frozenset({Change.NODE_ADDED, Change.NODE_UPDATED, Change.POD_DELETED, Change.POD_UPDATED})

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        fits: BoolArray = nodes.requested(PODS) < nodes.allocatable(PODS)
        for resource, wanted in pod.traits.requests.items():
            if wanted > 0:
                allocatable = nodes.allocatable(resource)
                room = nodes.requested(resource) + wanted <= allocatable
                if is_extended(resource) and nodes.environment.devices.class_of(resource) is not None:
                    # Where the node has none of it, claims of devices see to it.
                    room |= allocatable == 0
                fits &= room
        return fits

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        reasons: dict[str, int] = {}
        curable: BoolArray = np.ones(len(nodes), np.bool_)
        if full := int(np.count_nonzero(nodes.requested(PODS) >= nodes.allocatable(PODS))):
            reasons["Too many pods"] = full
        for resource, wanted in pod.traits.requests.items():
            if wanted <= 0:
                continue
            allocatable = nodes.allocatable(resource)
            if is_extended(resource) and nodes.environment.devices.class_of(resource) is not None:
                allocatable = np.where(allocatable == 0, nodes.requested(resource) + wanted, allocatable)
            if short := int(np.count_nonzero(nodes.requested(resource) + wanted > allocatable)):
                reasons[f"Insufficient {resource}"] = short
                # No pod need leave a node that is too small even when empty.
                curable &= allocatable >= wanted
        return Refusal(reasons, curable)

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        cpu, cpu_counts = _free_percent(nodes.allocatable(CPU), nodes.nonzero_milli_cpu + pod.traits.nonzero_milli_cpu)
        memory, memory_counts = _free_percent(
            nodes.allocatable(MEMORY), nodes.nonzero_memory + pod.traits.nonzero_memory
        )
        score: FloatArray = ((cpu + memory) // np.maximum(cpu_counts + memory_counts, 1)).astype(np.float64)
        return score

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


def _free_percent(allocatable: IntArray, requested: IntArray) -> tuple[IntArray, IntArray]:
    """What would be left in percent, 0 where nothing is; and 1 where the node has the resource at all."""
    free = np.maximum(allocatable - requested, 0) * 100 // np.maximum(allocatable, 1)
    return free, (allocatable > 0).astype(np.int64)


class NodeResourcesBalancedAllocation(Plugin):
    """Prefer nodes whose CPU and memory would be used in like proportion."""

    name = "NodeResourcesBalancedAllocation"
    scope = Scope.ROW

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        # A pod that requests neither leaves every node's balance as it is.
        return bool(pod.traits.requests.get(CPU) or pod.traits.requests.get(MEMORY))

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        cpu, has_cpu = _used_fraction(nodes, CPU, pod.traits.requests.get(CPU, 0))
        memory, has_memory = _used_fraction(nodes, MEMORY, pod.traits.requests.get(MEMORY, 0))
        # With two resources the standard deviation is half their distance; with one there is nothing to balance.
        deviation = np.where(has_cpu & has_memory, np.abs(cpu - memory) / 2, 0.0)
        score: FloatArray = np.floor((1 - deviation) * 100)
        return score


def _used_fraction(nodes: NodeTable, resource: str, wanted: int) -> tuple[FloatArray, BoolArray]:
    allocatable = nodes.allocatable(resource)
    return np.minimum((nodes.requested(resource) + wanted) / np.maximum(allocatable, 1), 1.0), allocatable > 0
