"""Service: defaults, what a change of type carries over or drops, and what `kubectl get services` shows.

Addresses and node ports are given out by admission (`apiserver/admission/services.py`); here is only what can be known
from the object and its predecessor. Invariant: a value that was allocated stays, unless its type stops needing it or
the writer asks for another where that is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, invalid, invalid_value
from navarch.api.meta import Obj
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.columns import labels as format_labels
from navarch.kinds.columns import load_balancer
from navarch.kinds.core.cells import NONE
from navarch.kinds.core.service_validation import (
    validate_service,
    validate_service_status,
    validate_service_update,
)
from navarch.kinds.core.service_warnings import service_warnings
from navarch.kinds.strategies import strategy

_AFFINITY_TIMEOUT_S: Final = 10800
_EXTERNAL_TYPES: Final = ("NodePort", "LoadBalancer")


def needs_cluster_ip(spec: Obj) -> bool:
    """Whether services of this type have virtual addresses (or say that they want none)."""
    return bool(spec.get("type") != "ExternalName")


def needs_node_ports(spec: Obj) -> bool:
    """Whether every port of the service gets a node port."""
    kind = spec.get("type")
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)


def needs_health_check_port(spec: Obj) -> bool:
    """Load balancers that keep traffic on its node ask each node whether it has endpoints."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


_balanced: Final = load_balancer()


def _external_cell(service: Obj, now: datetime) -> str:
    spec = service["spec"]
    kind = spec.get("type")
    if kind == "ExternalName":
        return str(spec.get("externalName") or "")
    own = spec.get("externalIPs") or []
    if kind != "LoadBalancer":
        return ",".join(own) or NONE
    return ",".join([*filter(None, [_balanced(service, now)]), *own]) or "<pending>"


def _ports_cell(service: Obj, now: datetime) -> str:
    shown = []
    for port in service["spec"].get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port')}{node}/{port.get('protocol')}")
    return ",".join(shown) or NONE


def _cluster_ip_cell(service: Obj, now: datetime) -> str:
    addresses = service["spec"].get("clusterIPs") or ()
    return str(addresses[0] if addresses else service["spec"].get("clusterIP") or NONE) or NONE


def _selector_cell(service: Obj, now: datetime) -> str:
    return format_labels(service["spec"].get("selector"))


@strategy("", "Service")
class ServiceStrategy(Strategy):
    returns_deleted = True
    columns = (
        NAME,
        Column("Type", ".spec.type", description="How the service is exposed"),
        Column("Cluster-IP", _cluster_ip_cell, description="Its virtual address"),
        Column("External-IP", _external_cell, description="Where it is reached from outside"),
        Column("Port(s)", _ports_cell, description="Its ports, with node ports and protocols"),
        AGE,
        Column("Selector", _selector_cell, wide=True, description="Which pods serve it"),
    )
    selectable = ("spec.clusterIP", "spec.type")
    name_rule = "label"
    # What a service of another type loses stays owned until the next write.
    owns_what_it_says = True
    allow_create_on_update = True

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("sessionAffinity"):
            spec["sessionAffinity"] = "None"
        if not spec.get("type"):
            spec["type"] = "ClusterIP"
        if spec["sessionAffinity"] == "None":
            spec.pop("sessionAffinityConfig", None)
        elif spec["sessionAffinity"] == "ClientIP":
            client = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
            client.setdefault("timeoutSeconds", _AFFINITY_TIMEOUT_S)
        for port in spec.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"
            if not port.get("targetPort"):
                port["targetPort"] = port.get("port", 0)
        kind = spec["type"]
        accessible = kind in _EXTERNAL_TYPES or (kind == "ClusterIP" and spec.get("externalIPs"))
        if accessible and not spec.get("externalTrafficPolicy"):
            spec["externalTrafficPolicy"] = "Cluster"
        if kind in ("ClusterIP", *_EXTERNAL_TYPES) and not spec.get("internalTrafficPolicy"):
            spec["internalTrafficPolicy"] = "Cluster"
        if kind == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)
            for ingress in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
                if ingress.get("ip") and not ingress.get("ipMode"):
                    ingress["ipMode"] = "VIP"

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {"loadBalancer": {}}
        spec = obj["spec"]
        if not obj["metadata"].get("name") and needs_cluster_ip(spec) and spec.get("clusterIP") != "None":
            # The address is given out before anything is looked at, and in the service's name.
            why = "failed to allocate IP: the IPAddress is invalid: spec.parentRef.name: Required value"
            raise invalid("Service", "", "", [invalid_value("spec.clusterIPs", spec.get("clusterIPs"), why)])
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        _drop_type_dependent(spec, None)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        obj["status"] = old.get("status") or {"loadBalancer": {}}
        spec, was = obj["spec"], old["spec"]
        _agree_on_addresses(spec, was)
        _keep_allocated(spec, was)
        _drop_type_dependent(spec, was)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        if old is not None:
            yield from validate_service_update(obj, old)
        yield from validate_service(obj)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return validate_service_status(obj)

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        return service_warnings(obj, old)


