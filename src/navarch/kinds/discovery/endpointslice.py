"""EndpointSlice: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from navarch.api.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from navarch.api.meta import Obj
from navarch.api.validation import (
    dns_label_problems,
    dns_subdomain_problems,
    validate_immutable,
    validate_labels,
)
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy

_MAX_ENDPOINTS: Final = 1000
_MAX_PORTS: Final = 20_000
_MAX_ADDRESSES: Final = 100
_TYPES: Final = ("FQDN", "IPv4", "IPv6")


def _ports_cell(obj: Obj, now: datetime) -> str:
    return columns.some(str(port.get("port") or port.get("name") or "*") for port in obj.get("ports") or ())


def _endpoints_cell(obj: Obj, now: datetime) -> str:
    return columns.some(address for point in obj.get("endpoints") or () for address in point.get("addresses") or ())


@strategy("discovery.k8s.io", "EndpointSlice")
class EndpointSliceStrategy(Strategy):
    has_generation = True
    nulls = ("endpoints", "ports")
    columns = (
        NAME,
        Column("AddressType", ".addressType"),
        Column("Ports", _ports_cell),
        Column("Endpoints", _endpoints_cell),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        for port in obj.get("ports") or ():
            port.setdefault("name", "")
            if not port.get("protocol"):
                port["protocol"] = "TCP"

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        kind = obj.get("addressType")
        if not kind:
            yield required("addressType")
        elif kind not in _TYPES:
            yield not_supported("addressType", kind, _TYPES)
        endpoints = obj.get("endpoints") or []
        if len(endpoints) > _MAX_ENDPOINTS:
            yield too_many("endpoints", len(endpoints), _MAX_ENDPOINTS)
        else:
            for index, endpoint in enumerate(endpoints):
                yield from _validate_endpoint(endpoint, kind or "", f"endpoints[{index}]")
        yield from _validate_ports(obj.get("ports") or [])
        if old is not None:
            yield from validate_immutable(kind, old.get("addressType"), "addressType")


def _validate_endpoint(endpoint: Obj, kind: str, path: str) -> Iterator[FieldError]:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        yield required(f"{path}.addresses", "must contain at least 1 address")
    elif len(addresses) > _MAX_ADDRESSES:
        yield too_many(f"{path}.addresses", len(addresses), _MAX_ADDRESSES)
    for index, address in enumerate(addresses):
        yield from _validate_address(address, kind, f"{path}.addresses[{index}]")
    if (host := endpoint.get("hostname")) is not None:
        for problem in dns_label_problems(host):
            yield invalid_value(f"{path}.hostname", host, problem)
    if (node := endpoint.get("nodeName")) is not None:
        for problem in dns_subdomain_problems(node):
            yield invalid_value(f"{path}.nodeName", node, problem)
    yield from validate_labels(endpoint.get("deprecatedTopology") or {}, f"{path}.deprecatedTopology")


def _validate_address(address: str, kind: str, path: str) -> Iterator[FieldError]:
    if kind == "FQDN":
        for problem in dns_subdomain_problems(address):
            yield invalid_value(path, address, problem)
        return
    try:
        parsed = ip_address(address)
    except ValueError:
        yield invalid_value(path, address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
        return
    if kind in ("IPv4", "IPv6") and f"IPv{parsed.version}" != kind:
        yield invalid_value(path, address, f"must be an {kind} address")
    for present, problem in (
        (parsed.is_unspecified, f"may not be unspecified ({address})"),
        (parsed.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (parsed.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
    ):
        if present:
            yield invalid_value(path, address, problem)


def _validate_ports(ports: list[Obj]) -> Iterator[FieldError]:
    if len(ports) > _MAX_PORTS:
        yield too_many("ports", len(ports), _MAX_PORTS)
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name") or ""
        if name:
            for problem in dns_label_problems(name):
                yield invalid_value(f"{path}.name", name, problem)
        if name in seen:
            yield duplicate(f"{path}.name", name)
        seen.add(name)
        number = port.get("port")
        if number is not None and not 1 <= number <= 65535:
            yield invalid_value(f"{path}.port", number, "must be between 1 and 65535, inclusive")
        protocol = port.get("protocol")
        if not protocol:
            yield required(f"{path}.protocol")
        elif protocol not in ("TCP", "UDP", "SCTP"):
            yield not_supported(f"{path}.protocol", protocol, ["SCTP", "TCP", "UDP"])
        if port.get("appProtocol") == "":
            yield forbidden_field(f"{path}.appProtocol", "must not be empty where it is set")
