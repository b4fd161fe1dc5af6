"""NodePorts: a host port is taken once per node, address and protocol."""

from __future__ import annotations

import numpy as np

from navarch.scheduler.columns import BoolArray
from navarch.scheduler.framework import Change, ClusterEvent, Plugin, Refusal, Scope
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

_EVERY_ADDRESS = "0.0.0.0"


class NodePorts(Plugin):
    """Keep a pod off nodes where a host port that it asks for is taken."""

    name = "NodePorts"
    scope = Scope.ROW
    changes = frozenset({Change.NODE_ADDED, Change.POD_DELETED})

    def filters(self, pod: PodInfo) -> bool:
        return bool(pod.traits.host_ports)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        taken_rows: BoolArray = np.zeros(nodes.columns.capacity, np.bool_)
        for wanted in pod.traits.host_ports:
            for ip, row in nodes.columns.host_ports.get((wanted.protocol, wanted.port), {}):
                if wanted.ip == ip or _EVERY_ADDRESS in (wanted.ip, ip):
                    taken_rows[row] = True
        return ~taken_rows[nodes.rows]

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        return Refusal.of_all(nodes, "node(s) didn't have free ports for the requested pod ports", curable=True)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.change is not Change.POD_DELETED or event.pod is None:
            return True
        wanted = {(port.protocol, port.port) for port in pod.traits.host_ports}
        return any((port.protocol, port.port) in wanted for port in event.pod.traits.host_ports)
