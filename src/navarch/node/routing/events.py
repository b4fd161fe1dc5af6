"""What the kernel says of changes in its network that concern the ways to other nodes: links, addresses, routes.

A link that went down takes its routes with it and nobody puts them back; an address that came may make a router's
neighbour ours. In: netlink's messages. Out: calls of `changed`. What pods coming and going say is passed over.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Final

from navarch.node.routing.kernel import MAIN_TABLE, PROTOCOL

# RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_LINK: Final = (16, 17)
_ADDRESS: Final = (20, 21)
_NEW_ROUTE, _LOST_ROUTE = 24, 25
_IFLA_IFNAME: Final = 3
_HEADER: Final = struct.Struct("=IHHII")
_LINK_HEADER: Final = struct.Struct("=BxHiII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_GLOBAL_SCOPE: Final = 0
_BY_KERNEL: Final = 2
_AF_BRIDGE: Final = 7


class KernelEvents:
    """`links` says which links' states matter at the moment."""

    def __init__(self, links: Callable[[], Collection[str]], changed: Callable[[], None]) -> None:
        self._links = links
        self._changed = changed
        self._states: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        # 0 is NETLINK_ROUTE.
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as events:
            events.bind((0, _GROUPS))
            descriptor = events.fileno()
            loop.add_reader(descriptor, self._read, events)
            try:
                await asyncio.Event().wait()
            finally:
                loop.remove_reader(descriptor)

    def _read(self, events: socket.socket) -> None:
        matters = False
        while True:
            try:
                data = events.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                # There was more than fits: something was missed.
                matters = True
                break
            # All of them are looked at: states of links are remembered.
            told = [self.matters(kind, body) for kind, body in messages(data)]
            matters |= any(told)
        if matters:
            self._changed()

    def matters(self, kind: int, body: bytes) -> bool:
        """Whether a message says something that ways to other nodes may depend on."""
        if kind in _LINK:
            return self._link(kind, body)
        if kind in _ADDRESS:
            return body[3] == _GLOBAL_SCOPE
        if kind in (_NEW_ROUTE, _LOST_ROUTE):
            table, protocol = body[4], body[5]
            if protocol == PROTOCOL:
                return kind == _LOST_ROUTE
            return table == MAIN_TABLE and protocol != _BY_KERNEL
        return False

    def _link(self, kind: int, body: bytes) -> bool:
        family, _, _, flags, _ = _LINK_HEADER.unpack_from(body)
        name = _name(body[_LINK_HEADER.size :])
        if family == _AF_BRIDGE or name not in self._links():
            return False
        state = flags if kind == _LINK[0] else -1
        before = self._states.get(name)
        self._states[name] = state
        return state != before


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The types and bodies of what one read has brought."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _name(attributes: bytes) -> str:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if kind == _IFLA_IFNAME:
            return attributes[at + 4 : at + length].rstrip(b"\0").decode(errors="replace")
        if length < _ATTRIBUTE.size:
            break
        at += (length + 3) & ~3
    return ""
