"""The control plane's side of Ingresses: the class of the embedded controller, and the addresses that serve them.

In: Ingresses, IngressClasses, Nodes, which say by an annotation where they serve. Out: the IngressClass `navarch`, made
once where it is missing, `status.loadBalancer` of the Ingresses of its controller, and an event when they are served.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, annotations_of, is_deleting, key_of, name_of
from navarch.client.resources import INGRESS_CLASSES, INGRESSES, NODES
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.load_balancer.addresses import may_serve
from navarch.kinds.core.kubelets import is_real
from navarch.kinds.networking.ingress_classes import CLASS, CONTROLLER, DEFAULT_CLASS, SERVES, is_ours

_SETTLE_S = 0.05


class IngressStatusController(Controller):
    name: ClassVar[str] = "ingress-status"
    workers: ClassVar[int] = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._can_serve = asyncio.Event()
        self._ingresses = self.watch_primary(INGRESSES)
        self._classes = self.informer(INGRESS_CLASSES)
        self._classes.add_handler(self._all, lambda _old, new: self._all(new), self._all)
        self._nodes = self.informer(NODES)
        self._nodes.add_handler(self._node_changed, self._node_updated, self._node_changed)
        self._recorder = context.recorder("ingress-controller")

    def _all(self, _changed: Obj) -> None:
        for ingress in self._ingresses.list():
            self.enqueue(key_of(ingress), _SETTLE_S)

    def _node_changed(self, node: Obj) -> None:
        self._node_seen(node)
        if SERVES in annotations_of(node):
            self._all(node)

    def _node_seen(self, node: Obj) -> None:
        if self.context.config.ingress and (is_real(node) or SERVES in annotations_of(node)):
            self._can_serve.set()

    def _node_updated(self, old: Obj, new: Obj) -> None:
        self._node_seen(new)
        if _addresses(old) != _addresses(new):
            self._all(new)

    async def background(self) -> None:
        """Make the class, once there are nodes that can serve it; what people change of it stays."""
        await self._can_serve.wait()
        if self._classes.get("", CLASS) is not None:
            return
        metadata = {"name": CLASS, "annotations": {DEFAULT_CLASS: "true"}}
        try:
            await self.client.create(INGRESS_CLASSES, {"metadata": metadata, "spec": {"controller": CONTROLLER}})
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self._ingresses.get(*key)
        if not self.context.config.ingress or cached is None or is_deleting(cached):
            return None
        ingress = self.newest(INGRESSES, cached)
        if not is_ours(ingress, self._classes.list()):
            return None
        nodes = sorted(self._nodes.list(), key=name_of)
        wanted = [{"ip": address} for address in dict.fromkeys(each for node in nodes for each in _addresses(node))]
        status = ingress.get("status") or {}
        before = (status.get("loadBalancer") or {}).get("ingress") or []
        if [{"ip": entry.get("ip")} for entry in before] == wanted:
            return None
        balancer = {"ingress": wanted} if wanted else {}
        await self.write_status(INGRESSES, ingress, {**status, "loadBalancer": balancer})
        if wanted and not before:
            where = ", ".join(entry["ip"] for entry in wanted)
            self._recorder.event(ingress, "Normal", "Synced", f"Served at {where}")
        return None


def _addresses(node: Obj) -> list[str]:
    """Where the node serves Ingresses, while it may be sent to."""
    stated = annotations_of(node).get(SERVES) or ""
    return [address for address in stated.split(",") if address] if may_serve(node) else []
