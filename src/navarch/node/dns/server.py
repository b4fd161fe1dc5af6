"""The DNS server: UDP and TCP on one port, answers from `records`, the rest from upstream.

Most queries cost a look into `cache` and two calls of the kernel: datagrams are read in bursts from the socket itself,
which is cheaper than a transport. Invariant: nothing here waits for an upstream but the task of a query that needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import Final

import dns.rcode

from navarch.api.meta import Key
from navarch.node.dns import wire
from navarch.node.dns.cache import ANY, AnswerCache
from navarch.node.dns.corefile import Forwarding
from navarch.node.dns.guests import Guests
from navarch.node.dns.records import ClusterRecords, Outcome
from navarch.node.dns.sockets import Pair, bind
from navarch.node.dns.upstream import Upstream

log = logging.getLogger(__name__)

Peer = tuple[str, int]

_DATAGRAM: Final = 4096
_BURST: Final = 128
_UPSTREAM_CACHE_S: Final = 30.0
_MAX_FORWARDED: Final = 1000
_MAX_CONNECTIONS: Final = 1000
_TCP_IDLE_S: Final = 10.0
# Until an answer is there, whoever it is asked of, and the client has taken it.
_TCP_ANSWER_S: Final = 15.0


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
        # Apart, so that names of the world outside never push out the cluster's.
        self._cluster_cache = AnswerCache()
        self._upstream_cache = AnswerCache()
        self._waiting = Guests(_MAX_FORWARDED)
        self._talking = Guests(_MAX_CONNECTIONS)
        self._forwarding: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._datagrams: socket.socket | None = None
        self._server: asyncio.Server | None = None

    def changed(self, service: Key) -> None:
        """The names of a service may mean something else now."""
        self._serial += 1
        self._cluster_cache.changed(service)

    def forward(self, forwarding: Forwarding) -> None:
        """Ask others about names that are not the cluster's, and forget what was heard so far."""
        self._upstream.use(forwarding)
        self._upstream_cache = AnswerCache()

    async def start(self, address: str, port: int) -> int:
        """Listen on both protocols; the port that was bound (`port` 0 picks one).  Raises OSError."""
        return await self.serve(bind(address, port))

    async def serve(self, pair: Pair) -> int:
        """Listen on sockets that are there already; their port."""
        stream, datagrams = pair
        self._server = await asyncio.start_server(self._converse, sock=stream)
        self._datagrams = datagrams
        asyncio.get_running_loop().add_reader(datagrams.fileno(), self._receive, datagrams)
        return int(stream.getsockname()[1])

    async def stop(self) -> None:
        if self._datagrams is not None:
            asyncio.get_running_loop().remove_reader(self._datagrams.fileno())
            self._datagrams.close()
            self._datagrams = None
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
        known = self._cluster_cache.get(key, 0.0)
        if known is None:
            known = self._upstream_cache.get(key, asyncio.get_running_loop().time())
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
        owners = self._records.owners(name, answer)
        self._cluster_cache.put(key, response[2:], services=(ANY,) if owners is None else owners)
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
            found = await self._upstream.ask(
                answer.target, wire.query_for(answer.target, kind, wire.identifier_of(data))
            )
            if found is not None:
                wire.appended(message, found)
            return wire.encode(message, query, stream=stream)
        response = await self._upstream.ask(name, data, stream=stream)
        if response is None:
            self.statistics.failed += 1
            return wire.encode(wire.respond(query, dns.rcode.SERVFAIL), query, stream=stream)
        lifetime_s = wire.lifetime_s(response, _UPSTREAM_CACHE_S)
        if lifetime_s > 0:
            expires_s = asyncio.get_running_loop().time() + lifetime_s
            key = data[2:] + (b"t" if stream else b"u")
            self._upstream_cache.put(key, response[2:], expires_s=expires_s)
        return response

    # Protocols.

    def _receive(self, datagrams: socket.socket) -> None:
        """Answer what has come; after a burst others get their turn."""
        for _ in range(_BURST):
            try:
                data, peer = datagrams.recvfrom(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                # An earlier answer found nobody.
                log.debug("datagrams: %s", error)
                continue
            try:
                response = self.answer_now(data, stream=False)
                if response:
                    datagrams.sendto(response, peer)
                elif response is None:
                    self._answer_later(data, peer)
            except OSError as error:
                log.debug("no answer to %s: %s", peer[0], error)
            except Exception:
                log.exception("query from %s failed", peer[0])

    def _send(self, response: bytes, peer: Peer) -> None:
        if self._datagrams is not None:
            with contextlib.suppress(OSError):
                self._datagrams.sendto(response, peer)

    def _answer_later(self, data: bytes, peer: Peer) -> None:
        if not self._waiting.enter(peer[0]):
            self._send(wire.bare(data, dns.rcode.SERVFAIL), peer)
            return
        task = asyncio.ensure_future(self._reply_later(data, peer))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    async def _reply_later(self, data: bytes, peer: Peer) -> None:
        try:
            self._send(await self._forward(data, stream=False), peer)
        except Exception:
            log.exception("query failed")
            self._send(wire.bare(data, dns.rcode.SERVFAIL), peer)
        finally:
            self._waiting.leave(peer[0])

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        if not self._talking.enter(peer):
            writer.close()
            return
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            # Gone, or silent for too long; what it has not taken is not kept for it.
            writer.transport.abort()
        except Exception:
            log.exception("query from %s failed", peer)
        finally:
            self._talking.leave(peer)
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One query and its answer; False where it gets none.  Raises OSError, TimeoutError, IncompleteReadError."""
        async with asyncio.timeout(_TCP_IDLE_S):
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            data = await reader.readexactly(length)
        async with asyncio.timeout(_TCP_ANSWER_S):
            response = await self.answer(data, stream=True)
            if not response:
                return False
            writer.write(struct.pack(">H", len(response)) + response)
            await writer.drain()
        return True
