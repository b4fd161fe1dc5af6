"""Pod garbage collection: pods that nobody else will ever finish or remove.

In: pods and nodes. Out: deleted without grace: pods of nodes that no longer exist, pods that were deleted before they
had a node, terminating pods of nodes declared out of service, and finished pods above a threshold: those that were
evicted, then the oldest. A missing node is given time to come back before its pods are lost.
"""

from __future__ import annotations

from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, is_deleting, key_of, name_of
from navarch.client.resources import NODES, PODS
from navarch.controllers import disruption_target
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.nodes import taints
from navarch.controllers.nodes.lifecycle import index_by_node
from navarch.controllers.pods import created_at
from navarch.kinds.core.pod_state import is_finished

_QUARANTINE_S = 40.0
_SETTLE_S = 2.0
# Kubernetes looks every twenty seconds for pods that were deleted before they had a node: who deletes one has half of
# that to do himself what its finalizers wait for.
_UNPLACED_S = 10.0


class PodGarbageCollector(Controller):
    name: ClassVar[str] = "pod-garbage-collector"
    workers: ClassVar[int] = 8

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pods = self.informer(PODS)
        index_by_node(self._pods)
        self._pods.add_indexer("finished", lambda pod: ("",) if is_finished(pod) else ())
        self._nodes = self.informer(NODES)
        self._finished = 0
        self._pods.add_handler(self._pod_added, self._pod_updated, self._pod_deleted)
        self._nodes.add_handler(updated=self._node_updated, deleted=self._node_deleted)

    # A pod is looked at when it may have become somebody's leftover.

    def _pod_added(self, pod: Obj) -> None:
        if is_finished(pod):
            self._count_finished(pod)
        self._pod_seen(pod)

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if is_finished(pod) and not is_finished(old):
            self._count_finished(pod)
        if is_deleting(old) != is_deleting(pod) or old["spec"].get("nodeName") != pod["spec"].get("nodeName"):
            self._pod_seen(pod)

    def _pod_deleted(self, pod: Obj) -> None:
        if is_finished(pod):
            self._finished -= 1

    def _count_finished(self, pod: Obj) -> None:
        self._finished += 1
        if self._finished > self.context.config.terminated_pod_threshold:
            # In the key of one pod, for all of them: the surplus is worked out when it is worked on.
            self.enqueue(Key("", ""), _SETTLE_S)

    def _pod_seen(self, pod: Obj) -> None:
        node = pod["spec"].get("nodeName")
        if not node:
            if is_deleting(pod):
                self.enqueue(key_of(pod), _UNPLACED_S)
        elif self._nodes.get("", node) is None:
            self.enqueue(key_of(pod), _QUARANTINE_S)
        elif is_deleting(pod):
            self.enqueue(key_of(pod))

    def _node_updated(self, old: Obj, new: Obj) -> None:
        if _out_of_service(new) and (not _out_of_service(old) or taints.ready_status(old) != taints.ready_status(new)):
            for pod in self._pods.by_index("node", name_of(new)):
                self.enqueue(key_of(pod))

    def _node_deleted(self, node: Obj) -> None:
        for pod in self._pods.by_index("node", name_of(node)):
            self.enqueue(key_of(pod), _QUARANTINE_S)

    # Reconciling.

    async def reconcile(self, key: Key) -> Requeue | None:
        if not key.name:
            await self._delete_oldest()
            return None
        pod = self._pods.get(*key)
        if pod is None:
            return None
        name = pod["spec"].get("nodeName")
        if not name:
            if is_deleting(pod):
                await self._delete(pod)
            return None
        node = self._nodes.get("", name)
        if node is None:
            if await self.client.find(NODES, name) is None:
                await self._delete(pod, "PodGC: node no longer exists")
        elif is_deleting(pod) and _out_of_service(node) and taints.ready_status(node) != "True":
            await self._delete(pod, "PodGC: node is out of service")
        return None

    async def _delete_oldest(self) -> None:
        finished = self._pods.by_index("finished", "")
        surplus = len(finished) - self.context.config.terminated_pod_threshold
        if surplus <= 0:
            return
        finished.sort(key=lambda pod: (not _is_evicted(pod), created_at(pod), name_of(pod)))
        for pod in finished[:surplus]:
            await self._delete(pod)

    async def _delete(self, pod: Obj, why: str = "") -> None:
        try:
            if why:
                await disruption_target.mark(self.client, self.clock, pod, "DeletionByPodGC", why, failed=True)
            elif not is_finished(pod):
                await self.client.patch(
                    PODS, name_of(pod), pod["metadata"]["namespace"], {"status": {"phase": "Failed"}},
                    subresource="status",
                )  # fmt: skip
        except StatusError as error:
            if error.code not in (404, 409):
                raise
        await disruption_target.delete(self.client, pod, grace_s=0)


def _is_evicted(pod: Obj) -> bool:
    """Whether its kubelet gave it up; of such there may be very many, which tell nothing that the first does not."""
    status = pod.get("status") or {}
    return bool(status.get("phase") == "Failed" and status.get("reason") == "Evicted")


def _out_of_service(node: Obj) -> bool:
    return any(taint.get("key") == taints.OUT_OF_SERVICE for taint in taints.of(node))
