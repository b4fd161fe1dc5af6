"""From informer callbacks to cache, queue and events: what happened to pods and nodes, and what it may change."""

from __future__ import annotations

from navarch.api.meta import Obj, labels_of, uid_of
from navarch.client.informer import Informer
from navarch.kinds.core.pod_state import is_active
from navarch.scheduler.cache import SchedulerCache
from navarch.scheduler.framework import Change, ClusterEvent
from navarch.scheduler.nominator import Nominator
from navarch.scheduler.podinfo import PodInfo, PodParser
from navarch.scheduler.queue import SchedulingQueue


class Follower:
    """Keeps cache and queue in step. `in_flight` are the pods on which a decision is being carried out; what happens to
    them meanwhile is looked at when that is over."""

    def __init__(
        self,
        cache: SchedulerCache,
        queue: SchedulingQueue,
        nominator: Nominator,
        parser: PodParser,
        scheduler_names: frozenset[str],
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._nominator = nominator
        self._parser = parser
        self._names = scheduler_names
        self._pods: Informer | None = None
        self.in_flight: set[str] = set()

    def start(self, nodes: Informer, pods: Informer) -> None:
        nodes.add_handler(self._node_added, self._node_updated, self._node_deleted)
        self._pods = pods
        pods.add_handler(self._pod_added, self._pod_updated, self._pod_deleted)

    def renewed(self, pod: PodInfo, current: Obj) -> PodInfo:
        """`pod` as the API server has it now, with what the queue remembers of it."""
        if current is pod.obj:
            return pod
        fresh = self._parser.parse(current)
        fresh.recall(pod)
        return fresh

    def settle(self, pod: PodInfo) -> None:
        """A binding succeeded: if the pod was deleted meanwhile, its room is free again."""
        current = self._pods.get(*pod.key) if self._pods is not None else None
        if (current is None or uid_of(current) != pod.uid) and self._cache.is_assumed(pod.uid):
            self._cache.forget(pod)
            self._queue.happened(ClusterEvent(Change.POD_DELETED, pod.obj, None, pod))

    # Nodes.

    def _node_added(self, node: Obj) -> None:
        self._cache.set_node(node)
        self._queue.happened(ClusterEvent(Change.NODE_ADDED, None, node))

    def _node_updated(self, old: Obj, new: Obj) -> None:
        # Heartbeats change conditions only, which placement does not look at.
        if _placement_part(old) == _placement_part(new):
            return
        self._cache.set_node(new)
        self._queue.happened(ClusterEvent(Change.NODE_UPDATED, old, new))

    def _node_deleted(self, node: Obj) -> None:
        self._cache.remove_node(node)

    # Pods.

    def _pod_added(self, pod: Obj) -> None:
        if pod["spec"].get("nodeName"):
            self._placed(pod)
        elif self._is_ours(pod):
            self._pending(pod)

    def _pod_updated(self, old: Obj, new: Obj) -> None:
        if not new["spec"].get("nodeName"):
            if self._is_ours(new):
                self._pending(new)
            elif uid_of(new) in self._queue:
                self._queue.remove(uid_of(new))
            return
        if not old["spec"].get("nodeName") or uid_of(old) != uid_of(new):
            if uid_of(old) != uid_of(new):
                self._pod_deleted(old)
            self._placed(new)
            return
        before = self._cache.get(uid_of(new))
        after = self._cache.set_pod(new)
        if after is None and before is not None:
            self._queue.happened(ClusterEvent(Change.POD_DELETED, old, new, before))
        elif after is not None and after is not before:
            self._queue.happened(ClusterEvent(Change.POD_UPDATED, old, new, after))

    def _pod_deleted(self, pod: Obj) -> None:
        uid = uid_of(pod)
        self._queue.remove(uid)
        self._nominator.remove(uid)
        if uid in self.in_flight and self._cache.is_assumed(uid):
            # Its binding is under way: `settle` or the failure gives the room back.
            return
        known = self._cache.remove_pod(pod)
        if known is not None:
            self._queue.happened(ClusterEvent(Change.POD_DELETED, pod, None, known))

    def _placed(self, pod: Obj) -> None:
        uid = uid_of(pod)
        self._queue.remove(uid)
        self._nominator.remove(uid)
        known = self._cache.set_pod(pod)
        if known is not None:
            self._queue.happened(ClusterEvent(Change.POD_ADDED, None, pod, known))

    def _pending(self, pod: Obj) -> None:
        uid = uid_of(pod)
        if uid in self.in_flight or self._cache.is_assumed(uid):
            return
        known = self._queue.get(uid)
        if known is None:
            info = self._parser.parse(pod)
            if info.nominated_node:
                self._nominator.set(info, info.nominated_node)
            self._queue.add(info)
        elif known.obj["metadata"].get("resourceVersion") != pod["metadata"].get("resourceVersion"):
            self._queue.update(self._parser.parse(pod))

    def _is_ours(self, pod: Obj) -> bool:
        if (pod["spec"].get("schedulerName") or "default-scheduler") not in self._names:
            return False
        return is_active(pod)


def _placement_part(node: Obj) -> tuple[object, ...]:
    spec = node.get("spec") or {}
    status = node.get("status") or {}
    return (
        labels_of(node),
        spec.get("unschedulable"),
        spec.get("taints"),
        status.get("allocatable"),
        status.get("capacity"),
        status.get("images"),
        status.get("declaredFeatures"),
    )
