"""The EndpointSlice controller: the endpoints of each Service with a selector, in slices of at most 100.

In: Services, their pods, the pods' nodes (for the zone). Out: EndpointSlices with conditions ready, serving and
terminating per endpoint. Invariant: what this controller wrote but does not yet see holds the next pass up, so that no
endpoint is written into two slices.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import (
    Key,
    Obj,
    controller_reference,
    is_deleting,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    revision_of,
)
from navarch.api.time import format_time
from navarch.client.base import Client
from navarch.client.informer import Informer
from navarch.client.resources import ENDPOINT_SLICES, NODES
from navarch.controllers.base import Context, Requeue, is_namespace_terminating
from navarch.controllers.endpoints import addresses, topology
from navarch.controllers.endpoints.reconciliation import Changes, Wanted, plan, port_identity
from navarch.controllers.endpoints.service_pods import ServicePodsController, last_change
from navarch.kinds.core.pod_state import is_ready

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
_STALE_RETRY_S = 0.02
# A pod whose node is not there (yet): the node's collector removes the pod, or the node comes.
_NODE_RETRY_S = 1.0


class SliceWriter:
    """Writes a plan's changes for one controller and knows which of them its informer does not show yet."""

    def __init__(self, client: Client, slices: Informer) -> None:
        self._client = client
        self._slices = slices
        self._pending: dict[Key, dict[str, int]] = {}

    def is_behind(self, key: Key) -> bool:
        """Whether slices of the Service were written that the informer has not seen."""
        pending = self._pending.get(key)
        if not pending:
            return False
        for name, revision in list(pending.items()):
            seen = self._slices.get(key.namespace, name)
            if revision == 0:
                settled = seen is None or is_deleting(seen)
            else:
                settled = seen is not None and revision_of(seen) >= revision
            if settled:
                del pending[name]
        if not pending:
            del self._pending[key]
            return False
        return True

    def is_own_write(self, key: Key, obj: Obj) -> bool:
        """Whether the event of `obj` only shows what was written here."""
        return self._pending.get(key, {}).get(name_of(obj)) == revision_of(obj)

    def forget(self, key: Key) -> None:
        self._pending.pop(key, None)

    async def write(self, key: Key, changes: Changes) -> None:
        # Additions come before removals, so that no endpoint is missing in between.
        for group in (
            [self._create(key, obj) for obj in changes.create] + [self._update(key, obj) for obj in changes.update],
            [self._delete(key, obj) for obj in changes.delete],
        ):
            results = await asyncio.gather(*group, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _create(self, key: Key, obj: Obj) -> None:
        try:
            created = await self._client.create(ENDPOINT_SLICES, obj)
        except StatusError as error:
            if is_namespace_terminating(error):
                return
            raise
        self._pending.setdefault(key, {})[name_of(created)] = revision_of(created)

    async def _update(self, key: Key, obj: Obj) -> None:
        updated = await self._client.update(ENDPOINT_SLICES, obj)
        self._pending.setdefault(key, {})[name_of(updated)] = revision_of(updated)

    async def _delete(self, key: Key, obj: Obj) -> None:
        try:
            await self._client.delete(ENDPOINT_SLICES, name_of(obj), namespace_of(obj), uid=obj["metadata"]["uid"])
        except StatusError as error:
            if error.code != 404:
                raise
            return
        self._pending.setdefault(key, {})[name_of(obj)] = 0


def index_by_service(slices: Informer) -> None:
    slices.add_indexer("service", _service)


def _service(obj: Obj) -> tuple[str, ...]:
    name = labels_of(obj).get(SERVICE_NAME)
    return (f"{namespace_of(obj)}/{name}",) if name else ()


class EndpointSliceController(ServicePodsController):
    name: ClassVar[str] = "endpointslice"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._nodes = self.informer(NODES)
        self._nodes.add_handler(self._node_changed, lambda _old, new: self._node_changed(new), self._node_gone)
        self._zones = topology.Zones()
        # What was told of Services that want hints by zone, for each address family.
        self._told: dict[Key, dict[str, str]] = {}
        self._slices = self.informer(ENDPOINT_SLICES)
        index_by_service(self._slices)
        self._slices.add_handler(updated=lambda _old, new: self._slice_changed(new), deleted=self._slice_changed)
        self._writer = SliceWriter(self.client, self._slices)
        self._recorder = context.recorder("endpoint-slice-controller")

    def _slice_changed(self, obj: Obj) -> None:
        name = labels_of(obj).get(SERVICE_NAME)
        if name and labels_of(obj).get(MANAGED_BY) == MANAGER:
            key = Key(namespace_of(obj), name)
            if not self._writer.is_own_write(key, obj):
                self.enqueue(key)

    def _node_changed(self, node: Obj) -> None:
        if self._zones.put(node):
            self._enqueue_shared_out()

    def _node_gone(self, node: Obj) -> None:
        if self._zones.remove(node):
            self._enqueue_shared_out()

    def _enqueue_shared_out(self) -> None:
        for key in self._told:
            self.enqueue(key)

    async def reconcile(self, key: Key) -> Requeue | None:
        service = self._services.get(*key)
        if service is None:
            # The slices have the Service as their owner and are collected with it.
            self._writer.forget(key)
            self._sizes.pop(key, None)
            self._told.pop(key, None)
            return None
        if addresses.selector_of(service) is None or is_deleting(service):
            return None
        if self._writer.is_behind(key):
            return Requeue(_STALE_RETRY_S)
        pods = self.pods_of(service)
        existing = [
            obj
            for obj in self._slices.by_index("service", str(key))
            if labels_of(obj).get(MANAGED_BY) == MANAGER and not is_deleting(obj)
        ]
        known = [pod for pod in pods if self._is_placed(service, pod)]
        wanted: list[Wanted] = []
        for family in addresses.families_of(service):
            groups = self._wanted(service, known, family)
            self._share_out(service, family, groups)
            wanted += groups
        changes = plan(existing, wanted, new_slice(service, MANAGER, last_change_text(service, pods)))
        try:
            await self._writer.write(key, changes)
        except StatusError as error:
            if error.code != 409:
                message = f"Error updating Endpoint Slices for Service {key}: {error.message}"
                self._recorder.event(service, "Warning", "FailedToUpdateEndpointSlices", message)
            raise
        return Requeue(_NODE_RETRY_S) if len(known) < len(pods) else None

    def _is_placed(self, service: Obj, pod: Obj) -> bool:
        """Whether the pod's node is there; what refers to one that is not is no endpoint, unless all are published."""
        name = pod["spec"].get("nodeName")
        return not name or addresses.publishes_not_ready(service) or self._nodes.get("", name) is not None

    def _share_out(self, service: Obj, family: str, groups: list[Wanted]) -> None:
        """Hints by zone for a Service of topology mode Auto; why there are none is told once."""
        key = key_of(service)
        if not topology.is_automatic(service):
            for each in self._told.pop(key, {}):
                self._tell(service, each, topology.DISABLED)
            return
        endpoints = {
            identity: endpoint
            for group in groups
            for identity, endpoint in group.endpoints.items()
            if endpoint["conditions"]["ready"]
        }
        zones = {identity: str(endpoint.get("zone") or "") for identity, endpoint in endpoints.items()}
        shares = topology.share_out(zones, self._zones.ratios())
        for identity, zone in shares.zones.items():
            endpoints[identity]["hints"] = {"forZones": [{"name": zone}]}
        told = self._told.setdefault(key, {})
        message = shares.why or topology.ENABLED
        if told.get(family) != message:
            told[family] = message
            self._tell(service, family, message)

    def _tell(self, service: Obj, family: str, message: str) -> None:
        enabled = message == topology.ENABLED
        self._recorder.event(
            service,
            "Normal" if enabled else "Warning",
            "TopologyAwareHintsEnabled" if enabled else "TopologyAwareHintsDisabled",
            f"{message}, addressType: {family}",
        )

    def _wanted(self, service: Obj, pods: list[Obj], family: str) -> list[Wanted]:
        groups: dict[str, Wanted] = {}
        for pod in pods:
            address = addresses.addresses_of(pod, family)
            if not address:
                continue
            ports = addresses.endpoint_ports(service, pod)
            group = groups.setdefault(port_identity(family, ports), Wanted(family, ports))
            group.endpoints[pod["metadata"]["uid"]] = self._endpoint(service, pod, address)
        if not groups:
            return [Wanted(family, [])]
        return list(groups.values())

    def _endpoint(self, service: Obj, pod: Obj, address: str) -> Obj:
        serving = is_ready(pod)
        terminating = is_deleting(pod)
        ready = addresses.publishes_not_ready(service) or (serving and not terminating)
        endpoint: Obj = {
            "addresses": [address],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "targetRef": addresses.target_reference(pod),
        }
        node_name = pod["spec"].get("nodeName")
        if node_name:
            endpoint["nodeName"] = node_name
            node = self._nodes.get("", node_name)
            zone = labels_of(node).get(topology.ZONE) if node else None
            if zone:
                endpoint["zone"] = zone
        if hostname := addresses.hostname_of(pod, service):
            endpoint["hostname"] = hostname
        if ready and (hints := addresses.hints_for(service, endpoint)) and not topology.is_automatic(service):
            endpoint["hints"] = hints
        return endpoint


def last_change_text(service: Obj, pods: list[Obj]) -> str:
    trigger = last_change(service, pods)
    return format_time(trigger) if trigger else ""


def new_slice(service: Obj, manager: str, trigger_time: str) -> Obj:
    """An EndpointSlice of a Service, without endpoints."""
    labels = {k: v for k, v in labels_of(service).items() if k != addresses.HEADLESS_LABEL}
    labels[SERVICE_NAME] = name_of(service)
    labels[MANAGED_BY] = manager
    if addresses.is_headless(service):
        labels[addresses.HEADLESS_LABEL] = ""
    metadata: Obj = {
        "generateName": f"{name_of(service)}-",
        "namespace": namespace_of(service),
        "labels": labels,
        "ownerReferences": [controller_reference({**service, "apiVersion": "v1", "kind": "Service"})],
    }
    if trigger_time:
        metadata["annotations"] = {TRIGGER_TIME: trigger_time}
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
