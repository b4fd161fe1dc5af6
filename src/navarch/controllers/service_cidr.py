"""Ranges of service addresses: which are ready to be given out from, and how long one that is to go has to stay.

In: ServiceCIDRs, IPAddresses. Out: each range's Ready condition, and a finalizer that keeps it while an address in use
lies in it and in no other range that is ready. Addresses are given out by the API server, which looks at the condition.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import ClassVar

from navarch.api.meta import Key, Obj, is_deleting, key_of, name_of
from navarch.api.time import format_time
from navarch.client.base import PatchKind
from navarch.client.resources import IP_ADDRESSES, SERVICE_CIDRS
from navarch.controllers.base import Context, Controller, Requeue
from navarch.kinds.core.pod_state import condition_of

_FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_MANAGER = "service-cidr-controller"
_READY = "Kubernetes Service CIDR is ready"
_IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"


class ServiceCIDRController(Controller):
    name: ClassVar[str] = "service-cidr"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._ranges = self.watch_primary(SERVICE_CIDRS)
        self._ranges.add_handler(self._others, lambda _old, new: self._others(new), self._others)
        self._addresses = self.informer(IP_ADDRESSES)
        self._addresses.add_handler(deleted=self._others)

    def _others(self, _changed: Obj) -> None:
        """What may let a range go that is held."""
        for each in self._ranges.list():
            if is_deleting(each):
                self.enqueue(key_of(each))

    async def reconcile(self, key: Key) -> Requeue | None:
        served = self._ranges.get(*key)
        if served is None:
            return None
        finalizers = served["metadata"].get("finalizers") or []
        if not is_deleting(served):
            if _FINALIZER not in finalizers:
                await self._patch(served, {"metadata": {"finalizers": [_FINALIZER]}})
            await self._tell(served, "True", "", _READY)
        elif self._is_needed(served):
            await self._tell(served, "False", "Terminating", _IN_USE)
        elif _FINALIZER in finalizers:
            await self._patch(served, {"metadata": {"$deleteFromPrimitiveList/finalizers": [_FINALIZER]}})
        return None

    def _is_needed(self, going: Obj) -> bool:
        """Whether an address in use lies in this range and in no other."""
        networks = list(_networks(going))
        others = [
            network
            for each in self._ranges.list()
            if name_of(each) != name_of(going) and not is_deleting(each)
            for network in _networks(each)
        ]
        for each in self._addresses.list():
            address = ip_address(name_of(each))
            if any(address in network for network in networks) and not any(address in other for other in others):
                return True
        return False

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
        applied = {
            "apiVersion": SERVICE_CIDRS.api_version,
            "kind": SERVICE_CIDRS.kind,
            "metadata": {"name": name_of(served)},
            "status": {"conditions": [told]},
        }
        await self.client.apply(SERVICE_CIDRS, applied, field_manager=_MANAGER, force=True, subresource="status")

    async def _patch(self, served: Obj, patch: Obj) -> None:
        await self.client.patch(SERVICE_CIDRS, name_of(served), "", patch, kind=PatchKind.STRATEGIC)


def _networks(served: Obj) -> Iterable[IPv4Network | IPv6Network]:
    return [ip_network(text) for text in (served.get("spec") or {}).get("cidrs") or ()]
