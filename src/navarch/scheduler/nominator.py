"""Pods that were promised room on a node for which others are being preempted. Pods of lower priority must leave that
room alone until the promise is kept or taken back.
"""

from __future__ import annotations

from navarch.scheduler.podinfo import PodInfo


class Nominator:
    """Nominated pods by node."""

    def __init__(self) -> None:
        self._node_of: dict[str, str] = {}
        self._by_node: dict[str, dict[str, PodInfo]] = {}

    def __bool__(self) -> bool:
        return bool(self._node_of)

    def set(self, pod: PodInfo, node_name: str) -> None:
        self.remove(pod.uid)
        self._node_of[pod.uid] = node_name
        self._by_node.setdefault(node_name, {})[pod.uid] = pod

    def remove(self, uid: str) -> None:
        node_name = self._node_of.pop(uid, None)
        if node_name is not None:
            pods = self._by_node[node_name]
            del pods[uid]
            if not pods:
                del self._by_node[node_name]

    def node_of(self, uid: str) -> str:
        return self._node_of.get(uid, "")

    def nodes(self) -> list[str]:
        return list(self._by_node)

    def on(self, node_name: str, *, priority: int, besides: str) -> list[PodInfo]:
        """Pods promised to the node whose priority is at least `priority`, without the pod `besides`."""
        pods = self._by_node.get(node_name, {})
        return [pod for pod in pods.values() if pod.priority >= priority and pod.uid != besides]

    def below(self, node_name: str, priority: int) -> list[PodInfo]:
        return [pod for pod in self._by_node.get(node_name, {}).values() if pod.priority < priority]
