"""The policies' table in nftables' language. Pure.

A packet that a bridge or a router of this machine passes on comes through two hooks: in the first, `from-pods` maps the
source's address to the chain of its pod's egress policies, in the second, `to-pods` the destination's to that of its
ingress policies. Such a chain jumps to what each policy allows and then drops. Only packets that begin a connection
come so far: what belongs to one passes before. A pod that no policy isolates is in no map. What the node itself sends
to its pods, or gets from them, is not passed on, and so is not filtered.

Where pods hang on one bridge, their packets come through these hooks because the kernel's br_netfilter hands them over,
as it does for services already. A table of the bridge family would see the packets before their destinations are
rewritten, needs a connection tracking of its own that many kernels do not have, and would not see packets that are
routed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from navarch.node.policy.objects import Block, Line, PeerSelector, Port

INGRESS: Final = "to"
EGRESS: Final = "from"
_IP: Final = {4: "ip", 6: "ip6"}


def base(table: str, families: Sequence[int]) -> list[str]:
    """The table anew, without policies."""
    at = f"inet {table}"
    script = [f"add table {at}", f"delete table {at}", f"add table {at}"]
    for family in families:
        address = f"ipv{family}_addr"
        script += [f"add map {at} {side}-pods{family} {{ type {address} : verdict ; }}" for side in (EGRESS, INGRESS)]
        script.append(f"add set {at} selves{family} {{ type {address} . {address} ; }}")
    for side, field, priority in ((EGRESS, "saddr", -2), (INGRESS, "daddr", -1)):
        chain = f"{at} {side}-pods"
        script.append(f"add chain {chain} {{ type filter hook forward priority {priority} ; }}")
        script.append(f"add rule {chain} ct state established,related accept")
        # How neighbours find each other over IPv6, as ARP does over IPv4.
        script.append(
            f"add rule {chain} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, "
            "nd-router-advert }} accept".replace("}}", "}")
        )
        for family in families:
            ip = _IP[family]
            # A pod always reaches itself, which happens by way of a service.
            script.append(f"add rule {chain} {ip} saddr . {ip} daddr @selves{family} accept")
            script.append(f"add rule {chain} {ip} {field} vmap @{side}-pods{family}")
    return script


def name_of_chain(lines: Iterable[str]) -> str:
    """Chains are named by what is in them: one that changes is another one, and packets go from the old to the new when
    the maps do."""
    return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()[:16]


def peers_set(family: int, selector: PeerSelector) -> str:
    return f"peers{family}-{selector.identity}"


def ports_set(family: int, port: Port) -> str:
    """The set of addresses, with protocol and number, at which pods have a port of that name."""
    return f"ports{family}-{port.protocol}-{port.name}"


def rules(lines: Iterable[Line], side: str, families: Sequence[int]) -> tuple[str, ...]:
    """What a policy allows in a direction."""
    return tuple(dict.fromkeys(rule for line in lines for rule in _rules(line, side, families)))


def _rules(line: Line, side: str, families: Sequence[int]) -> Iterator[str]:
    field = "saddr" if side == INGRESS else "daddr"
    for family in families:
        peer = _peer(line.peer, f"{_IP[family]} {field}", family)
        if peer is None:
            continue
        for ports in _ports(line.ports, family):
            yield f"{peer}{ports}accept"


def _peer(peer: PeerSelector | Block | None, address: str, family: int) -> str | None:
    if peer is None:
        return ""
    if isinstance(peer, PeerSelector):
        return f"{address} @{peers_set(family, peer)} "
    if (":" in peer.cidr) != (family == 6):
        return None
    excepted = f"{address} != {{ {', '.join(peer.excepted)} }} " if peer.excepted else ""
    if peer.cidr.endswith("/0"):
        # Not every version of nft takes the whole.
        return f"meta nfproto ipv{family} {excepted}"
    return f"{address} {peer.cidr} {excepted}"


def _ports(ports: tuple[Port, ...] | None, family: int) -> Iterator[str]:
    if ports is None:
        yield ""
        return
    for protocol in sorted({port.protocol for port in ports}):
        mine = [port for port in ports if port.protocol == protocol]
        if any(not port.low and not port.name for port in mine):
            yield f"meta l4proto {protocol} "
            continue
        if numbers := merged([(port.low, port.high) for port in mine if port.low]):
            texts = [str(low) if low == high else f"{low}-{high}" for low, high in numbers]
            yield f"meta l4proto {protocol} th dport {{ {', '.join(texts)} }} "
        for port in mine:
            if port.name:
                yield f"{_IP[family]} daddr . meta l4proto . th dport @{ports_set(family, port)} "


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without overlaps, which nft refuses."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return result
