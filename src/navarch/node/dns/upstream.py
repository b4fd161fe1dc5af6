"""Names that are not the cluster's: asked of the servers in the host's resolv.conf, or of those that a Corefile names.

Queries go on as they came, in their own wire form, under an identifier and from a port that nobody can guess. A server
that does not answer in time is passed over; when none does the asker hears SERVFAIL, and is never left waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from navarch.node.dns.corefile import HOST, Address, Forwarding
from navarch.world import MACHINE

log = logging.getLogger(__name__)

_PORT: Final = 53
_RECHECK_S: Final = 5.0
_TRUNCATED: Final = 0x0200


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """`servers` overrides resolv.conf; `own` are addresses that lead back to us and are never asked."""

    resolv_conf: Path = Path("/etc/resolv.conf")
    servers: tuple[Address, ...] = ()
    own: frozenset[str] = frozenset()
    timeout_s: float = 2.0
    attempts: int = 2


class Upstream:
    """Forwards queries in wire form."""

    def __init__(self, config: UpstreamConfig, source: random.Random | None = None) -> None:
        self._config = config
        self._random = source or MACHINE.unpredictable()
        self._servers: tuple[Address, ...] = config.servers
        self._checked_s = float("-inf")
        self._modified = 0
        self._forwarding = Forwarding()

    def use(self, forwarding: Forwarding) -> None:
        """Whom to ask about which names from now on."""
        self._forwarding = forwarding

    def servers(self, name: str = "") -> tuple[Address, ...]:
        """Whom to ask about a name, in order."""
        stated = self._forwarding.servers(name)
        found = tuple(server for server in stated if server[0] not in self._config.own)
        return found if found or stated != HOST else self._hosts()

    def _hosts(self) -> tuple[Address, ...]:
        """The machine's own; the file is looked at again now and then."""
        if self._config.servers:
            return self._config.servers
        now_s = asyncio.get_running_loop().time()
        if now_s - self._checked_s >= _RECHECK_S:
            self._checked_s = now_s
            with contextlib.suppress(OSError):
                modified = self._config.resolv_conf.stat().st_mtime_ns
                if modified != self._modified:
                    self._modified = modified
                    self._servers = parse_servers(self._config.resolv_conf.read_text(), self._config.own)
        return self._servers

    async def ask(self, name: str, query: bytes, *, stream: bool = False) -> bytes | None:
        """The answer to `query` for a name (with its identifier), or None where no server gave one."""
        servers = self.servers(name)
        for _ in range(self._config.attempts):
            for server in servers:
                try:
                    async with asyncio.timeout(self._config.timeout_s):
                        answer = await (self._by_tcp(query, server) if stream else self._by_udp(query, server))
                except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    log.debug("upstream %s: %s", server[0], error or "no answer")
                    continue
                return query[:2] + answer[2:]
        return None

    async def _by_udp(self, query: bytes, server: Address) -> bytes:
        loop = asyncio.get_running_loop()
        identifier = struct.pack(">H", self._random.getrandbits(16))
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _OneAnswer(loop, identifier, _question(query)), remote_addr=server
        )
        try:
            transport.sendto(identifier + query[2:])
            return await protocol.answer
        finally:
            transport.close()

    async def _by_tcp(self, query: bytes, server: Address) -> bytes:
        reader, writer = await asyncio.open_connection(*server)
        try:
            writer.write(struct.pack(">H", len(query)) + query)
            await writer.drain()
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.close()


def parse_servers(text: str, own: Collection[str] = ()) -> tuple[Address, ...]:
    """The name servers of a resolv.conf, without those that lead back to us."""
    words = (line.split() for line in text.splitlines())
    found = [line[1].partition("%")[0] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return tuple((address, _PORT) for address in dict.fromkeys(found) if address not in own)


def _question(query: bytes) -> bytes:
    """The name, type and class asked for, as bytes."""
    offset = 12
    while offset < len(query) and query[offset]:
        offset += query[offset] + 1
    return query[12 : offset + 5]


class _OneAnswer(asyncio.DatagramProtocol):
    """Waits for the datagram that answers the query sent; anything else is ignored."""

    def __init__(self, loop: asyncio.AbstractEventLoop, identifier: bytes, question: bytes) -> None:
        self.answer: asyncio.Future[bytes] = loop.create_future()
        self._identifier = identifier
        self._question = question.lower()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        matches = data[:2] == self._identifier and len(data) >= 12 and data[2] & 0x80
        if not matches or self.answer.done():
            return
        questions = struct.unpack_from(">H", data, 4)[0]
        if not questions or data[12 : 12 + len(self._question)].lower() == self._question:
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)
