"""Endpoints: the older list of where a service's pods are, kept beside EndpointSlices for those who still read it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import (
    validate_dns_label,
    validate_dns_subdomain,
    validate_ip,
    validate_not_special_ip,
    validate_port,
    validate_qualified_name,
)
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.address_warnings import ip_warnings
from navarch.kinds.core.cells import NONE
from navarch.kinds.strategies import strategy

_SHOWN: Final = 3
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")


def _endpoints_cell(obj: Obj, now: datetime) -> str:
    shown: list[str] = []
    total = 0
    for subset in obj.get("subsets") or ():
        addresses = subset.get("addresses") or ()
        ports = subset.get("ports") or ()
        if not ports:
            total += len(addresses)
            shown += [address.get("ip", "") for address in addresses]
            continue
        total += len(addresses) * len(ports)
        for port in ports:
            shown += [_host_port(address.get("ip", ""), port.get("port", 0)) for address in addresses]
    if not obj.get("subsets"):
        return NONE
    text = ",".join(shown[:_SHOWN])
    return f"{text} + {total - _SHOWN} more..." if total > _SHOWN else text


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@strategy("", "Endpoints")
class EndpointsStrategy(Strategy):
    columns = (NAME, Column("Endpoints", _endpoints_cell, description="Addresses and ports, the first three"), AGE)
    allow_create_on_update = True
    deprecation = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"

    def defaults(self, obj: Obj) -> None:
        for subset in obj.get("subsets") or ():
            for port in subset.get("ports") or ():
                if not port.get("protocol"):
                    port["protocol"] = "TCP"

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        for index, subset in enumerate(obj.get("subsets") or ()):
            for field in ("addresses", "notReadyAddresses"):
                for number, address in enumerate(subset.get(field) or ()):
                    yield from ip_warnings(address.get("ip") or "", f"subsets[{index}].{field}[{number}].ip")

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        subsets = obj.get("subsets") or ()
        if old is not None and subsets == (old.get("subsets") or ()):
            return
        for index, subset in enumerate(subsets):
            yield from _validate_subset(subset, f"subsets[{index}]")


def _validate_subset(subset: Obj, path: str) -> Iterator[FieldError]:
    if not subset.get("addresses") and not subset.get("notReadyAddresses"):
        yield required(path, "must specify `addresses` or `notReadyAddresses`")
    for field in ("addresses", "notReadyAddresses"):
        for index, address in enumerate(subset.get(field) or ()):
            at = f"{path}.{field}[{index}]"
            yield from validate_ip(address.get("ip") or "", f"{at}.ip")
            if address.get("hostname"):
                yield from validate_dns_label(address["hostname"], f"{at}.hostname")
            if address.get("nodeName") is not None:
                yield from validate_dns_subdomain(address["nodeName"], f"{at}.nodeName")
            yield from validate_not_special_ip(address.get("ip") or "", f"{at}.ip")
    ports = subset.get("ports") or ()
    for index, port in enumerate(ports):
        at = f"{path}.ports[{index}]"
        if port.get("name"):
            yield from validate_dns_label(port["name"], f"{at}.name")
        elif len(ports) > 1:
            yield required(f"{at}.name")
        yield from validate_port(port.get("port", 0), f"{at}.port")
        if not port.get("protocol"):
            yield required(f"{at}.protocol")
        elif port["protocol"] not in _PROTOCOLS:
            yield not_supported(f"{at}.protocol", port["protocol"], _PROTOCOLS)
        if port.get("appProtocol") is not None:
            yield from validate_qualified_name(port["appProtocol"], f"{at}.appProtocol")
