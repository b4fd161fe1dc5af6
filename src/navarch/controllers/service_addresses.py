"""Service addresses as objects: an IPAddress for every cluster IP, and the state of the range that they come from.

In: Services, IPAddresses, the ServiceCIDR `kubernetes`. Out: one IPAddress per cluster IP in use, which names its
Service; the ServiceCIDR's Ready condition, and a finalizer that keeps it while addresses of it are in use. Addresses
are given out by the API server; these objects show what it gave. Those that somebody else made are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, is_deleting, labels_of, name_of, namespace_of, uid_of
from navarch.api.time import format_time
from navarch.client.base import PatchKind
from navarch.client.resources import IP_ADDRESSES, SERVICE_CIDRS, SERVICES
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.endpoints.addresses import family_of
from navarch.kinds.core.pod_state import condition_of

_MANAGED_BY = "ipaddress.kubernetes.io/managed-by"
_FAMILY = "ipaddress.kubernetes.io/ip-family"
_ALLOCATOR = "ipallocator.k8s.io"
_FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_SERVED = "kubernetes"
"""The one ServiceCIDR that the API server gives addresses from."""


def cluster_ips(service: Obj) -> Iterable[str]:
    """The addresses of a Service; a headless one has none."""
    spec = service.get("spec") or {}
    listed = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [address for address in listed if address and address != "None"]


def _is_ours(address: Obj) -> bool:
    return labels_of(address).get(_MANAGED_BY) == _ALLOCATOR


class IPAddressController(Controller):
    """Keys are addresses."""

    name: ClassVar[str] = "ipaddress"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._addresses = self.watch_primary(IP_ADDRESSES, _is_ours)
        self._services = self.informer(SERVICES)
        self._services.add_indexer("address", cluster_ips)
        self._services.add_handler(self._service_changed, self._service_updated, self._service_changed)

    def _service_changed(self, service: Obj) -> None:
        for address in cluster_ips(service):
            self.enqueue(Key("", address))

    def _service_updated(self, old: Obj, new: Obj) -> None:
        if cluster_ips(old) != cluster_ips(new):
            self._service_changed(old)
            self._service_changed(new)

    async def reconcile(self, key: Key) -> Requeue | None:
        services = self._services.by_index("address", key.name)
        existing = self._addresses.get("", key.name)
        wanted = _ip_address(key.name, services[0]) if services else None
        if existing is None:
            if wanted is not None:
                await self._create(wanted)
            return None
        if _is_ours(existing) and (wanted is None or existing["spec"] != wanted["spec"]):
            # What an IPAddress belongs to never changes, so another takes its place when this one's end is seen.
            await self.client.delete(IP_ADDRESSES, key.name, uid=uid_of(existing))
        return None

    async def _create(self, address: Obj) -> None:
        try:
            await self.client.create(IP_ADDRESSES, address)
        except StatusError as error:
            # The informer will show it, whosever it is.
            if error.code != 409:
                raise


def _ip_address(address: str, service: Obj) -> Obj:
    parent = {"resource": "services", "namespace": namespace_of(service), "name": name_of(service)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": address, "labels": {_MANAGED_BY: _ALLOCATOR, _FAMILY: family_of(address)}},
        "spec": {"parentRef": parent},
    }


class ServiceCIDRController(Controller):
    name: ClassVar[str] = "service-cidr"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._ranges = self.watch_primary(SERVICE_CIDRS, lambda obj: name_of(obj) == _SERVED)
        self._addresses = self.informer(IP_ADDRESSES)
        self._addresses.add_handler(deleted=lambda _address: self.enqueue(Key("", _SERVED)))

    async def reconcile(self, key: Key) -> Requeue | None:
        served = self._ranges.get(*key)
        if served is None:
            return None
        finalizers = served["metadata"].get("finalizers") or []
        if not is_deleting(served):
            if _FINALIZER not in finalizers:
                await self._patch({"metadata": {"finalizers": [_FINALIZER]}})
            await self._tell(served, "True", "", "Kubernetes Service CIDR is ready")
        elif any(_is_ours(address) for address in self._addresses.list()):
            message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new "
            await self._tell(served, "False", "Terminating", f"{message}ServiceCIDR")
        elif _FINALIZER in finalizers:
            await self._patch({"metadata": {"$deleteFromPrimitiveList/finalizers": [_FINALIZER]}})
        return None

    async def _tell(self, served: Obj, status: str, reason: str, message: str) -> None:
        current = condition_of(served, "Ready") or {}
        if (current.get("status"), current.get("message")) == (status, message):
            return
        told = {
            "type": "Ready",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": format_time(self.clock.now()),
        }
        await self._patch({"status": {"conditions": [told]}}, subresource="status")

    async def _patch(self, patch: Obj, *, subresource: str = "") -> None:
        await self.client.patch(SERVICE_CIDRS, _SERVED, "", patch, kind=PatchKind.STRATEGIC, subresource=subresource)
