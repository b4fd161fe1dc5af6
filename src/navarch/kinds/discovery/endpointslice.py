"""EndpointSlice: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from navarch.api.addresses import NOT_AN_IP, read_ip
from navarch.api.errors import (
    FieldError,
    duplicate,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from navarch.api.meta import Obj
from navarch.api.validation import (
    Problems,
    dns_subdomain_problems,
    label_value_problems,
    validate_dns_label,
    validate_immutable,
    validate_labels,
    validate_not_special_ip,
    validate_qualified_name,
)
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy

_MAX_ENDPOINTS: Final = 1000
_MAX_PORTS: Final = 20_000
_MAX_ADDRESSES: Final = 100
_MAX_TOPOLOGY: Final = 16
_MAX_HINTS: Final = 8
_HOSTNAME: Final = "kubernetes.io/hostname"
_TYPES: Final = ("FQDN", "IPv4", "IPv6")


def _ports_cell(obj: Obj, now: datetime) -> str:
    return columns.some(str(port.get("port", port.get("name", "*"))) for port in obj.get("ports") or ())


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
        for endpoint in obj.get("endpoints") or ():
            _default_node(endpoint)

    def complete(self, obj: Obj) -> None:
        super().complete(obj)
        for endpoint in obj["endpoints"] or ():
            endpoint.setdefault("conditions", {})

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
            yield from validate_immutable(kind or "", old.get("addressType"), "addressType")


def _default_node(endpoint: Obj) -> None:
    """The node has a field of its own, and is no longer said by the topology."""
    topology = endpoint.get("deprecatedTopology")
    if topology and _HOSTNAME in topology:
        del topology[_HOSTNAME]
        if not topology:
            del endpoint["deprecatedTopology"]


def _validate_endpoint(endpoint: Obj, kind: str, path: str) -> Iterator[FieldError]:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        yield required(f"{path}.addresses", "must contain at least 1 address")
    elif len(addresses) > _MAX_ADDRESSES:
        yield too_many(f"{path}.addresses", len(addresses), _MAX_ADDRESSES)
    for index, address in enumerate(addresses):
        yield from _validate_address(address, kind, f"{path}.addresses", index)
    if (node := endpoint.get("nodeName")) is not None:
        for problem in dns_subdomain_problems(node):
            yield invalid_value(f"{path}.nodeName", node, problem)
    topology = endpoint.get("deprecatedTopology") or {}
    if len(topology) > _MAX_TOPOLOGY:
        yield too_many(f"{path}.deprecatedTopology", len(topology), _MAX_TOPOLOGY)
    yield from validate_labels(topology, f"{path}.deprecatedTopology")
    if (host := endpoint.get("hostname")) is not None:
        yield from validate_dns_label(host, f"{path}.hostname")
    for name, problems_of in (("forZones", label_value_problems), ("forNodes", dns_subdomain_problems)):
        yield from _validate_hints((endpoint.get("hints") or {}).get(name) or [], f"{path}.hints.{name}", problems_of)


def _validate_hints(hints: list[Obj], path: str, problems_of: Callable[[str], Problems]) -> Iterator[FieldError]:
    if len(hints) > _MAX_HINTS:
        yield too_many(path, len(hints), _MAX_HINTS)
        return
    seen: set[str] = set()
    for index, hint in enumerate(hints):
        name = hint.get("name") or ""
        if name in seen:
            yield duplicate(f"{path}[{index}].name", name)
        seen.add(name)
        for problem in problems_of(name):
            yield invalid_value(f"{path}[{index}].name", name, problem)


def _validate_address(address: str, kind: str, path: str, index: int) -> Iterator[FieldError]:
    at = f"{path}[{index}]"
    if kind == "FQDN":
        yield from _validate_full_name(address, at)
    elif kind in ("IPv4", "IPv6"):
        parsed = read_ip(address)
        if parsed is None:
            yield invalid_value(at, address, NOT_AN_IP)
            return
        if f"IPv{parsed.version}" != kind:
            yield invalid_value(path, address, f"must be an {kind} address")
        yield from validate_not_special_ip(address, at)


def _validate_full_name(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield required(path)
        return
    name = name.removesuffix(".")
    if problems := dns_subdomain_problems(name):
        for problem in problems:
            yield invalid_value(path, name, problem)
        return
    if name.count(".") < 2:
        yield invalid_value(path, name, "should be a domain with at least three segments separated by dots")
    for label in name.split("."):
        yield from validate_dns_label(label, path)


def _validate_ports(ports: list[Obj]) -> Iterator[FieldError]:
    if len(ports) > _MAX_PORTS:
        yield too_many("ports", len(ports), _MAX_PORTS)
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name") or ""
        if name:
            yield from validate_dns_label(name, f"{path}.name")
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
        if (application := port.get("appProtocol")) is not None:
            yield from validate_qualified_name(application, f"{path}.appProtocol")
