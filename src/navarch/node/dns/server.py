"""The DNS server: UDP and TCP on one port, answers from `records`, the rest from upstream.

Answers are kept in wire form under the bytes of their query. What the cluster answered is good until anything in the
cluster's names changes, what upstream answered until its time to live is over; most queries thus cost a dictionary
lookup. Invariant: nothing here waits for an upstream but the task of the query that needs it.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar, cast

import dns.rcode

from navarch.node.dns import wire
from navarch.node.dns.records import ClusterRecords, Outcome
from navarch.node.dns.sockets import Pair, bind
from navarch.node.dns.upstream import Upstream

log = logging.getLogger(__name__)

T = TypeVar("T")

_CACHE_SIZE: Final = 2048
_UPSTREAM_CACHE_S: Final = 30.0
_MAX_FORWARDED: Final = 1000
_TCP_IDLE_S: Final = 10.0


class Statistics:
    """Counters for /metrics."""

    def __init__(self) -> None:
        self.requests = 0
        self.cached = 0
        self.forwarded = 0
        self.failed = 0


class DnsServer:
    """Answers queries; `start` binds it."""

    def __init__(self, records: ClusterRecords, upstream: Upstream) -> None:
        self.statistics = Statistics()
        self._records = records
        self._upstream = upstream
        self._serial = 1
        self._cluster_cache: OrderedDict[bytes, bytes] = OrderedDict()
        self._upstream_cache: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._forwarding: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    def changed(self) -> None:
        """The cluster's names may mean something else now."""
        self._serial += 1
        self._cluster_cache.clear()

    async def start(self, address: str, port: int) -> int:
        """Listen on both protocols; the port that was bound (`port` 0 picks one).  Raises OSError."""
        return await self.serve(bind(address, port))

    async def serve(self, pair: Pair) -> int:
        """Listen on sockets that are there already; their port."""
        stream, datagrams = pair
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._converse, sock=stream)
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
        self._transport = transport
        return int(stream.getsockname()[1])

    async def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        tasks = [*self._forwarding, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Answering.

    def answer_now(self, data: bytes, *, stream: bool) -> bytes | None:
        """The response where it takes no waiting; None where upstream has to be asked."""
        self.statistics.requests += 1
        key = data[2:] + (b"t" if stream else b"u")
        known = self._cluster_cache.get(key)
        if known is None and key in self._upstream_cache:
            expires_s, response = self._upstream_cache[key]
            if expires_s > asyncio.get_running_loop().time():
                known = response
            else:
                del self._upstream_cache[key]
        if known is not None:
            self.statistics.cached += 1
            return data[:2] + known
        try:
            query = wire.parse(data)
        except wire.BadQuery as error:
            return error.response
        name, kind = wire.question_of(query)
        answer = self._records.lookup(name, kind)
        if answer.outcome is Outcome.FORWARD or answer.target:
            return None
        message = wire.answer_of(query, answer, self._records.soa(self._serial))
        response = wire.encode(message, query, stream=stream)
        _keep(self._cluster_cache, key, response[2:])
        return response

    async def answer(self, data: bytes, *, stream: bool) -> bytes:
        """The response to any query, with upstream's help if need be."""
        response = self.answer_now(data, stream=stream)
        return response if response is not None else await self._forward(data, stream=stream)

    async def _forward(self, data: bytes, *, stream: bool) -> bytes:
        self.statistics.forwarded += 1
        query = wire.parse(data)
        name, kind = wire.question_of(query)
        answer = self._records.lookup(name, kind)
        if answer.target:
            # An ExternalName service: stub resolvers expect the alias's target in the same answer.
            message = wire.answer_of(query, answer, self._records.soa(self._serial))
            found = await self._upstream.ask(wire.query_for(answer.target, kind, wire.identifier_of(data)))
            if found is not None:
                wire.appended(message, found)
            return wire.encode(message, query, stream=stream)
        response = await self._upstream.ask(data, stream=stream)
        if response is None:
            self.statistics.failed += 1
            return wire.encode(wire.respond(query, dns.rcode.SERVFAIL), query, stream=stream)
        lifetime_s = wire.lifetime_s(response, _UPSTREAM_CACHE_S)
        if lifetime_s > 0:
            expires_s = asyncio.get_running_loop().time() + lifetime_s
            _keep(self._upstream_cache, data[2:] + (b"t" if stream else b"u"), (expires_s, response[2:]))
        return response

    # Protocols.

    def datagram(self, data: bytes, reply: Callable[[bytes], None]) -> None:
        """Answer one datagram now or in a task."""
        response = self.answer_now(data, stream=False)
        if response is not None:
            if response:
                reply(response)
        elif len(self._forwarding) < _MAX_FORWARDED:
            task = asyncio.ensure_future(self._reply_later(data, reply))
            self._forwarding.add(task)
            task.add_done_callback(self._forwarding.discard)
        else:
            reply(wire.bare(data, dns.rcode.SERVFAIL))

    async def _reply_later(self, data: bytes, reply: Callable[[bytes], None]) -> None:
        try:
            reply(await self._forward(data, stream=False))
        except Exception:
            log.exception("query failed")
            reply(wire.bare(data, dns.rcode.SERVFAIL))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                async with asyncio.timeout(_TCP_IDLE_S):
                    (length,) = struct.unpack(">H", await reader.readexactly(2))
                    data = await reader.readexactly(length)
                response = await self.answer(data, stream=True)
                if not response:
                    return
                writer.write(struct.pack(">H", len(response)) + response)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()


def _keep(cache: OrderedDict[bytes, T], key: bytes, value: T) -> None:
    cache[key] = value
    if len(cache) > _CACHE_SIZE:
        cache.popitem(last=False)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's classes.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            self._server.datagram(data, lambda response: self._send(response, addr))
        except Exception:
            log.exception("query from %s failed", addr[0])

    def _send(self, response: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(response, addr)
