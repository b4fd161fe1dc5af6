"""NodeName: a pod that names its node goes there or nowhere.

Kubernetes' scheduler never sees such pods in its queue, because they are bound already; the plugin is for those who
run the filters by themselves (planning, DaemonSets).
"""

from __future__ import annotations

import numpy as np

from navarch.scheduler.columns import BoolArray
from navarch.scheduler.framework import Change, Plugin, Refusal, Scope
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable


class NodeName(Plugin):
    """Keep a pod that asks for a node by name off all others."""

    name = "NodeName"
    # The wish is the pod's own, not its class's, so it is looked at for each pod.
    scope = Scope.CLUSTER
    changes = frozenset({Change.NODE_ADDED})

    def filters(self, pod: PodInfo) -> bool:
        return bool(pod.node_name)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        chosen: BoolArray = np.zeros(len(nodes), np.bool_)
        position = nodes.position(pod.node_name)
        if position >= 0:
            chosen[position] = True
        return chosen

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        return Refusal.of_all(nodes, "node(s) didn't match the requested node name", curable=False)
