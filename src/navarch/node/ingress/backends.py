"""Where the ports of Services lead to: the endpoints of a target, each in a slot that it keeps. Pure.

HAProxy gets some more slots than there are endpoints, so that most changes of endpoints are told to the process that
runs, and only growth beyond the slots, by the double, needs another configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, NamedTuple

from navarch.api.meta import Obj
from navarch.node.ingress.rules import Target
from navarch.node.proxy.base import PortName
from navarch.node.proxy.services import Place, choose, endpoints_of

_FEWEST_SLOTS: Final = 4
_ENCRYPTED: Final = ("https", "HTTPS")
_HTTP2: Final = ("kubernetes.io/h2c", "grpc", "h2c")


class Address(NamedTuple):
    """An endpoint: what HAProxy connects to."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Backend:
    """A target with its slots; an empty slot is None. `protocol` is how its endpoints are spoken to."""

    target: Target
    protocol: str
    slots: tuple[Address | None, ...]

    @property
    def name(self) -> str:
        """For HAProxy. The parts are DNS labels, which have no underscore, so no two targets share a name."""
        return "_".join(self.target)


class NoBackend(Exception):
    """Why the target leads nowhere."""


def port_of(service: Obj | None, target: Target) -> tuple[PortName, str]:
    """The Service's port that is meant, and how it is spoken to (`http`, `https`, `h2`).  Raises NoBackend."""
    if service is None:
        raise NoBackend(f"Service {target.service!r} does not exist")
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        raise NoBackend(f"Service {target.service!r} is of type ExternalName, which leads out of the cluster")
    for port in spec.get("ports") or ():
        if (port.get("protocol") or "TCP") == "TCP" and target.port in (str(port["port"]), port.get("name")):
            stated = port.get("appProtocol") or ""
            protocol = "https" if stated in _ENCRYPTED else "h2" if stated in _HTTP2 else "http"
            return PortName(port.get("name") or "", "TCP"), protocol
    raise NoBackend(f"Service {target.service!r} has no port {target.port}")


def addresses(slices: Iterable[Obj], port: PortName) -> list[Address]:
    """The endpoints to which the port leads now: ready ones, or where there are none those that still serve."""
    known = list(slices)
    found: list[Address] = []
    for family in (4, 6):
        chosen = choose(endpoints_of(known, Place("", family=family)).get(port, ())).cluster
        # What is not an address must not come into a configuration, whoever wrote the slice.
        found += [
            Address(str(ip_address(each.address)), int(each.port)) for each in chosen if _is_address(each.address)
        ]
    return list(dict.fromkeys(found))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    # A zone could be any text.
    return "%" not in text


def fill(before: Sequence[Address | None], wanted: Sequence[Address]) -> tuple[Address | None, ...]:
    """The slots for these endpoints: who had one keeps it."""
    size = max(len(before), _FEWEST_SLOTS)
    while size < len(wanted):
        size *= 2
    kept = set(wanted)
    slots = [address if address in kept else None for address in before]
    slots += [None] * (size - len(slots))
    new = iter([address for address in wanted if address not in set(slots)])
    return tuple(address if address is not None else next(new, None) for address in slots)


def changes(old: Iterable[Backend], new: Iterable[Backend]) -> list[str] | None:
    """What to tell HAProxy so that it goes from one to the other; None where that needs another configuration."""
    before = {backend.name: backend for backend in old}
    after = {backend.name: backend for backend in new}
    if before.keys() != after.keys():
        return None
    told: list[str] = []
    for name, backend in after.items():
        was = before[name]
        if (was.protocol, len(was.slots)) != (backend.protocol, len(backend.slots)):
            return None
        for number, (left, came) in enumerate(zip(was.slots, backend.slots, strict=True)):
            if left == came:
                continue
            server = f"set server {name}/s{number}"
            if came is None:
                told.append(f"{server} state maint")
            else:
                told += [f"{server} addr {came.ip} port {came.port}", f"{server} state ready"]
    return told