def _agree_on_addresses(spec: Obj, was: Obj) -> None:
    """`clusterIP` and the first of `clusterIPs` are one thing; where a writer changed only one, the other follows."""
    single, listed = spec.get("clusterIP") or "", spec.get("clusterIPs") or []
    old_single, old_listed = was.get("clusterIP") or "", was.get("clusterIPs") or []
    if single == old_single and listed == old_listed:
        return
    if single != old_single and listed == old_listed:
        # An old client knows only the one field.
        if single:
            spec["clusterIPs"] = [single, *listed[1:]] if listed else [single]
        elif listed:
            del spec["clusterIPs"]
    elif single == old_single and listed and listed[0] != single:
        spec["clusterIP"] = listed[0]
    elif single == old_single and not listed:
        spec.pop("clusterIP", None)


def _keep_allocated(spec: Obj, was: Obj) -> None:
    """What was given out before stays, where the update is silent about it."""
    if needs_cluster_ip(was) and needs_cluster_ip(spec):
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if not spec.get(field) and was.get(field):
                spec[field] = was[field]
    if needs_node_ports(was) and needs_node_ports(spec):
        allocated = {_port_key(port): port["nodePort"] for port in was.get("ports") or () if port.get("nodePort")}
        used = {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
        for port in spec.get("ports") or ():
            number = allocated.get(_port_key(port))
            if not port.get("nodePort") and number and number not in used:
                port["nodePort"] = number
                used.add(number)
    if needs_health_check_port(was) and needs_health_check_port(spec) and not spec.get("healthCheckNodePort"):
        if was.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = was["healthCheckNodePort"]


def _port_key(port: Obj) -> tuple[str, int]:
    return port.get("protocol", "TCP"), port.get("port", 0)


def _drop_type_dependent(spec: Obj, was: Obj | None) -> None:
    """Fields that the new type has no use for go, where the writer merely left them as they were."""
    if was is None:
        return
    if needs_cluster_ip(was) and not needs_cluster_ip(spec):
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            if not spec.get(field) or spec[field] == was.get(field):
                spec.pop(field, None)
    if needs_node_ports(was) and not needs_node_ports(spec):
        before = {_port_key(port): port.get("nodePort") for port in was.get("ports") or ()}
        numbers = set(before.values())
        for port in spec.get("ports") or ():
            if port.get("nodePort") in numbers:
                port.pop("nodePort", None)
    if needs_health_check_port(was) and not needs_health_check_port(spec):
        if spec.get("healthCheckNodePort") == was.get("healthCheckNodePort"):
            spec.pop("healthCheckNodePort", None)
    external = ("allocateLoadBalancerNodePorts", "loadBalancerClass")
    if was.get("type") == "LoadBalancer" and spec.get("type") != "LoadBalancer":
        for field in external:
            if spec.get(field) == was.get(field):
                spec.pop(field, None)
    if was.get("type") in _EXTERNAL_TYPES and spec.get("type") not in _EXTERNAL_TYPES and not spec.get("externalIPs"):
        if spec.get("externalTrafficPolicy") == was.get("externalTrafficPolicy"):
            spec.pop("externalTrafficPolicy", None)
    if was.get("type") == "ExternalName" and spec.get("type") != "ExternalName":
        if spec.get("externalName") == was.get("externalName"):
            spec.pop("externalName", None)
