"""Ranges of addresses and ports from which services are given theirs.

In: what is taken, as a question.  Out: a free one, or why a certain one cannot be had. The lower part of each range is
left for those who ask for a certain value: what is given out freely is drawn at random from the upper part first. Pure
but for the random stream.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

# A /108 of IPv6 is as much as a cluster can number; wider ranges are used up to here.
_LARGEST: Final = 1 << 20
_RANDOM_TRIES: Final = 16


class Refused(Exception):
    """What was asked for cannot be had."""


def static_band(size: int, low: int, high: int, step: int) -> int:
    """How much of a range is left to those who ask for certain values: `size / step`, within [low, high]."""
    return 0 if size <= low else min(max(low, size // step), high)


class AddressRange:
    """The addresses of one network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.family = f"IPv{network.version}"
        # Network and (for IPv4) broadcast address are not given out.
        size = network.num_addresses - (2 if network.version == 4 else 1)
        self._size = max(0, min(size, _LARGEST))
        self._band = static_band(self._size, 16, 256, 16)

    @property
    def first(self) -> str:
        return self._address(0)

    def _address(self, offset: int) -> str:
        return str(self.network.network_address + 1 + offset)

    def contains(self, address: str) -> bool:
        """Whether the address lies in the network at all."""
        try:
            return ip_address(address) in self.network
        except ValueError:
            return False

    def check(self, address: str) -> None:
        """Raises Refused for an address that is never given out."""
        if not 0 <= int(ip_address(address)) - int(self.network.network_address) - 1 < self._size:
            raise Refused(
                f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {self.network}"
            )

    def draw(self, source: random.Random, is_taken: Callable[[str], bool]) -> str | None:
        """A free address; None where there is none."""
        for low, high in ((self._band, self._size), (0, self._band)):
            offset = _draw(low, high, source, lambda at: is_taken(self._address(at)))
            if offset is not None:
                return self._address(offset)
        return None


class PortRange:
    """Node ports."""

    def __init__(self, ports: range) -> None:
        self._range = ports
        self._band = static_band(len(ports), 16, 128, 32)

    def __len__(self) -> int:
        return len(self._range)

    def check(self, port: int) -> None:
        """Raises Refused for a port that is never given out."""
        if port not in self._range:
            shown = f"{self._range.start}-{self._range.stop - 1}"
            raise Refused(f"provided port is not in the valid range. The range of valid ports is {shown}")

    def draw(self, source: random.Random, is_taken: Callable[[int], bool]) -> int | None:
        """A free port; None where there is none."""
        for low, high in ((self._band, len(self._range)), (0, self._band)):
            offset = _draw(low, high, source, lambda at: is_taken(self._range[at]))
            if offset is not None:
                return self._range[offset]
        return None


def _draw(low: int, high: int, source: random.Random, is_taken: Callable[[int], bool]) -> int | None:
    """A free offset in [low, high): by luck while that is quick, else by looking at each from a random one on."""
    if high <= low:
        return None
    for _ in range(_RANDOM_TRIES):
        offset = source.randrange(low, high)
        if not is_taken(offset):
            return offset
    start = source.randrange(low, high)
    for step in range(high - low):
        offset = low + (start - low + step) % (high - low)
        if not is_taken(offset):
            return offset
    return None


def parse_ranges(service_cidr: str) -> list[AddressRange]:
    """`10.43.0.0/16`, or two ranges parted by a comma, the cluster's first family first."""
    return [AddressRange(ip_network(part.strip())) for part in service_cidr.split(",") if part.strip()]
