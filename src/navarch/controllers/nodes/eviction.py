"""Taint eviction: pods leave a node whose NoExecute taint they do not tolerate, or tolerate for a while only.

In: pods with a node, the node's taints. Out: pods deleted, at once or when their shortest `tolerationSeconds` is over.
The time counts from when the taint was added (or the pod came), so a restart of this controller does not prolong it;
for taints that do not say when that was, as those that people add, it counts from when they were first seen here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, is_deleting, key_of, name_of
from navarch.api.time import parse_time
from navarch.client.resources import NODES, PODS
from navarch.controllers import disruption_target
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.nodes import taints
from navarch.controllers.nodes.lifecycle import index_by_node
from navarch.controllers.pods import created_at
from navarch.kinds.core.node_match import tolerates

Identity = tuple[str, str, str]
"""Of a taint: key, value, effect."""


class TaintEvictionController(Controller):
    name: ClassVar[str] = "taint-eviction"
    workers: ClassVar[int] = 8

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pods = self.informer(PODS)
        index_by_node(self._pods)
        self._pods.add_handler(self._pod_added, self._pod_updated, self._pod_deleted)
        self._nodes = self.informer(NODES)
        self._nodes.add_handler(self._node_added, self._node_updated, self._node_deleted)
        self._first_seen: dict[str, dict[Identity, datetime]] = {}
        self._scheduled: set[Key] = set()
        self._recorder = context.recorder("taint-eviction-controller")

    def _pod_added(self, pod: Obj) -> None:
        name = pod["spec"].get("nodeName")
        node = self._nodes.get("", name) if name else None
        if node is not None and _no_execute(node):
            self.enqueue(key_of(pod))

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        fields = ("nodeName", "tolerations")
        if any(old["spec"].get(field) != pod["spec"].get(field) for field in fields):
            self._pod_added(pod)

    def _pod_deleted(self, pod: Obj) -> None:
        self._scheduled.discard(key_of(pod))

    def _node_added(self, node: Obj) -> None:
        self._note_taints(node)
        if _no_execute(node):
            self._enqueue_pods(node)

    def _node_updated(self, old: Obj, new: Obj) -> None:
        if _no_execute(old) != _no_execute(new):
            self._note_taints(new)
            self._enqueue_pods(new)

    def _node_deleted(self, node: Obj) -> None:
        self._first_seen.pop(name_of(node), None)

    def _note_taints(self, node: Obj) -> None:
        """Remember when taints without a time came, as long as they are there."""
        before = self._first_seen.pop(name_of(node), {})
        now = self.clock.now()
        undated = [_identity(taint) for taint in _no_execute(node) if not taint.get("timeAdded")]
        if undated:
            self._first_seen[name_of(node)] = {identity: before.get(identity, now) for identity in undated}

    def _enqueue_pods(self, node: Obj) -> None:
        for pod in self._pods.by_index("node", name_of(node)):
            self.enqueue(key_of(pod))

    async def reconcile(self, key: Key) -> Requeue | None:
        pod = self._pods.get(*key)
        if pod is None or is_deleting(pod) or not pod["spec"].get("nodeName"):
            self._scheduled.discard(key)
            return None
        node = self._nodes.get("", pod["spec"]["nodeName"])
        first_seen = self._first_seen.get(pod["spec"]["nodeName"], {})
        due = eviction_time(pod, node, self.clock.now(), first_seen) if node is not None else None
        if due is None:
            if key in self._scheduled:
                self._scheduled.discard(key)
                message = f"Cancelling deletion of Pod {key}"
                self._recorder.event(pod, "Normal", "TaintManagerEviction", message)
            return None
        wait_s = (due - self.clock.now()).total_seconds()
        if wait_s > 0:
            self._scheduled.add(key)
            return Requeue(wait_s)
        self._scheduled.discard(key)
        self._recorder.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        try:
            message = "Taint manager: deleting due to NoExecute taint"
            await disruption_target.mark(self.client, self.clock, pod, "DeletionByTaintManager", message)
        except StatusError as error:
            if error.code not in (404, 409):
                raise
        await disruption_target.delete(self.client, pod)
        return None


def _no_execute(node: Obj) -> list[Obj]:
    return [taint for taint in taints.of(node) if taint.get("effect") == "NoExecute"]


def _identity(taint: Obj) -> Identity:
    return taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""


def eviction_time(pod: Obj, node: Obj, now: datetime, first_seen: Mapping[Identity, datetime]) -> datetime | None:
    """When the pod has to go; None where it may stay. `first_seen` dates the taints that do not say when they came."""
    tolerations = pod["spec"].get("tolerations") or []
    due: datetime | None = None
    for taint in _no_execute(node):
        met = [toleration for toleration in tolerations if tolerates(toleration, taint)]
        if not met:
            return now
        bounded = [max(int(t["tolerationSeconds"]), 0) for t in met if t.get("tolerationSeconds") is not None]
        if not bounded:
            continue
        added = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else first_seen.get(_identity(taint), now)
        candidate = max(added, created_at(pod)) + timedelta(seconds=min(bounded))
        due = candidate if due is None else min(due, candidate)
    return due
