"""Endpoints: the older list of where a service's pods are, kept beside EndpointSlices for those who still read it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import ip_problems, validate_dns_label, validate_port
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.cells import NONE
from navarch.kinds.strategies import strategy

_SHOWN: Final = 3


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
    if not shown:
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
            yield from validate_endpoint_ip(address.get("ip") or "", f"{at}.ip")
            if address.get("hostname"):
                yield from validate_dns_label(address["hostname"], f"{at}.hostname")
    ports = subset.get("ports") or ()
    for index, port in enumerate(ports):
        at = f"{path}.ports[{index}]"
        if port.get("name"):
            yield from validate_dns_label(port["name"], f"{at}.name")
        elif len(ports) > 1:
            yield required(f"{at}.name")
        yield from validate_port(port.get("port", 0), f"{at}.port")
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield not_supported(f"{at}.protocol", port.get("protocol") or "", ("TCP", "UDP", "SCTP"))


def validate_endpoint_ip(text: str, path: str) -> Iterator[FieldError]:
    """An address at which a service can be: not loopback, link-local, multicast or unspecified."""
    problems = ip_problems(text)
    for problem in problems:
        yield invalid_value(path, text, problem)
    if problems:
        return
    address = ip_address(text)
    if address.is_unspecified:
        yield invalid_value(path, text, f"may not be unspecified ({text})")
    if address.is_loopback:
        yield invalid_value(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if address.is_link_local:
        yield invalid_value(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if address.is_multicast and (int(address) >> 8 == 0xE00000 or text.lower().startswith("ff02:")):
        yield invalid_value(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
