"""What a node's kernel should know about the other nodes: from Node objects to routes, tunnel ends and neighbours.
Pure.

A node whose address is on a link of ours is a router to its pods (`direct`). One behind a router, which knows nothing
of pods, is reached by a tunnel: a route by way of a VXLAN device to the node's own address among its pods, whose
hardware address follows from the node's name (so nobody has to tell it), and an entry that says at which address that
one lives. Nothing is flooded, nothing learnt.

Pods go through the tunnel to the tunnelled node's own addresses, too, for a router between would not know the way back
to a pod; the node itself does not, else the tunnel would lead through itself. Hence a table of its own for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Final

from navarch.api.addresses import Network
from navarch.api.meta import Obj, name_of
from navarch.node.cni import gateway_of

# What VXLAN adds to each packet, by the family of the addresses that it travels between.
OVERHEAD: Final = {4: 50, 6: 70}
PORT: Final = 4789


class Mode(StrEnum):
    """`routes`: never a tunnel, routers between nodes know the pods' ranges. `vxlan`: always. `auto`: where needed."""

    AUTO = "auto"
    ROUTES = "routes"
    VXLAN = "vxlan"


@dataclass(frozen=True, slots=True)
class Peer:
    """A node: its pods' ranges and its own addresses, the main one first."""

    name: str
    ranges: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hop:
    """How the kernel reaches an address: by a link (its name), maybe through a gateway; `here`: it is our own."""

    link: str = ""
    gateway: str = ""
    here: bool = False

    @property
    def adjacent(self) -> bool:
        return bool(self.link) and not self.gateway and not self.here


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """`tunnel`: the family of the device that it goes by, 0 for a plain one. `for_pods`: only what pods send."""

    destination: str
    gateway: str
    tunnel: int = 0
    source: str = ""
    for_pods: bool = False


@dataclass(frozen=True, slots=True, order=True)
class TunnelEnd:
    """In the tunnel of a family: which inner gateways a hardware address has, and the address that it lives at."""

    tunnel: int
    hardware: str
    remote: str
    gateways: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about other nodes. `tunnels`: which devices there are, with our own address at their end (empty: any).
    `nodes`: addresses to which pods speak without being masqueraded. `pods`: whose packets ask the pods' table."""

    routes: frozenset[Route] = frozenset()
    ends: frozenset[TunnelEnd] = frozenset()
    tunnels: Mapping[int, str] = field(default_factory=dict)
    nodes: frozenset[str] = frozenset()
    pods: frozenset[str] = frozenset()


def family_of(text: str) -> int:
    """4 or 6, of an address or a range."""
    return 6 if ":" in text else 4


def hardware_of(node_name: str) -> str:
    """The hardware address of a node's tunnel: locally administered, the same wherever it is worked out."""
    digest = hashlib.sha1(f"tunnel:{node_name}".encode(), usedforsecurity=False).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def network_number(cluster_ranges: Iterable[str]) -> int:
    """The VXLAN network of a cluster: clusters of one machine have ranges of their own."""
    text = ",".join(sorted(cluster_ranges))
    return int.from_bytes(hashlib.sha1(text.encode(), usedforsecurity=False).digest()[:3], "big") or 1


def peer_of(node: Obj) -> Peer:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ranges = spec.get("podCIDRs") or [spec["podCIDR"]] if spec.get("podCIDR") else []
    addresses = [
        each["address"]
        for each in status.get("addresses") or ()
        if each.get("type") == "InternalIP" and _is_address(each.get("address") or "")
    ]
    return Peer(name_of(node), tuple(each for each in ranges if _is_range(each)), tuple(dict.fromkeys(addresses)))


def plan(mode: Mode, own: Peer, others: Iterable[Peer], cluster: Iterable[str], hop: Callable[[str], Hop]) -> Plan:
    """Ways to `others` from `own`; `cluster` are the ranges of all pods, `hop` asks the kernel for the way to a
    node."""
    all_pods = [ip_network(each) for each in cluster]
    routes: set[Route] = set()
    ends: set[TunnelEnd] = set()
    nodes: set[str] = set()
    tunnelled = False
    sources = {family_of(each): gateway_of(each) for each in own.ranges}
    for peer in sorted(others, key=lambda each: each.name):
        ranges = [each for each in peer.ranges if family_of(each) in sources and _within(each, all_pods)]
        hops = {address: hop(address) for address in peer.addresses}
        if any(each.here for each in hops.values()) or not ranges:
            # Another node of this machine: its bridge is one of ours.
            continue
        nodes.update(peer.addresses)
        if mode is not Mode.ROUTES:
            tunnelled = True
        routes |= _pinned(hops, all_pods)
        direct = {} if mode is Mode.VXLAN else _direct(ranges, hops)
        routes.update(Route(each, address) for each, address in direct.items())
        if mode is not Mode.ROUTES and (rest := [each for each in ranges if each not in direct]):
            _tunnel(own, peer, rest, sources, routes, ends)
    # Others may see us behind a router where we see them next to us, so that we listen, once there is anybody.
    tunnels = {family_of(each): each for each in reversed(own.addresses)} if tunnelled else {}
    for end in sorted(ends):
        tunnels.setdefault(end.tunnel, "")
    pods = frozenset(own.ranges) if any(route.for_pods for route in routes) else frozenset()
    return Plan(frozenset(routes), frozenset(ends), tunnels, frozenset(nodes), pods)


def _direct(ranges: Iterable[str], hops: Mapping[str, Hop]) -> dict[str, str]:
    """The ranges that lie behind an address next to us, each with the first such address."""
    beside: dict[int, str] = {}
    for address, hop in hops.items():
        if hop.adjacent:
            beside.setdefault(family_of(address), address)
    return {each: beside[family_of(each)] for each in ranges if family_of(each) in beside}


def _tunnel(
    own: Peer, peer: Peer, ranges: list[str], sources: Mapping[int, str], routes: set[Route], ends: set[TunnelEnd]
) -> None:
    """Add what leads to `ranges` and, for pods, to the node's addresses through a tunnel."""
    families = [family_of(address) for address in own.addresses] or [4, 6]
    remotes = {family_of(address): address for address in reversed(peer.addresses)}
    underlay = next((family for family in families if family in remotes), None)
    if underlay is None:
        return
    gateways = {family_of(each): gateway_of(each) for each in ranges}
    for each in ranges:
        family = family_of(each)
        routes.add(Route(each, gateways[family], underlay, sources[family]))
    for address in peer.addresses:
        family = family_of(address)
        if family in gateways:
            length = 32 if family == 4 else 128
            routes.add(Route(f"{address}/{length}", gateways[family], underlay, sources[family], for_pods=True))
    ends.add(TunnelEnd(underlay, hardware_of(peer.name), remotes[underlay], tuple(sorted(gateways.values()))))


def _pinned(hops: Mapping[str, Hop], all_pods: list[Network]) -> set[Route]:
    """A node may have its address in a range of pods, where a route to these would swallow the way to the node."""
    return {
        Route(f"{address}/{32 if family_of(address) == 4 else 128}", hop.gateway)
        for address, hop in hops.items()
        if hop.gateway and any(ip_address(address) in pods for pods in all_pods)
    }


def _within(text: str, all_pods: list[Network]) -> bool:
    mine = ip_network(text)
    return any(mine.version == pods.version and mine.subnet_of(pods) for pods in all_pods)  # type: ignore[arg-type]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_range(text: str) -> bool:
    try:
        return ip_network(text).num_addresses > 1
    except (ValueError, TypeError):
        return False
