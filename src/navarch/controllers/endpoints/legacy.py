"""The Endpoints controller: one Endpoints object per Service with a selector, in the deprecated form that many clients
still read.

In: Services, their pods. Out: Endpoints with subsets of ready and not ready addresses, at most 1000 addresses in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import (
    Key,
    Obj,
    annotations_of,
    is_deleting,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from navarch.api.time import format_time
from navarch.client.resources import ENDPOINTS
from navarch.controllers.base import Context, Requeue, is_namespace_terminating
from navarch.controllers.endpoints import addresses
from navarch.controllers.endpoints.service_pods import ServicePodsController, last_change
from navarch.controllers.pods import same_semantics
from navarch.kinds.core.pod_state import is_ready

_LIMIT = 1000
_OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
_TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
_MANAGED_BY = "endpoints.kubernetes.io/managed-by"


class EndpointsController(ServicePodsController):
    name: ClassVar[str] = "endpoints"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._endpoints = self.informer(ENDPOINTS)
        self._endpoints.add_handler(
            updated=lambda _old, new: self._endpoints_changed(new), deleted=self._endpoints_changed
        )
        self._recorder = context.recorder("endpoint-controller")

    def _endpoints_changed(self, endpoints: Obj) -> None:
        if not self.is_own_write(ENDPOINTS, endpoints):
            self.enqueue(key_of(endpoints))

    async def reconcile(self, key: Key) -> Requeue | None:
        service = self._services.get(*key)
        if service is None:
            self._sizes.pop(key, None)
            await self._remove(key)
            return None
        if addresses.selector_of(service) is None:
            return None
        pods = self.pods_of(service)
        subsets, truncated = truncate(make_subsets(service, pods))
        cached = self._endpoints.get(*key)
        current = self.newest(ENDPOINTS, cached) if cached is not None else None
        labels, annotations = self._metadata(service, current, pods, truncated)
        if current is None:
            await self._create(service, subsets, labels, annotations)
            return None
        settled = {k: v for k, v in annotations.items() if k != _TRIGGER_TIME}
        before = {k: v for k, v in annotations_of(current).items() if k != _TRIGGER_TIME}
        if same_semantics(current.get("subsets"), subsets) and labels_of(current) == labels and before == settled:
            return None
        metadata = {**current["metadata"], "labels": labels, "annotations": annotations}
        changed = {**current, "metadata": metadata, "subsets": subsets}
        try:
            await self.write(ENDPOINTS, changed)
        except StatusError as error:
            if error.code != 409:
                message = f"Failed to update endpoint {key}: {error.message}"
                self._recorder.event(changed, "Warning", "FailedToUpdateEndpoint", message)
            raise
        return None

    async def _create(self, service: Obj, subsets: list[Obj], labels: Obj, annotations: Obj) -> None:
        made = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": name_of(service),
                "namespace": namespace_of(service),
                "labels": labels,
                "annotations": annotations,
            },
            "subsets": subsets,
        }
        try:
            await self.client.create(ENDPOINTS, made)
        except StatusError as error:
            if is_namespace_terminating(error):
                return
            if error.code != 409:
                self._recorder.event(
                    made, "Warning", "FailedToCreateEndpoint",
                    f"Failed to create endpoint for service {key_of(service)}: {error.message}",
                )  # fmt: skip
            raise

    def _metadata(self, service: Obj, current: Obj | None, pods: list[Obj], truncated: bool) -> tuple[Obj, Obj]:
        labels = dict(labels_of(service))
        labels[_MANAGED_BY] = "endpoint-controller"
        if addresses.is_headless(service):
            labels[addresses.HEADLESS_LABEL] = ""
        else:
            labels.pop(addresses.HEADLESS_LABEL, None)
        annotations = {k: v for k, v in (annotations_of(current) if current else {}).items() if k != _OVER_CAPACITY}
        if truncated:
            annotations[_OVER_CAPACITY] = "truncated"
        trigger = last_change(service, pods)
        if trigger is not None:
            annotations[_TRIGGER_TIME] = format_time(trigger)
        return labels, annotations

    async def _remove(self, key: Key) -> None:
        existing = self._endpoints.get(*key)
        if existing is None or labels_of(existing).get(_MANAGED_BY) != "endpoint-controller":
            # Endpoints of no Service are somebody's own, for instance for leader election.
            return
        try:
            await self.client.delete(ENDPOINTS, key.name, key.namespace, uid=existing["metadata"]["uid"])
        except StatusError as error:
            if error.code != 404:
                raise


def make_subsets(service: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """Addresses as Kubernetes packs them: ports that the very same pods have share a subset. A terminating pod is no
    endpoint here."""
    family = addresses.families_of(service)[0]
    all_ready = addresses.publishes_not_ready(service)
    entries: dict[str, tuple[bool, Obj]] = {}
    ports: dict[_Port, list[str]] = {}
    for pod in pods:
        address = addresses.addresses_of(pod, family)
        if not address or (is_deleting(pod) and not all_ready):
            continue
        own = addresses.endpoint_ports(service, pod)
        if not own and service["spec"].get("ports"):
            continue
        entry: Obj = {"ip": address, "targetRef": addresses.target_reference(pod)}
        if pod["spec"].get("nodeName"):
            entry["nodeName"] = pod["spec"]["nodeName"]
        if hostname := addresses.hostname_of(pod, service):
            entry["hostname"] = hostname
        uid = uid_of(pod)
        entries[uid] = is_ready(pod) or all_ready, entry
        # A headless Service without ports has endpoints too.
        for each in own or [{}]:
            ports.setdefault(tuple((k, v) for k, v in sorted(each.items()) if k != "name" or v), []).append(uid)
    together: dict[tuple[str, ...], list[_Port]] = {}
    for port, uids in sorted(ports.items()):
        together.setdefault(tuple(uids), []).append(port)
    return [_subset(shared, [entries[uid] for uid in uids]) for uids, shared in together.items()]


_Port = tuple[tuple[str, Any], ...]


def _subset(ports: Iterable[_Port], entries: Sequence[tuple[bool, Obj]]) -> Obj:
    subset: Obj = {}
    if ready := [entry for is_ready, entry in entries if is_ready]:
        subset["addresses"] = sorted(ready, key=_address_order)
    if not_ready := [entry for is_ready, entry in entries if not is_ready]:
        subset["notReadyAddresses"] = sorted(not_ready, key=_address_order)
    if listed := [dict(port) for port in ports if port]:
        subset["ports"] = sorted(listed, key=lambda port: (port.get("name", ""), port["port"]))
    return subset


def _address_order(entry: Obj) -> tuple[str, str]:
    return entry["ip"], entry["targetRef"]["uid"]


def truncate(subsets: list[Obj]) -> tuple[list[Obj], bool]:
    """At most 1000 addresses, ready ones first; of what there is not room for all of, each subset keeps its share."""
    ready = sum(len(subset.get("addresses", ())) for subset in subsets)
    others = sum(len(subset.get("notReadyAddresses", ())) for subset in subsets)
    if ready + others <= _LIMIT:
        return subsets, False
    field, total, room = ("addresses", ready, _LIMIT) if ready > _LIMIT else (
        "notReadyAddresses", others, _LIMIT - ready)  # fmt: skip
    left = room
    for subset in subsets:
        listed = subset.pop(field, [])
        if field == "addresses":
            subset.pop("notReadyAddresses", None)
        if kept := listed[: min(-(-len(listed) * room // total), left)]:
            subset[field] = kept
            left -= len(kept)
    return [s for s in subsets if s.get("addresses") or s.get("notReadyAddresses")], True
