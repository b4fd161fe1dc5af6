"""Service validation: ports, types, addresses and families, session affinity, traffic policies; and what may change.

In: a defaulted Service (addresses allocated).  Out: field errors in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from navarch.api.addresses import ip_problems, is_one_of_each_family, read_ip
from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import (
    validate_cidr,
    validate_dns_label,
    validate_dns_subdomain,
    validate_ip,
    validate_labels,
    validate_not_special_ip,
    validate_port,
    validate_port_or_name,
    validate_qualified_name,
)
from navarch.kinds.internal import internal

_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_EXTERNAL: Final = ("NodePort", "LoadBalancer")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_POLICIES: Final = ("Cluster", "Local")
_FAMILIES: Final = ("IPv4", "IPv6")
_FAMILY_POLICIES: Final = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS: Final = ("PreferClose", "PreferSameZone", "PreferSameNode")
_AFFINITY_CONFIG: Final = "spec.sessionAffinityConfig"
_HINTS: Final = "service.kubernetes.io/topology-aware-hints"
_MODE: Final = "service.kubernetes.io/topology-mode"
_SOURCE_RANGES: Final = "service.beta.kubernetes.io/load-balancer-source-ranges"


def validate_service(service: Obj) -> Iterator[FieldError]:
    spec = service["spec"]
    kind, headless = spec.get("type") or "", is_headless(spec)
    annotations = service["metadata"].get("annotations") or {}
    hints, mode = annotations.get(_HINTS), annotations.get(_MODE)
    if hints is not None and mode is not None and hints != mode:
        detail = f"must match annotations[{_HINTS}] when both are specified"
        yield invalid_value(f"metadata.annotations[{_MODE}]", mode, detail)
    if not spec.get("ports") and not headless and kind != "ExternalName":
        yield required("spec.ports")
    yield from _validate_type(spec, kind, headless)
    ports = spec.get("ports") or ()
    names: set[str] = set()
    for index, port in enumerate(ports):
        yield from _validate_port(port, f"spec.ports[{index}]", names, several=len(ports) > 1)
    if spec.get("selector"):
        yield from validate_labels(spec["selector"], "spec.selector")
    yield from _validate_affinity(spec)
    if kind != "ExternalName":
        yield from validate_service_addresses(spec)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        yield from validate_ip(address, f"spec.externalIPs[{index}]")
        if read_ip(address) is not None:
            yield from validate_not_special_ip(address, f"spec.externalIPs[{index}]")
    if not kind:
        yield required("spec.type")
    elif kind not in _TYPES:
        yield not_supported("spec.type", kind, _TYPES)
    yield from _validate_port_numbers(ports, kind)
    yield from _validate_load_balancer(spec, kind, annotations)
    yield from _validate_policies(spec, kind)


def is_headless(spec: Obj) -> bool:
    return (spec.get("clusterIPs") or ()) == ["None"]


def _validate_type(spec: Obj, kind: str, headless: bool) -> Iterator[FieldError]:
    if kind in _EXTERNAL and headless:
        yield invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    if kind != "ExternalName":
        return
    for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(field):
            yield forbidden_field(f"spec.{field}", "may not be set for ExternalName services")
    name = (spec.get("externalName") or "").removesuffix(".")
    if not name:
        yield required("spec.externalName")
    else:
        yield from validate_dns_subdomain(name, "spec.externalName")


def _validate_port(port: Obj, path: str, names: set[str], *, several: bool) -> Iterator[FieldError]:
    name, protocol = port.get("name") or "", port.get("protocol") or ""
    if name:
        yield from validate_dns_label(name, f"{path}.name")
        if name in names:
            yield duplicate(f"{path}.name", name)
        names.add(name)
    elif several:
        yield required(f"{path}.name")
    yield from validate_port(port.get("port", 0), f"{path}.port")
    if not protocol:
        yield required(f"{path}.protocol")
    elif protocol not in _PROTOCOLS:
        yield not_supported(f"{path}.protocol", protocol, _PROTOCOLS)
    yield from validate_port_or_name(port.get("targetPort", 0), f"{path}.targetPort")
    if port.get("appProtocol") is not None:
        yield from validate_qualified_name(port["appProtocol"], f"{path}.appProtocol")


def _validate_port_numbers(ports: Sequence[Obj], kind: str) -> Iterator[FieldError]:
    """No number twice with the same protocol; node ports only where the type has them."""
    if kind == "ClusterIP":
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                yield forbidden_field(f"spec.ports[{index}].nodePort", "may not be used when `type` is 'ClusterIP'")
    for field in ("nodePort", "port"):
        seen: set[tuple[str, int]] = set()
        for index, port in enumerate(ports):
            key = (port.get("protocol") or "", port.get(field) or 0)
            if field == "nodePort" and not key[1]:
                continue
            if key in seen:
                shown = internal({"protocol": key[0], "port": key[1]}, "ServicePortKey")
                at = f"spec.ports[{index}]"
                yield duplicate(f"{at}.nodePort", key[1]) if field == "nodePort" else duplicate(at, shown)
            seen.add(key)


def _validate_affinity(spec: Obj) -> Iterator[FieldError]:
    affinity, config, at = spec.get("sessionAffinity") or "", spec.get("sessionAffinityConfig"), _AFFINITY_CONFIG
    if not affinity:
        yield required("spec.sessionAffinity")
    elif affinity not in ("ClientIP", "None"):
        yield not_supported("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    if affinity == "None" and config is not None:
        yield forbidden_field(at, "must not be set when session affinity is None")
    if affinity == "ClientIP":
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds", 10800)
        if not 0 < seconds <= 86400:
            yield invalid_value(f"{at}.clientIP.timeoutSeconds", seconds, "must be greater than 0 and less than 86400")


def validate_service_addresses(spec: Obj) -> Iterator[FieldError]:
    """Addresses and their families; also asked before addresses are given out."""
    addresses, families, policy = spec.get("clusterIPs") or [], spec.get("ipFamilies") or [], spec.get("ipFamilyPolicy")
    single = spec.get("clusterIP") or ""
    if single and not addresses:
        yield required("spec.clusterIPs")
    elif single and addresses[0] != single:
        yield invalid_value("spec.clusterIPs", addresses, "first value must match `clusterIP`")
    elif addresses and not single:
        yield invalid_value("spec.clusterIPs", addresses, "must be empty when `clusterIP` is not specified")
    for index, family in enumerate(families):
        if family not in _FAMILIES:
            yield not_supported(f"spec.ipFamilies[{index}]", family, _FAMILIES)
        if family in families[:index]:
            yield duplicate(f"spec.ipFamilies[{index}]", family)
    if policy is not None and policy not in _FAMILY_POLICIES:
        yield not_supported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES)
    malformed = False
    for index, address in enumerate(addresses):
        if index == 0 and address == "None":
            if len(addresses) > 1:
                malformed = True
                yield invalid_value("spec.clusterIPs", addresses, "'None' must be the first and only value")
            continue
        for problem in ip_problems(address):
            malformed = True
            yield invalid_value(f"spec.clusterIPs[{index}]", address, problem)
    if len(addresses) > 2:
        yield invalid_value("spec.clusterIPs", addresses, "may only hold up to 2 values")
    if malformed:
        return
    if len(addresses) > 1 and not is_one_of_each_family(addresses):
        yield invalid_value("spec.clusterIPs", addresses, "may specify no more than one IP for each IP family")
    if not is_headless(spec):
        for index, (address, family) in enumerate(zip(addresses, families, strict=False)):
            read = read_ip(address)
            if family in _FAMILIES and read is not None and f"IPv{read.version}" != family:
                detail = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
                yield invalid_value(f"spec.clusterIPs[{index}]", address, detail)


def _validate_load_balancer(spec: Obj, kind: str, annotations: Obj) -> Iterator[FieldError]:
    balanced, only = kind == "LoadBalancer", "may only be used when `type` is 'LoadBalancer'"
    if ranges := spec.get("loadBalancerSourceRanges"):
        at = "spec.LoadBalancerSourceRanges"
        if not balanced:
            yield forbidden_field(at, only)
        for index, text in enumerate(ranges):
            yield from validate_cidr(text.strip(), f"{at}[{index}]")
    elif (stated := annotations.get(_SOURCE_RANGES)) is not None:
        at = f"metadata.annotations[{_SOURCE_RANGES}]"
        if not balanced:
            yield forbidden_field(at, only)
        for text in stated.strip().split(",") if stated.strip() else ():
            yield from validate_cidr(text.strip(), at)
    if spec.get("allocateLoadBalancerNodePorts") is not None and not balanced:
        yield forbidden_field("spec.allocateLoadBalancerNodePorts", only)
    if balanced and spec.get("allocateLoadBalancerNodePorts") is None:
        yield required("allocateLoadBalancerNodePorts")
    yield from _validate_class(spec)


def _validate_class(spec: Obj) -> Iterator[FieldError]:
    name, at = spec.get("loadBalancerClass"), "spec.loadBalancerClass"
    if name is None:
        return
    if spec.get("type") == "LoadBalancer":
        yield from validate_qualified_name(name, at)
    else:
        yield forbidden_field(at, "may only be used when `type` is 'LoadBalancer'")


def _validate_policies(spec: Obj, kind: str) -> Iterator[FieldError]:
    external = spec.get("externalTrafficPolicy") or ""
    accessible = kind in _EXTERNAL or (kind == "ClusterIP" and bool(spec.get("externalIPs")))
    if not accessible:
        if external:
            detail = "may only be set for externally-accessible services"
            yield invalid_value("spec.externalTrafficPolicy", external, detail)
    elif not external:
        yield required("spec.externalTrafficPolicy")
    elif external not in _POLICIES:
        yield not_supported("spec.externalTrafficPolicy", external, _POLICIES)
    port = spec.get("healthCheckNodePort") or 0
    if kind != "LoadBalancer" or external != "Local":
        if port:
            detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            yield invalid_value("spec.healthCheckNodePort", port, detail)
    elif port:
        yield from validate_port(port, "spec.healthCheckNodePort")
    else:
        yield required("spec.healthCheckNodePort")
    inner = spec.get("internalTrafficPolicy")
    if inner is None and kind in ("ClusterIP", *_EXTERNAL):
        yield required("spec.internalTrafficPolicy")
    elif inner is not None and inner not in _POLICIES:
        yield not_supported("spec.internalTrafficPolicy", inner, _POLICIES)
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        yield not_supported("spec.trafficDistribution", distribution, _DISTRIBUTIONS)


def validate_service_update(service: Obj, old: Obj) -> Iterator[FieldError]:
    """Addresses and families that were given out stay; a second of each may come and go."""
    spec, was = service["spec"], old["spec"]
    if "ExternalName" not in (spec.get("type"), was.get("type")):
        headless, was_headless = is_headless(spec), is_headless(was)
        if not headless or not was_headless:
            yield from _validate_kept(spec, was, "clusterIPs", "clusterIP")
        if not headless and not was_headless:
            yield from _validate_kept(spec, was, "ipFamilies", "ipFamily")
    both = was.get("type") == "LoadBalancer" and spec.get("type") == "LoadBalancer"
    if both and spec.get("loadBalancerClass") != was.get("loadBalancerClass"):
        yield invalid_value("spec.loadBalancerClass", spec.get("loadBalancerClass"), "may not change once set")
    # Kubernetes looks at the class itself here too, and says what is wrong with it twice.
    yield from _validate_class(spec)
    local = all(each.get("externalTrafficPolicy") == "Local" for each in (spec, was))
    if both and local and (spec.get("healthCheckNodePort") or 0) != (was.get("healthCheckNodePort") or 0):
        yield forbidden_field("spec.healthCheckNodePort", "field is immutable")


def _validate_kept(spec: Obj, was: Obj, field: str, one: str) -> Iterator[FieldError]:
    new, before = spec.get(field) or [], was.get(field) or []
    # What is shown of changed families are the addresses, but where their number stays.
    shown = new if field == "clusterIPs" or len(new) == len(before) else spec.get("clusterIPs") or []
    if len(new) == len(before):
        for index, value in enumerate(before):
            if value != new[index]:
                at = index if field == "clusterIPs" else 0
                yield invalid_value(f"spec.{field}[{at}]", shown, "may not change once set")
        return
    if before and not new:
        yield invalid_value(f"spec.{field}[0]", new or None, f"primary {one} can not be unset")
    if before and new and new[0] != before[0]:
        yield invalid_value(f"spec.{field}[0]", shown, "may not change once set")
    if len(before) > len(new) == 1 and spec.get("ipFamilyPolicy") != "SingleStack":
        detail = f"must be set to 'SingleStack' when releasing the secondary {one}"
        yield invalid_value("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), detail)


def validate_service_status(service: Obj) -> Iterator[FieldError]:
    """Where a load balancer is reached."""
    points = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    at = "status.loadBalancer.ingress"
    if points and service["spec"].get("type") != "LoadBalancer":
        yield forbidden_field(at, "may only be used when `spec.type` is 'LoadBalancer'")
        return
    for index, point in enumerate(points):
        yield from _validate_point(point, f"{at}[{index}]")


def _validate_point(point: Obj, path: str) -> Iterator[FieldError]:
    address, mode, host = point.get("ip") or "", point.get("ipMode"), point.get("hostname") or ""
    if address:
        yield from validate_ip(address, f"{path}.ip")
    if mode is None:
        if address:
            yield required(f"{path}.ipMode", "must be specified when `ip` is set")
    elif not address:
        yield forbidden_field(f"{path}.ipMode", "may not be specified when `ip` is not set")
    elif mode not in ("Proxy", "VIP"):
        yield not_supported(f"{path}.ipMode", mode, ("Proxy", "VIP"))
    if host:
        yield from validate_dns_subdomain(host, f"{path}.hostname")
        if read_ip(host) is not None:
            yield invalid_value(f"{path}.hostname", host, "must be a DNS name, not an IP address")
