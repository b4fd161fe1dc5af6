"""The node lifecycle controller: notices that a node has stopped speaking and says so to everybody.

In: Nodes and their Leases in kube-node-lease. Out: conditions turned Unknown after the grace period, pods of such nodes
marked not ready, taints by condition, labels of old names that follow those of new ones. Every sign of life counts from
when it is seen here, so that clocks need not agree. Invariant: a restart of this controller condemns no node before it
has had a full grace period.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, is_deleting, key_of, labels_of, name_of, namespace_of
from navarch.api.time import format_time
from navarch.client.base import PatchKind
from navarch.client.informer import Informer
from navarch.client.resources import LEASES, NODES, PODS
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.nodes import taints
from navarch.controllers.nodes.zones import EvictionLimits, zone_of
from navarch.controllers.pods import created_at
from navarch.kinds.core.pod_state import is_ready
from navarch.records import mutable

_LEASE_NAMESPACE = "kube-node-lease"
_OLD_LABELS = (
    ("kubernetes.io/os", "beta.kubernetes.io/os"),
    ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
)
_MONITORED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


@mutable
class _Health:
    """What was last seen of a node, and when."""

    sign: tuple[str, str]
    seen_at: datetime
    status: str = ""


class NodeLifecycleController(Controller):
    name: ClassVar[str] = "node-lifecycle"
    workers: ClassVar[int] = 8

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._nodes = self.informer(NODES)
        self._nodes.add_handler(self._node_added, self._node_updated, self._node_deleted)
        self._leases = self.context.informers.get(LEASES, namespace=_LEASE_NAMESPACE)
        self._informers.append(self._leases)
        self._pods = self.informer(PODS)
        index_by_node(self._pods)
        self._health: dict[str, _Health] = {}
        self._limits = EvictionLimits()
        self._zones_valid_until_s = 0.0
        self._recorder = context.recorder("node-controller")

    def _node_added(self, node: Obj) -> None:
        name = name_of(node)
        message = f"Node {name} event: Registered Node {name} in Controller"
        self._recorder.event(node, "Normal", "RegisteredNode", message)
        self.enqueue(key_of(node))

    def _node_updated(self, old: Obj, new: Obj) -> None:
        before, after = old.get("spec") or {}, new.get("spec") or {}
        same_spec = before.get("taints") == after.get("taints") and before.get("unschedulable") == after.get(
            "unschedulable"
        )
        if (
            _old_labels(new)
            or not same_spec
            or taints.no_schedule(old) != taints.no_schedule(new)
            or _readiness(old) != _readiness(new)
        ):
            self.enqueue(key_of(new))

    def _node_deleted(self, node: Obj) -> None:
        name = name_of(node)
        self._health.pop(name, None)
        message = f"Node {name} event: Removing Node {name} from Controller"
        self._recorder.event(node, "Normal", "RemovingNode", message)

    async def background(self) -> None:
        """Look at every node's signs of life each period."""
        while True:
            for node in self._nodes.list():
                if self._is_silent(node) or (taints.ready_status(node) != "True" and not _is_driven(node)):
                    self.enqueue(key_of(node))
            await asyncio.sleep(self.context.config.node_monitor_period_s)

    # Signs of life.

    def _is_silent(self, node: Obj) -> bool:
        """Whether the grace period passed without a sign; takes note of new signs."""
        name = name_of(node)
        lease = self._leases.get(_LEASE_NAMESPACE, name)
        renewed = ((lease or {}).get("spec") or {}).get("renewTime") or ""
        ready = next((c for c in _conditions(node) if c.get("type") == "Ready"), None)
        sign = (renewed, str((ready or {}).get("lastHeartbeatTime") or ""))
        now = self.clock.now()
        health = self._health.get(name)
        if health is None:
            # A node that never spoke is judged from its creation, one that did from when we first looked.
            seen_at = now if ready is not None or renewed else created_at(node)
            health = self._health[name] = _Health(sign, seen_at)
        elif health.sign != sign:
            # Our own writing of Unknown changes no heartbeat, so this came from the node.
            health.sign, health.seen_at = sign, now
        config = self.context.config
        grace_s = config.node_monitor_grace_s if ready is not None else config.node_startup_grace_s
        return (now - health.seen_at).total_seconds() > grace_s

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self._nodes.get("", key.name)
        if cached is None:
            return None
        node = self.newest(NODES, cached)
        if self._is_silent(node):
            node = await self._mark_unknown(node)
        await self._note_readiness(node)
        await self._sync_node(node)
        return None

    def _look_at_zones(self) -> None:
        """Right before a node is given up; the look is kept for a second, as many nodes may fail together."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._zones_valid_until_s:
            return
        self._zones_valid_until_s = now_s + 1.0
        readiness: dict[str, list[bool]] = {}
        for node in self._nodes.list():
            readiness.setdefault(zone_of(node), []).append(taints.ready_status(node) == "True")
        self._limits.update(readiness)

    async def _mark_unknown(self, node: Obj) -> Obj:
        stamp = format_time(self.clock.now())
        by_type = {condition.get("type"): condition for condition in _conditions(node)}
        changed = False
        for type in _MONITORED:
            current = by_type.get(type)
            if current is None:
                by_type[type] = {
                    "type": type,
                    "status": "Unknown",
                    "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": node["metadata"].get("creationTimestamp"),
                    "lastTransitionTime": stamp,
                }
                changed = True
            elif current.get("status") != "Unknown":
                by_type[type] = {
                    **current,
                    "status": "Unknown",
                    "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                    "lastTransitionTime": stamp,
                }
                changed = True
        if not changed:
            return node
        return await self.write_status(
            NODES, node, {**(node.get("status") or {}), "conditions": list(by_type.values())}
        )

    async def _note_readiness(self, node: Obj) -> None:
        """When a node turns from ready to anything else its pods are not ready either."""
        health = self._health.get(name_of(node))
        status = taints.ready_status(node)
        if health is None or not status:
            return
        before = health.status
        if status != "True" and before != status:
            await self._mark_pods(node)
            if before == "True":
                message = f"Node {name_of(node)} status is now: NodeNotReady"
                self._recorder.event(node, "Normal", "NodeNotReady", message)
        health.status = status

    async def _mark_pods(self, node: Obj) -> None:
        stamp = format_time(self.clock.now())
        condition = {"type": "Ready", "status": "False", "lastTransitionTime": stamp}

        async def mark(pod: Obj) -> None:
            self._recorder.event(pod, "Warning", "NodeNotReady", "Node is not ready")
            patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [condition]}}
            try:
                await self.client.patch(
                    PODS, name_of(pod), namespace_of(pod), patch, kind=PatchKind.STRATEGIC, subresource="status"
                )
            except StatusError as error:
                if error.code not in (404, 409):
                    raise

        ready = [pod for pod in self._pods.by_index("node", name_of(node)) if is_ready(pod)]
        results = await asyncio.gather(*(mark(pod) for pod in ready), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _sync_node(self, node: Obj) -> None:
        if is_deleting(node):
            return
        wanted = taints.wanted(node, self._no_execute(node), format_time(self.clock.now()))
        labels = _old_labels(node)
        if wanted == taints.of(node) and not labels:
            return
        metadata = {**node["metadata"], "labels": {**labels_of(node), **labels}}
        spec = {**(node.get("spec") or {}), "taints": wanted}
        await self.write(NODES, {**node, "metadata": metadata, "spec": spec})

    def _no_execute(self, node: Obj) -> str | None:
        key = {"False": taints.NOT_READY, "Unknown": taints.UNREACHABLE}.get(taints.ready_status(node))
        if key is None:
            return None
        self._look_at_zones()
        if self._limits.all_disrupted:
            return None
        if _is_driven(node):
            return key
        return key if self._limits.take(zone_of(node), asyncio.get_running_loop().time()) else None


def _conditions(node: Obj) -> list[Obj]:
    return (node.get("status") or {}).get("conditions") or []


def _old_labels(node: Obj) -> dict[str, str]:
    """The old names of what a node is, where they do not say the same as the new ones."""
    labels = labels_of(node)
    return {old: labels[new] for new, old in _OLD_LABELS if new in labels and labels.get(old) != labels[new]}


def _readiness(node: Obj) -> str:
    return taints.ready_status(node)


def _is_driven(node: Obj) -> bool:
    """Whether the node's pods are being driven away already."""
    return any(
        taint.get("effect") == "NoExecute" and taint.get("key") in (taints.NOT_READY, taints.UNREACHABLE)
        for taint in taints.of(node)
    )


def index_by_node(pods: Informer) -> None:
    """Index `node`: pods by the node that they are bound to."""
    pods.add_indexer("node", lambda pod: (pod["spec"]["nodeName"],) if pod["spec"].get("nodeName") else ())
