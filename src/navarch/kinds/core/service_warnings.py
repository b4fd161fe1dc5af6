"""Warnings about services: what is ignored, and what is on its way out.  In Kubernetes' words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.core.address_warnings import cidr_warnings, ip_warnings

_HINTS: Final = "service.kubernetes.io/topology-aware-hints"
_MODE: Final = "service.kubernetes.io/topology-mode"


def service_warnings(service: Obj, old: Obj | None) -> Iterator[str]:
    spec = service["spec"]
    kind, get = spec.get("type"), spec.get
    headless = kind == "ClusterIP" and get("clusterIP") == "None"
    if _HINTS in (service["metadata"].get("annotations") or ()):
        yield f"annotation {_HINTS} is deprecated, please use {_MODE} instead"
    if kind != "ExternalName" and not headless:
        for index, address in enumerate(get("clusterIPs") or ()):
            yield from ip_warnings(address, f"spec.clusterIPs[{index}]")
    if headless:
        if get("loadBalancerIP"):
            yield "spec.loadBalancerIP is ignored for headless services"
        if get("externalIPs"):
            yield "spec.externalIPs is ignored for headless services"
        if get("sessionAffinity") != "None":
            yield "spec.SessionAffinity is ignored for headless services"
    for index, address in enumerate(get("externalIPs") or ()):
        yield from ip_warnings(address, f"spec.externalIPs[{index}]")
    if get("externalIPs") and not headless and kind != "ExternalName":
        yield "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
    if get("loadBalancerIP"):
        yield from ip_warnings(spec["loadBalancerIP"], "spec.loadBalancerIP")
    for index, text in enumerate(get("loadBalancerSourceRanges") or ()):
        yield from cidr_warnings(text, f"spec.loadBalancerSourceRanges[{index}]")
    if kind == "ExternalName" and get("externalIPs"):
        yield 'spec.externalIPs is ignored when spec.type is "ExternalName"'
    if kind != "ExternalName" and get("externalName"):
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'
    if get("trafficDistribution") == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'
