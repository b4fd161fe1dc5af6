"""The EndpointSlice mirroring controller: Endpoints that people wrote, copied into slices that proxies read.

In: Endpoints of Services without a selector. Out: EndpointSlices that say the same, at most 1000 addresses per subset.
Endpoints that a controller writes, that serve leader election, or that say `skip-mirror` are left alone.
"""

from __future__ import annotations

from typing import ClassVar

from navarch.api.meta import Key, Obj, annotations_of, is_deleting, labels_of, name_of, namespace_of
from navarch.client.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.endpoints import addresses
from navarch.controllers.endpoints.reconciliation import Changes, Wanted, endpoint_identity, plan, port_identity
from navarch.controllers.endpoints.slices import MANAGED_BY, SERVICE_NAME, SliceWriter, index_by_service

_MANAGER = "endpointslicemirroring-controller.k8s.io"
_SKIP = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
_NOT_COPIED = {
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
}
_PER_SUBSET = 1000
_STALE_RETRY_S = 0.02


class EndpointSliceMirroringController(Controller):
    name: ClassVar[str] = "endpointslicemirroring"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._endpoints = self.watch_primary(ENDPOINTS)
        self._services = self.watch_primary(SERVICES)
        self._slices = self.informer(ENDPOINT_SLICES)
        index_by_service(self._slices)
        self._slices.add_handler(updated=lambda _old, new: self._slice_changed(new), deleted=self._slice_changed)
        self._writer = SliceWriter(self.client, self._slices)
        self._recorder = context.recorder("endpoint-slice-mirroring-controller")
        # Of which Endpoints it was told that they have more addresses than are mirrored, and how many.
        self._skipped: dict[Key, int] = {}

    def _slice_changed(self, obj: Obj) -> None:
        name = labels_of(obj).get(SERVICE_NAME)
        if name and labels_of(obj).get(MANAGED_BY) == _MANAGER:
            self.enqueue(Key(namespace_of(obj), name))

    async def reconcile(self, key: Key) -> Requeue | None:
        existing = [
            obj
            for obj in self._slices.by_index("service", str(key))
            if labels_of(obj).get(MANAGED_BY) == _MANAGER and not is_deleting(obj)
        ]
        endpoints, service = self._endpoints.get(*key), self._services.get(*key)
        if endpoints is None or service is None or not _is_mirrored(endpoints, service):
            await self._writer.write(key, Changes(delete=existing))
            self._skipped.pop(key, None)
            return None
        if self._writer.is_behind(key):
            return Requeue(_STALE_RETRY_S)
        await self._writer.write(key, plan(existing, wanted_of(endpoints), _new_slice(endpoints)))
        self._tell_skipped(key, endpoints)
        return None

    def _tell_skipped(self, key: Key, endpoints: Obj) -> None:
        skipped = skipped_of(endpoints)
        if skipped and self._skipped.get(key) != skipped:
            self._recorder.event(
                endpoints, "Warning", "TooManyAddressesToMirror",
                f"A max of {_PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints subset. "
                f"{skipped} addresses were skipped",
            )  # fmt: skip
        self._skipped[key] = skipped
        if not skipped:
            del self._skipped[key]


def _is_mirrored(endpoints: Obj, service: Obj) -> bool:
    if (service.get("spec") or {}).get("selector"):
        return False
    if labels_of(endpoints).get(_SKIP) == "true":
        return False
    return _LEADER not in annotations_of(endpoints)


def wanted_of(endpoints: Obj) -> list[Wanted]:
    groups: dict[str, Wanted] = {}
    for subset in endpoints.get("subsets") or ():
        ports = [
            {"name": port.get("name") or "", "port": port["port"], "protocol": port.get("protocol", "TCP")}
            | ({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {})
            for port in subset.get("ports") or ()
        ]
        entries = [(address, True) for address in subset.get("addresses") or ()]
        entries += [(address, False) for address in subset.get("notReadyAddresses") or ()]
        for address, ready in entries[:_PER_SUBSET]:
            family = addresses.family_of(address["ip"])
            group = groups.setdefault(port_identity(family, ports), Wanted(family, ports))
            endpoint: Obj = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
            for field in ("hostname", "nodeName", "targetRef"):
                if address.get(field):
                    endpoint[field] = address[field]
            group.endpoints[endpoint_identity(endpoint)] = endpoint
    return list(groups.values())


def skipped_of(endpoints: Obj) -> int:
    """How many addresses are too many to be mirrored."""
    sizes = (
        len(s.get("addresses") or ()) + len(s.get("notReadyAddresses") or ()) for s in endpoints.get("subsets") or ()
    )
    return sum(max(size - _PER_SUBSET, 0) for size in sizes)


def _new_slice(endpoints: Obj) -> Obj:
    labels = {k: v for k, v in labels_of(endpoints).items() if k != addresses.HEADLESS_LABEL}
    labels |= {SERVICE_NAME: name_of(endpoints), MANAGED_BY: _MANAGER}
    reference = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "name": name_of(endpoints),
        "uid": endpoints["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata: Obj = {
        "generateName": f"{name_of(endpoints)}-",
        "namespace": namespace_of(endpoints),
        "labels": labels,
        "ownerReferences": [reference],
    }
    copied = {k: v for k, v in annotations_of(endpoints).items() if k not in _NOT_COPIED}
    if copied:
        metadata["annotations"] = copied
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
