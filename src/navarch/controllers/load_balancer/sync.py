"""The controller that gives Services of type LoadBalancer the addresses of nodes, at which every node's proxy serves.

In: Services, Nodes, EndpointSlices. Out: `status.loadBalancer`, the finalizer that tells that there is something to
give back, and events in the words of Kubernetes' service controller. Services that name another class are others'.
Invariant: no two Services have the same port of one address.
"""

from __future__ import annotations

from typing import ClassVar, Final

from navarch.api.meta import Key, Obj, is_deleting, key_of, labels_of, namespace_of
from navarch.client.resources import ENDPOINT_SLICES, NODES, SERVICES
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.endpoints.slices import index_by_service
from navarch.controllers.load_balancer.addresses import (
    Outcome,
    addresses_of,
    choose,
    claims_of,
    given,
    is_ours,
    may_serve,
    own_ports,
)

FINALIZER: Final = "service.kubernetes.io/load-balancer-cleanup"
_SERVICE_NAME: Final = "kubernetes.io/service-name"
_BOTH: Final = ("IPv4", "IPv6")
_SETTLE_S: Final = 0.05


class LoadBalancerController(Controller):
    name: ClassVar[str] = "service-lb"
    # One at a time, so that two Services never take the same port side by side.
    workers: ClassVar[int] = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._services = self.watch_primary(SERVICES, lambda service: is_ours(service) or _has_finalizer(service))
        self._services.add_indexer("load-balanced", lambda service: ("",) if is_ours(service) else ())
        self._services.add_handler(updated=self._service_updated, deleted=self._others_may_gain)
        self._nodes = self.informer(NODES)
        self._nodes.add_handler(self._node_changed, self._node_updated, self._node_changed)
        self._slices = self.informer(ENDPOINT_SLICES)
        index_by_service(self._slices)
        self._slices.add_handler(self._slice_changed, lambda _old, new: self._slice_changed(new), self._slice_changed)
        self._told: dict[Key, str] = {}
        """By Service: why it has no address, as it was last told."""
        self._recorder = context.recorder("service-controller")

    # Events.

    def _service_updated(self, old: Obj, new: Obj) -> None:
        if is_ours(old) and (not is_ours(new) or claims_of(old) != claims_of(new)):
            # Its own filter no longer knows it once it asks for something else.
            self.enqueue(key_of(new))
            self._others_may_gain(new)

    def _others_may_gain(self, _left: Obj) -> None:
        for service in self._services.by_index("load-balanced", ""):
            self.enqueue(key_of(service), _SETTLE_S)

    def _node_changed(self, node: Obj) -> None:
        self._others_may_gain(node)

    def _node_updated(self, old: Obj, new: Obj) -> None:
        if may_serve(old) != may_serve(new) or addresses_of(old, _BOTH) != addresses_of(new, _BOTH):
            self._others_may_gain(new)

    def _slice_changed(self, each: Obj) -> None:
        service = self._services.get(namespace_of(each), labels_of(each).get(_SERVICE_NAME) or "")
        if service is not None and is_ours(service) and _is_local(service):
            self.enqueue(key_of(service), _SETTLE_S)

    # Reconciling.

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self._services.get(*key)
        if cached is None:
            self._told.pop(key, None)
            return None
        service = self.newest(SERVICES, cached)
        if not is_ours(service) or is_deleting(service):
            self._told.pop(key, None)
            if _has_finalizer(service):
                await self._give_back(service)
        elif self.context.config.load_balancer:
            await self._ensure(key, service)
        return None

    async def _ensure(self, key: Key, service: Obj) -> None:
        outcome, before = self._outcome(service), given(service)
        if not _has_finalizer(service):
            self._recorder.event(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
        elif before == outcome.addresses:
            self._tell(key, service, outcome, "")
            return
        finalizers = [*(name for name in _finalizers(service) if name != FINALIZER), FINALIZER]
        changed = {**service, "metadata": {**service["metadata"], "finalizers": finalizers}}
        entries = [{"ip": address, "ipMode": "VIP"} for address in outcome.addresses]
        balancer = {"ingress": entries} if entries else {}
        await self.write_status(SERVICES, changed, {**(service.get("status") or {}), "loadBalancer": balancer})
        self._tell(key, service, outcome, "UpdatedLoadBalancer" if before else "EnsuredLoadBalancer")

    def _outcome(self, service: Obj) -> Outcome:
        taken = own_ports(self._nodes.list(), self._slices.by_index("service", "default/kubernetes"))
        for other in self._services.by_index("load-balanced", ""):
            if key_of(other) != key_of(service) and not is_deleting(other):
                who = f"the service {key_of(other)}"
                taken |= dict.fromkeys(claims_of(self.newest(SERVICES, other)), who)
        return choose(service, self._nodes.list(), taken, self._endpoint_nodes(service))

    def _endpoint_nodes(self, service: Obj) -> set[str] | None:
        """The nodes that have a ready pod of the Service, where others would drop what they are sent."""
        if not _is_local(service):
            return None
        return {
            str(endpoint["nodeName"])
            for each in self._slices.by_index("service", str(key_of(service)))
            for endpoint in each.get("endpoints") or ()
            if endpoint.get("nodeName") and (endpoint.get("conditions") or {}).get("ready") is not False
        }

    def _tell(self, key: Key, service: Obj, outcome: Outcome, done: str) -> None:
        """What was done, or, once, why there is nothing to do it with."""
        if outcome.addresses:
            self._told.pop(key, None)
            if done:
                words = (
                    "Ensured load balancer" if done == "EnsuredLoadBalancer" else "Updated load balancer with new hosts"
                )
                self._recorder.event(service, "Normal", done, words)
            return
        reason, message = "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer"
        if outcome.conflict:
            reason = "SyncLoadBalancerFailed"
            message = f"Error syncing load balancer: failed to ensure load balancer: {outcome.conflict}"
        if self._told.get(key) != message:
            self._told[key] = message
            self._recorder.event(service, "Warning", reason, message)

    async def _give_back(self, service: Obj) -> None:
        """The Service goes, or asks for something else: its addresses are free."""
        self._recorder.event(service, "Normal", "DeletingLoadBalancer", "Deleting load balancer")
        finalizers = [name for name in _finalizers(service) if name != FINALIZER]
        changed = {**service, "metadata": {**service["metadata"], "finalizers": finalizers}}
        # Through the status, as Kubernetes' service controller does, which may write nothing else of a Service.
        await self.write_status(SERVICES, changed, {**(service.get("status") or {}), "loadBalancer": {}})
        self._recorder.event(service, "Normal", "DeletedLoadBalancer", "Deleted load balancer")
        self._others_may_gain(service)


def _is_local(service: Obj) -> bool:
    return bool(service["spec"].get("externalTrafficPolicy") == "Local")


def _finalizers(service: Obj) -> list[str]:
    return list(service["metadata"].get("finalizers") or ())


def _has_finalizer(service: Obj) -> bool:
    return FINALIZER in _finalizers(service)
