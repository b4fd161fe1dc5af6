"""Service validation: ports, types, addresses and families, session affinity, traffic policies; and what may change.

In: a defaulted Service (addresses allocated).  Out: field errors in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Final

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import (
    ip_problems,
    validate_dns_label,
    validate_dns_subdomain,
    validate_labels,
    validate_port,
    validate_port_or_name,
    validate_qualified_name,
)
from navarch.kinds.core.endpoints import validate_endpoint_ip

_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_EXTERNAL: Final = ("NodePort", "LoadBalancer")
_POLICIES: Final = ("Cluster", "Local")
_FAMILY_POLICIES: Final = ("SingleStack", "PreferDualStack", "RequireDualStack")
_DISTRIBUTIONS: Final = ("PreferClose", "PreferSameZone", "PreferSameNode")


def validate_service(service: Obj) -> Iterator[FieldError]:
    spec = service["spec"]
    kind = spec.get("type") or ""
    headless = spec.get("clusterIP") == "None"
    if not spec.get("ports") and not headless and kind != "ExternalName":
        yield required("spec.ports")
    yield from _validate_type(spec, kind, headless)
    yield from _validate_ports(spec, kind, headless)
    if spec.get("selector"):
        yield from validate_labels(spec["selector"], "spec.selector")
    yield from _validate_affinity(spec)
    yield from _validate_addresses(spec, kind)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        yield from validate_endpoint_ip(address, f"spec.externalIPs[{index}]")
    yield from _validate_policies(spec, kind)
    yield from _validate_load_balancer(spec, kind)


def _validate_type(spec: Obj, kind: str, headless: bool) -> Iterator[FieldError]:
    if not kind:
        yield required("spec.type")
    elif kind not in _TYPES:
        yield not_supported("spec.type", kind, _TYPES)
    if kind in _EXTERNAL and headless:
        yield invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    if kind == "ExternalName":
        if spec.get("clusterIPs"):
            yield forbidden_field("spec.clusterIPs", "may not be set when `type` is ExternalName")
        name = (spec.get("externalName") or "").removesuffix(".")
        if not name:
            yield required("spec.externalName")
        else:
            yield from validate_dns_subdomain(name, "spec.externalName")


def _validate_ports(spec: Obj, kind: str, headless: bool) -> Iterator[FieldError]:
    ports = spec.get("ports") or ()
    names: set[str] = set()
    numbers: set[tuple[str, int]] = set()
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        name, protocol = port.get("name") or "", port.get("protocol") or ""
        if not name:
            if len(ports) > 1:
                yield required(f"{at}.name")
        else:
            yield from validate_dns_label(name, f"{at}.name")
            if name in names:
                yield duplicate(f"{at}.name", name)
            names.add(name)
        yield from validate_port(port.get("port", 0), f"{at}.port")
        if not protocol:
            yield required(f"{at}.protocol")
        elif protocol not in ("SCTP", "TCP", "UDP"):
            yield not_supported(f"{at}.protocol", protocol, ("SCTP", "TCP", "UDP"))
        yield from validate_port_or_name(port.get("targetPort", 0), f"{at}.targetPort")
        if port.get("appProtocol"):
            yield from validate_qualified_name(port["appProtocol"], f"{at}.appProtocol")
        node_port = port.get("nodePort")
        if node_port and kind not in _EXTERNAL:
            yield forbidden_field(f"{at}.nodePort", f"may not be used when `type` is '{kind}'")
        elif node_port and (protocol, node_port) in node_ports:
            yield duplicate(f"{at}.nodePort", node_port)
        key = (protocol, port.get("port", 0))
        if key in numbers:
            yield duplicate(at, port)
        numbers.add(key)
        if node_port:
            node_ports.add((protocol, node_port))


def _validate_affinity(spec: Obj) -> Iterator[FieldError]:
    affinity = spec.get("sessionAffinity") or ""
    if affinity not in ("ClientIP", "None"):
        yield not_supported("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    config = spec.get("sessionAffinityConfig")
    if affinity == "None" and config:
        detail = "must not be set when session affinity is None"
        yield forbidden_field("spec.sessionAffinityConfig", detail)
    if affinity == "ClientIP":
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds", 10800)
        if not 0 < seconds <= 86400:
            detail = "must be greater than 0 and less than 86400"
            yield invalid_value("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, detail)


def _validate_addresses(spec: Obj, kind: str) -> Iterator[FieldError]:
    addresses = spec.get("clusterIPs") or []
    families = spec.get("ipFamilies") or []
    policy = spec.get("ipFamilyPolicy")
    if kind == "ExternalName":
        if families:
            yield forbidden_field("spec.ipFamilies", "may not be set for ExternalName services")
        if policy:
            yield forbidden_field("spec.ipFamilyPolicy", "may not be set for ExternalName services")
        return
    if policy is not None and policy not in _FAMILY_POLICIES:
        yield not_supported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES)
    for index, family in enumerate(families):
        if family not in ("IPv4", "IPv6"):
            yield not_supported(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6"))
        elif family in families[:index]:
            yield duplicate(f"spec.ipFamilies[{index}]", family)
    single = spec.get("clusterIP") or ""
    if single and not addresses:
        yield required("spec.clusterIPs")
    elif addresses and addresses[0] != single:
        yield invalid_value("spec.clusterIPs", addresses, "first value must match `clusterIP`")
    if len(addresses) > 2:
        yield invalid_value("spec.clusterIPs", addresses, "may only hold up to 2 values")
    for index, address in enumerate(addresses):
        at = f"spec.clusterIPs[{index}]"
        if address == "None":
            if index or len(addresses) > 1:
                detail = "if 'None' is used, it must be the first and only value"
                yield invalid_value(at, address, detail)
            continue
        problems = ip_problems(address)
        for problem in problems:
            yield invalid_value(at, address, problem)
        if not problems and index < len(families):
            family = f"IPv{ip_address(address).version}"
            if family != families[index]:
                detail = f"expected an {families[index]} value as indicated by `ipFamilies[{index}]`"
                yield invalid_value(at, address, detail)


def _validate_policies(spec: Obj, kind: str) -> Iterator[FieldError]:
    external = spec.get("externalTrafficPolicy") or ""
    accessible = kind in _EXTERNAL or (kind == "ClusterIP" and bool(spec.get("externalIPs")))
    if external:
        if not accessible:
            detail = "may only be set for externally-accessible services"
            yield invalid_value("spec.externalTrafficPolicy", external, detail)
        elif external not in _POLICIES:
            yield not_supported("spec.externalTrafficPolicy", external, _POLICIES)
    elif kind in _EXTERNAL:
        yield required("spec.externalTrafficPolicy")
    internal = spec.get("internalTrafficPolicy")
    if internal is not None and internal not in _POLICIES:
        yield not_supported("spec.internalTrafficPolicy", internal, _POLICIES)
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        yield not_supported("spec.trafficDistribution", distribution, _DISTRIBUTIONS)


def _validate_load_balancer(spec: Obj, kind: str) -> Iterator[FieldError]:
    balanced = kind == "LoadBalancer"
    only = "may only be used when `type` is 'LoadBalancer'"
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        try:
            ip_network(text.strip() if "/" in text else "", strict=False)
        except ValueError:
            detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            yield invalid_value(f"spec.LoadBalancerSourceRanges[{index}]", text, detail)
    if spec.get("loadBalancerSourceRanges") and not balanced:
        yield forbidden_field("spec.LoadBalancerSourceRanges", only)
    if spec.get("allocateLoadBalancerNodePorts") is not None and not balanced:
        yield forbidden_field("spec.allocateLoadBalancerNodePorts", only)
    if spec.get("loadBalancerClass") is not None:
        if not balanced:
            yield forbidden_field("spec.loadBalancerClass", only)
        else:
            yield from validate_qualified_name(spec["loadBalancerClass"], "spec.loadBalancerClass")
    port = spec.get("healthCheckNodePort") or 0
    local = balanced and spec.get("externalTrafficPolicy") == "Local"
    if port and not local:
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield invalid_value("spec.healthCheckNodePort", port, detail)


def validate_service_update(service: Obj, old: Obj) -> Iterator[FieldError]:
    """Addresses and families that were given out stay."""
    spec, was = service["spec"], old["spec"]
    if "ExternalName" in (spec.get("type"), was.get("type")):
        return
    new, before = spec.get("clusterIPs") or [], was.get("clusterIPs") or []
    if before:
        if not new:
            yield invalid_value("spec.clusterIPs[0]", new, "primary clusterIP can not be unset")
        elif new[0] != before[0]:
            yield invalid_value("spec.clusterIPs[0]", new, "may not change once set")
    families, old_families = spec.get("ipFamilies") or [], was.get("ipFamilies") or []
    if families and old_families and families[0] != old_families[0]:
        yield invalid_value("spec.ipFamilies[0]", families[0], "may not change once set")
    if len(before) > 1 and len(new) > 1 and new[1] != before[1]:
        yield invalid_value("spec.clusterIPs[1]", new, "may not change once set")
    both = was.get("type") == "LoadBalancer" and spec.get("type") == "LoadBalancer"
    if both and spec.get("loadBalancerClass") != was.get("loadBalancerClass"):
        detail = "may not change once set"
        yield invalid_value("spec.loadBalancerClass", spec.get("loadBalancerClass"), detail)
