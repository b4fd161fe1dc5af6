"""Flows that the kernel remembers: forgetting UDP ones that still lead to an endpoint which is no more.

The kernel rewrites every packet of a known flow as it did the first one. A TCP client notices that its peer is gone; a
UDP client that keeps its port (a resolver, a game) would send into the void for as long as it goes on sending. This
speaks netlink directly: two messages, and a dump of thousands of flows must not cost seconds.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

_NETLINK_NETFILTER: Final = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # Subsystem conntrack, messages CT_GET and CT_DELETE.
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_DONE, _ERROR = 3, 2
_ORIGINAL, _REPLY, _ID = 1, 2, 12
_NESTED: Final = 0x8000

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


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in a netlink message or in a nested attribute."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & ~_NESTED, data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


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
    identity = _attribute(_ORIGINAL | _NESTED, parts[_ORIGINAL])
    if _ID in parts:
        identity += _attribute(_ID, parts[_ID])
    return Flow(protocol, destination, source_of_reply, identity)


class _Netlink:
    def __init__(self, family: int) -> None:
        self._family = socket.AF_INET6 if family == 6 else socket.AF_INET
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.settimeout(5)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, kind: int, flags: int, payload: bytes = b"") -> Iterator[bytes]:
        """Send one message and yield the attributes of each answer.  Raises OSError."""
        self._sequence += 1
        body = struct.pack("=BBH", self._family, 0, 0) + payload
        self._socket.send(struct.pack("=IHHII", len(body) + 16, kind, _REQUEST | flags, self._sequence, 0) + body)
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, answer, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
                message = data[offset + 16 : offset + length]
                offset += length + 3 & ~3
                if sequence != self._sequence:
                    continue
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    code = -struct.unpack_from("=i", message)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield message[4:]


def forget_stale(frontends: Mapping[int, Frontends], family: int = 4) -> int:
    """Delete the flows that `frontends` (by IP protocol number) says are stale; how many there were. Blocks: call it in
    a thread. A machine without conntrack netlink has nothing that could be done, which is logged once per call."""
    forgotten = 0
    try:
        netlink = _Netlink(family)
    except OSError as error:
        log.debug("no conntrack netlink: %s", error)
        return 0
    try:
        stale = []
        for message in netlink.ask(_GET, _DUMP):
            flow = parse_flow(message)
            if flow is not None and flow.protocol in frontends and frontends[flow.protocol].is_stale(flow):
                stale.append(flow.identity)
        for identity in stale:
            try:
                list(netlink.ask(_DELETE, _ACK, identity))
                forgotten += 1
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
    except OSError as error:
        log.warning("cannot clean up flows: %s", error)
    finally:
        netlink.close()
    return forgotten
