"""Ranges of addresses as a cluster's settings have them: one, or one of each IP family with a comma between, of which
the first is the cluster's own family.

In: what the user stated. Out: the same in one form, or what is wrong with it. Pure but for `has_ipv6`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path
from typing import Any, Final

Network = IPv4Network | IPv6Network

# Each node gets a range of this size; of a smaller IPv6 range there are 65,536, or 256 where that is too many.
NODE_MASK: Final = {4: 24, 6: 64}
_SMALLEST_NODE_MASK_6: Final = 120
# The tenth address of services is the cluster DNS's.
_SMALLEST_SERVICES: Final = {4: 28, 6: 124}


class RangeError(ValueError):
    """The ranges cannot be used; the message says which and why."""


def listed(text: str) -> tuple[Network, ...]:
    """The ranges in their order.  Raises ValueError."""
    return tuple(ip_network(each.strip()) for each in text.split(",") if each.strip())


def first(text: str) -> Network:
    return listed(text)[0]


def families(text: str) -> tuple[int, ...]:
    """4 and 6, as the ranges come."""
    return tuple(each.version for each in listed(text))


def of_family(text: str, family: int) -> Network | None:
    return next((each for each in listed(text) if each.version == family), None)


def node_mask_ipv6(pods: str) -> int:
    """How long the prefixes of nodes' IPv6 ranges are."""
    whole = of_family(pods, 6)
    if whole is None or whole.prefixlen <= NODE_MASK[6] - 8:
        return NODE_MASK[6]
    return min(whole.prefixlen + 16, _SMALLEST_NODE_MASK_6)


def stated(flag: str, value: Any) -> str:
    """What `--pod-cidr` or `--service-cidr` (or the file, perhaps as a list) says, as it is kept.  Raises
    RangeError."""
    texts = value if isinstance(value, list | tuple) else str(value).split(",")
    found = [_parsed(flag, str(text).strip()) for text in texts]
    if len(found) > 2:
        raise RangeError(f"{flag}: {len(found)} ranges; it takes one, or one of each IP family")
    if len(found) == 2 and found[0].version == found[1].version:
        raise RangeError(f"{flag}: {found[0]} and {found[1]} are both IPv{found[0].version}; of two, one is IPv6")
    return ",".join(map(str, found))


def _parsed(flag: str, text: str) -> Network:
    example = "such as 10.42.0.0/16 or 10.42.0.0/16,fd00:42::/48"
    if "/" not in text:
        raise RangeError(f"{flag} {text!r}: a range is an address and the length of its prefix, {example}")
    try:
        said = ip_interface(text)
    except ValueError:
        raise RangeError(f"{flag} {text!r}: no range of addresses, {example}") from None
    if said.ip != said.network.network_address:
        raise RangeError(f"{flag} {text!r}: an address within a range, which itself is {said.network}")
    return said.network


def check(pods: str, services: str) -> None:
    """Whether the cluster can have both.  Raises RangeError."""
    for each in listed(pods):
        smallest = NODE_MASK[4] if each.version == 4 else _SMALLEST_NODE_MASK_6
        if each.prefixlen > smallest:
            raise RangeError(f"--pod-cidr {each}: too small, a node alone gets a /{smallest} of it")
    for each in listed(services):
        smallest = _SMALLEST_SERVICES[each.version]
        if each.prefixlen > smallest:
            raise RangeError(f"--service-cidr {each}: too small, it is to be a /{smallest} at least")
        if each.version not in families(pods):
            raise RangeError(
                f"--service-cidr {each} is IPv{each.version}, --pod-cidr {pods} is not: services have no endpoints "
                f"unless pods have addresses of that family; state a --pod-cidr of IPv{each.version}, too"
            )
    for one in listed(pods):
        for other in listed(services):
            if one.version == other.version and one.overlaps(other):
                raise RangeError(f"--pod-cidr {one} and --service-cidr {other} overlap")


def has_ipv6(proc: Path = Path("/proc")) -> bool:
    """Whether devices that are made on this machine get IPv6 addresses."""
    try:
        off = (proc / "sys/net/ipv6/conf/default/disable_ipv6").read_text().strip()
    except OSError:
        return False
    return (proc / "net/if_inet6").exists() and off != "1"
