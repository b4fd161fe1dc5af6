"""What the scheduler believes is where: the pods that the API server reports, and those it has placed but not yet
seen placed (assumed).

In: informer callbacks and the scheduler's own decisions.  Out: NodeColumns kept in step.
Invariant: each pod is counted on at most one node, whichever of decision, confirmation and deletion comes first.
"""

from __future__ import annotations

from navarch.api.meta import Obj, name_of, uid_of
from navarch.kinds.core.pod_state import is_finished
from navarch.scheduler.columns import NodeColumns
from navarch.scheduler.podinfo import PodInfo, PodParser


class SchedulerCache:
    """Pods by uid, each with the node on which the columns count it."""

    def __init__(self, columns: NodeColumns, parser: PodParser) -> None:
        self._columns = columns
        self._parser = parser
        self._pods: dict[str, tuple[PodInfo, str]] = {}
        self._assumed: set[str] = set()

    def __len__(self) -> int:
        return len(self._pods)

    def get(self, uid: str) -> PodInfo | None:
        known = self._pods.get(uid)
        return known[0] if known is not None else None

    def is_assumed(self, uid: str) -> bool:
        return uid in self._assumed

    # The scheduler's own decisions.

    def assume(self, pod: PodInfo, node_name: str) -> None:
        """Count the pod on the node from now on, as if it were bound."""
        self._assumed.add(pod.uid)
        self._pods[pod.uid] = (pod, node_name)
        self._columns.add_pod(pod, node_name)

    def forget(self, pod: PodInfo) -> None:
        """The pod could not be bound."""
        if pod.uid in self._assumed:
            self._assumed.discard(pod.uid)
            self._drop(pod.uid)

    # What the API server reports.

    def set_pod(self, obj: Obj) -> PodInfo | None:
        """Take over a pod that has a node. Returns what is known of it now, None where it has ended."""
        uid = uid_of(obj)
        if is_finished(obj):
            self.remove_pod(obj)
            return None
        self._assumed.discard(uid)
        node_name = obj["spec"]["nodeName"]
        known = self._pods.get(uid)
        if known is not None:
            pod, placed = known
            if placed == node_name and _same(pod.obj, obj):
                # A report of the kubelet, by far the most frequent change: nothing that placement depends on.
                pod.obj = obj
                return pod
            self._drop(uid)
        fresh = self._parser.parse(obj)
        self._pods[uid] = (fresh, node_name)
        self._columns.add_pod(fresh, node_name)
        return fresh

    def remove_pod(self, obj: Obj) -> PodInfo | None:
        """The pod is gone, or has ended and needs no room any more. Returns what was known of it."""
        uid = uid_of(obj)
        self._assumed.discard(uid)
        known = self._pods.get(uid)
        if known is None:
            return None
        self._drop(uid)
        return known[0]

    def set_node(self, node: Obj) -> None:
        self._columns.set_node(node)

    def remove_node(self, node: Obj) -> None:
        self._columns.remove_node(name_of(node))

    def _drop(self, uid: str) -> None:
        pod, node_name = self._pods.pop(uid)
        self._columns.remove_pod(pod, node_name)


def _same(old: Obj, new: Obj) -> bool:
    """Whether two versions of a placed pod ask the same of their node."""
    before, after = old["metadata"], new["metadata"]
    if ("deletionTimestamp" in before) != ("deletionTimestamp" in after):
        return False
    if before.get("labels") != after.get("labels"):
        return False
    # What the API server bumps with each change of the spec; binding itself is such a change.
    if before.get("generation") is None or before["generation"] != after.get("generation"):
        a, b = old["spec"], new["spec"]
        if any(a.get(part) != b.get(part) for part in ("containers", "initContainers", "resources", "overhead")):
            return False
    return _allocated(old) == _allocated(new)


def _allocated(pod: Obj) -> list[Obj]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return [s["allocatedResources"] for s in statuses if "allocatedResources" in s]
