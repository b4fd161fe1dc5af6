"""NodeUnschedulable: cordoned nodes take only pods that tolerate being there."""

from __future__ import annotations

from navarch.scheduler.columns import BoolArray, Taint
from navarch.scheduler.framework import Change, ClusterEvent, Plugin, Refusal
from navarch.scheduler.plugins.taint_toleration import tolerates
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

_CORDONED = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")


class NodeUnschedulable(Plugin):
    """Refuse nodes with `spec.unschedulable`, unless the pod tolerates the taint that stands for it."""

    name = "NodeUnschedulable"
    changes = frozenset({Change.NODE_ADDED, Change.NODE_UPDATED})

    def filters(self, pod: PodInfo) -> bool:
        return not tolerates(pod.traits.tolerations, _CORDONED)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        return ~nodes.unschedulable

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        return Refusal.of_all(nodes, "node(s) were unschedulable", curable=False)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        return event.new is None or not (event.new.get("spec") or {}).get("unschedulable")
