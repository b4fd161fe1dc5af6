"""Flows that the kernel remembers: forgetting UDP ones that still lead to an endpoint which is no more.

The kernel rewrites every packet of a known flow as it did the first one. A TCP client notices that its peer is gone; a
UDP client that keeps its port (a resolver, a game) would send into the void for as long as it goes on sending. This
speaks netlink directly: two messages, and a dump of thousands of flows must not cost seconds.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from navarch.node.proxy.netlink import ACK, DUMP, Netlink, about, attribute, attributes, nested

log = logging.getLogger(__name__)

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # Subsystem conntrack, messages CT_GET and CT_DELETE.
_ORIGINAL, _REPLY, _ID = 1, 2, 12

Peer = tuple[bytes, int]


class Flow(NamedTuple):
    """A flow as it began (`destination`) and where its answers come from (`source_of_reply`); addresses are packed.
    `identity` are the attributes by which the kernel finds it."""

    protocol: int
    destination: Peer
    source_of_reply: Peer
    identity: bytes


@dataclass(slots=True)
class Frontends:
    """Of one protocol: which endpoints are right behind an address and port, and behind a node port."""

    by_address: dict[Peer, set[Peer]] = field(default_factory=dict)
    by_node_port: dict[int, set[Peer]] = field(default_factory=dict)

    def is_stale(self, flow: Flow) -> bool:
        right = self.by_address.get(flow.destination)
        if right is None:
            right = self.by_node_port.get(flow.destination[1])
        return right is not None and flow.source_of_reply not in right


def pack_address(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def _parse_tuple(data: bytes) -> tuple[int, Peer, Peer]:
    """Protocol, source, destination."""
    addresses: dict[int, bytes] = {}
    protocol: dict[int, bytes] = {}
    for kind, inner in attributes(data):
        target = {1: addresses, 2: protocol}.get(kind)
        if target is not None:
            target.update(attributes(inner))
    source = addresses.get(1) or addresses.get(3) or b""
    destination = addresses.get(2) or addresses.get(4) or b""
    ports = [int.from_bytes(protocol.get(kind, b"\0\0"), "big") for kind in (2, 3)]
    return protocol.get(1, b"\0")[0], (source, ports[0]), (destination, ports[1])


def parse_flow(data: bytes) -> Flow | None:
    """A conntrack message's attributes as a flow."""
    parts = dict(attributes(data))
    if _ORIGINAL not in parts or _REPLY not in parts:
        return None
    protocol, _, destination = _parse_tuple(parts[_ORIGINAL])
    _, source_of_reply, _ = _parse_tuple(parts[_REPLY])
    identity = nested(_ORIGINAL, parts[_ORIGINAL])
    if _ID in parts:
        identity += attribute(_ID, parts[_ID])
    return Flow(protocol, destination, source_of_reply, identity)


def forget_stale(frontends: Mapping[int, Frontends], family: int = 4) -> int:
    """Delete the flows that `frontends` (by IP protocol number) says are stale; how many there were. Blocks: call it in
    a thread. A machine without conntrack netlink has nothing that could be done, which is logged once per call."""
    forgotten = 0
    try:
        netlink = Netlink()
    except OSError as error:
        log.debug("no conntrack netlink: %s", error)
        return 0
    try:
        stale = []
        for message in netlink.ask(_GET, DUMP, about(family)):
            flow = parse_flow(message[4:])
            if flow is not None and flow.protocol in frontends and frontends[flow.protocol].is_stale(flow):
                stale.append(flow.identity)
        for identity in stale:
            try:
                list(netlink.ask(_DELETE, ACK, about(family) + identity))
                forgotten += 1
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
    except OSError as error:
        log.warning("cannot clean up flows: %s", error)
    finally:
        netlink.close()
    return forgotten
