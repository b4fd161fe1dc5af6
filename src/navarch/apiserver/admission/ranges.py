"""Ranges of addresses and ports from which services are given theirs, and the books of what is taken.

In: requests to take a certain one or the next free one.  Out: what was taken, or why not. The lower part of each range
is left for those who ask for a certain value: what is given out freely is drawn at random from the upper part first.
Invariant: the books never show a free thing as taken for longer than it takes to ask who is said to hold it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

Holder = tuple[str, str]
Thing = str | int

_TAKEN_IP: Final = "provided IP is already allocated"
_TAKEN_PORT: Final = "provided port is already allocated"
# A /108 of IPv6 is as much as a cluster can number; wider ranges are used up to here.
_LARGEST: Final = 1 << 20
_RANDOM_TRIES: Final = 16


class Refused(Exception):
    """What was asked for cannot be had."""


class RangeFull(Exception):
    """Nothing is left to give out."""


class Books:
    """Who holds what. `still_holds` looks up whether a holder is stored and has the thing; what a write under way has
    taken is not stored yet and counts as taken until it is settled or released."""

    def __init__(self, still_holds: Callable[[Holder, Thing], bool]) -> None:
        self._still_holds = still_holds
        self._holders: dict[Thing, Holder] = {}
        self._under_way: set[Thing] = set()

    def enter(self, holder: Holder, *things: Iterable[Thing]) -> None:
        """What is stored already."""
        for listed in things:
            for thing in listed:
                self._holders.setdefault(thing, holder)

    def is_taken(self, thing: Thing) -> bool:
        holder = self._holders.get(thing)
        if holder is None:
            return False
        if thing in self._under_way or self._still_holds(holder, thing):
            return True
        del self._holders[thing]
        return False

    def seems_taken(self, thing: Thing) -> bool:
        """Cheaper than `is_taken`: for drawing, where another one will do."""
        return thing in self._holders

    def take(self, thing: Thing, holder: Holder) -> None:
        self._holders[thing] = holder
        self._under_way.add(thing)

    def settle(self, holder: Holder, *things: Iterable[Thing]) -> None:
        """The write that took them is stored, under this name (a generated one may have been drawn again)."""
        for listed in things:
            for thing in listed:
                self._holders[thing] = holder
                self._under_way.discard(thing)

    def release(self, *things: Iterable[Thing]) -> None:
        for listed in things:
            for thing in listed:
                self._holders.pop(thing, None)
                self._under_way.discard(thing)


def static_band(size: int, low: int, high: int, step: int) -> int:
    """How much of a range is left to those who ask for certain values: `size / step`, within [low, high]."""
    return 0 if size <= low else min(max(low, size // step), high)


class AddressRange:
    """The addresses of one family."""

    def __init__(self, network: IPv4Network | IPv6Network, source: random.Random) -> None:
        self._network = network
        self._random = source
        self.family = f"IPv{network.version}"
        # Network and (for IPv4) broadcast address are not given out.
        size = network.num_addresses - (2 if network.version == 4 else 1)
        self._size = max(0, min(size, _LARGEST))
        self._band = static_band(self._size, 16, 256, 16)

    @property
    def first(self) -> str:
        return self._address(0)

    def _address(self, offset: int) -> str:
        return str(self._network.network_address + 1 + offset)

    def take(self, books: Books, address: str, holder: Holder) -> None:
        """Raises Refused."""
        try:
            inside = 0 <= int(ip_address(address)) - int(self._network.network_address) - 1 < self._size
            inside = inside and ip_address(address).version == self._network.version
        except ValueError:
            inside = False
        if not inside:
            raise Refused(
                f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {self._network}"
            )
        if books.is_taken(address):
            raise Refused(_TAKEN_IP)
        books.take(address, holder)

    def next_free(self, books: Books, holder: Holder) -> str:
        """Raises RangeFull."""
        for low, high in ((self._band, self._size), (0, self._band)):
            offset = _draw(low, high, self._random, lambda at: books.seems_taken(self._address(at)),
                           lambda at: books.is_taken(self._address(at)))  # fmt: skip
            if offset is not None:
                address = self._address(offset)
                books.take(address, holder)
                return address
        raise RangeFull("failed to allocate a serviceIP: range is full")


class PortRange:
    """Node ports."""

    def __init__(self, ports: range, source: random.Random) -> None:
        self._range = ports
        self._random = source
        self._band = static_band(len(ports), 16, 128, 32)

    def take(self, books: Books, port: int, holder: Holder) -> None:
        """Raises Refused."""
        if port not in self._range:
            shown = f"{self._range.start}-{self._range.stop - 1}"
            raise Refused(f"provided port is not in the valid range. The range of valid ports is {shown}")
        if books.is_taken(port):
            raise Refused(_TAKEN_PORT)
        books.take(port, holder)

    def next_free(self, books: Books, holder: Holder) -> int:
        """Raises RangeFull."""
        for low, high in ((self._band, len(self._range)), (0, self._band)):
            offset = _draw(low, high, self._random, lambda at: books.seems_taken(self._range[at]),
                           lambda at: books.is_taken(self._range[at]))  # fmt: skip
            if offset is not None:
                books.take(self._range[offset], holder)
                return self._range[offset]
        raise RangeFull("failed to allocate a nodePort: range is full")


def _draw(
    low: int, high: int, source: random.Random, seems_taken: Callable[[int], bool], is_taken: Callable[[int], bool]
) -> int | None:
    """A free offset in [low, high): by luck while that is quick, else by looking at each from a random one on."""
    if high <= low:
        return None
    for _ in range(_RANDOM_TRIES):
        offset = source.randrange(low, high)
        if not seems_taken(offset):
            return offset
    start = source.randrange(low, high)
    for taken in (seems_taken, is_taken):
        for step in range(high - low):
            offset = low + (start - low + step) % (high - low)
            if not taken(offset):
                return offset
    return None


def parse_ranges(service_cidr: str, source: random.Random) -> list[AddressRange]:
    """`10.43.0.0/16`, or two ranges parted by a comma, the cluster's first family first."""
    return [AddressRange(ip_network(part.strip()), source) for part in service_cidr.split(",") if part.strip()]
