"""Relays of the userspace backend: what arrives at a frontend is passed on to an endpoint and back, TCP and UDP.

A connection is two transports and no task once it stands; a UDP flow is a socket. Both are counted and bounded for all
frontends together (`Budget`): what is too much is refused and never queued. Nothing is read from one side faster than
the other takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, cast

from navarch.node.proxy.base import Endpoint

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 16384
FLOWS_MAX: Final = 4096
CLIENTS_MAX: Final = 65536
FLOW_IDLE_S: Final = 60.0
_CONNECT_S: Final = 3.0
_ATTEMPTS: Final = 4
_REST_S: Final = 0.1
_DATAGRAM: Final = 65535
_BURST: Final = 64
_IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IP_PKTINFO = 49, 50, 8
_ABORT: Final = struct.pack("ii", 1, 0)

Target = tuple[str, int]
Network = IPv4Network | IPv6Network


@dataclass(slots=True)
class Budget:
    """How many connections and flows there may be, of all frontends together."""

    connections: int = CONNECTIONS_MAX
    flows: int = FLOWS_MAX


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a frontend's traffic goes. `inside` is for clients on this node and in `pods`, `outside` for all others;
    with `ranges` only clients in one of them are served at all, with `places` only at addresses within one of these.
    With `affinity_s` clients keep their endpoint."""

    inside: tuple[Target, ...]
    outside: tuple[Target, ...]
    pods: Network | None = None
    ranges: tuple[Network, ...] = ()
    affinity_s: int = 0
    places: tuple[Network, ...] = ()
    on_loopback: bool = True


def targets_of(endpoints: Sequence[Endpoint]) -> tuple[Target, ...]:
    return tuple((each.address, each.port) for each in endpoints)


class Picker:
    """Chooses endpoints for clients by a rule that may change, and remembers who was sent where."""

    def __init__(self, rule: Rule, source: random.Random, now_s: Callable[[], float]) -> None:
        self.rule = rule
        self._random = source
        self._now_s = now_s
        self._known: OrderedDict[str, tuple[Target, float]] = OrderedDict()

    def pick(self, client: str, asked: str, *, at_home: bool) -> list[Target]:
        """Endpoints to try, in order; none where the client is not served at the address that it asked. `at_home`: it
        is on this node."""
        rule, address = self.rule, ip_address(client.partition("%")[0])
        if not rule.on_loopback and ip_address(asked).is_loopback:
            return []
        if rule.places and not any(ip_address(asked) in each for each in rule.places):
            return []
        if rule.ranges and not at_home and not any(address in each for each in rule.ranges):
            return []
        near = at_home or (rule.pods is not None and address in rule.pods)
        targets = list(rule.inside if near else rule.outside)
        self._random.shuffle(targets)
        if rule.affinity_s and (known := self._known.get(client)) is not None:
            target, last_s = known
            if target in targets and self._now_s() - last_s < rule.affinity_s:
                targets.remove(target)
                targets.insert(0, target)
        return targets[:_ATTEMPTS]

    def remember(self, client: str, target: Target) -> None:
        """The client was sent there."""
        if self.rule.affinity_s:
            self._known[client] = target, self._now_s()
            self._known.move_to_end(client)
            if len(self._known) > CLIENTS_MAX:
                self._known.popitem(last=False)


class _Side(asyncio.Protocol):
    """One end of a relayed connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.closed: Callable[[], None] = lambda: None
        self._eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not of asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._eof = True
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            if self.other._eof:
                return False
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            if error is not None:
                self.other.transport.abort()
            else:
                self.other.transport.close()
        self.closed()


class TcpRelay:
    """Accepts connections on a listening socket until closed; those that stand then go on."""

    def __init__(self, listening: socket.socket, picker: Picker, budget: Budget) -> None:
        self._socket = listening
        self._picker = picker
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        self._loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def changed(self) -> None:
        """The picker's rule is another one."""

    def sweep(self) -> None:
        """TCP connections end by themselves."""

    def _accept(self) -> None:
        for _ in range(_BURST):
            try:
                client, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("a connection could not be accepted: %s", error)
                self._rest()
                return
            client.setblocking(False)
            targets = self._picker.pick(address[0], client.getsockname()[0], at_home=_is_here(address[0]))
            if not targets or self._budget.connections <= 0:
                _reset(client)
                continue
            self._budget.connections -= 1
            task = self._loop.create_task(self._connect(client, address[0], targets))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _rest(self) -> None:
        """Accept nothing for a moment: without file descriptors the kernel would say so again and again."""
        self._loop.remove_reader(self._socket.fileno())
        self._resting = self._loop.call_later(_REST_S, self._loop.add_reader, self._socket.fileno(), self._accept)

    async def _connect(self, client: socket.socket, address: str, targets: list[Target]) -> None:
        """Find an endpoint that takes the connection, and join the two."""
        server = _Side()
        for target in targets:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_S):
                    await self._loop.create_connection(lambda: server, *target)
                self._picker.remember(address, target)
                await self._join(client, server)
                return
        self._budget.connections += 1
        _reset(client)

    async def _join(self, client: socket.socket, server: _Side) -> None:
        side = _Side()
        assert server.transport is not None
        # What the server says before its other end is there has to wait.
        server.transport.pause_reading()
        side.other, server.other, side.closed = server, side, self._ended
        try:
            await self._loop.connect_accepted_socket(lambda: side, client)
        except OSError:
            server.transport.abort()
            self._ended()
            client.close()
            return
        if server.transport.is_closing():
            assert side.transport is not None
            side.transport.close()
            return
        if server._eof and side.transport is not None:
            side.transport.write_eof()
        server.transport.resume_reading()

    def _ended(self) -> None:
        self._budget.connections += 1


class _Flow:
    """What one UDP client sends to one address of a frontend, on its way to an endpoint."""

    __slots__ = ("last_s", "socket", "target")

    def __init__(self, target: Target, now_s: float) -> None:
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(target)
        self.target = target
        self.last_s = now_s


class UdpRelay:
    """Passes datagrams on, each client's to one endpoint for as long as it goes on sending."""

    def __init__(self, bound: socket.socket, picker: Picker, budget: Budget) -> None:
        self._socket = bound
        self._picker = picker
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._flows: dict[tuple[Target, bytes], _Flow] = {}
        # Answers leave from the address that was asked, which a socket for all addresses has to be told.
        six = bound.family == socket.AF_INET6
        self._level, self._info = (socket.IPPROTO_IPV6, _IPV6_PKTINFO) if six else (socket.IPPROTO_IP, _IP_PKTINFO)
        bound.setsockopt(self._level, _IPV6_RECVPKTINFO if six else _IP_PKTINFO, 1)
        self._loop.add_reader(bound.fileno(), self._receive)

    def close(self) -> None:
        self._loop.remove_reader(self._socket.fileno())
        for key in list(self._flows):
            self._end(key)
        self._socket.close()

    def changed(self) -> None:
        """Flows to endpoints that are gone end."""
        rule = self._picker.rule
        right = {*rule.inside, *rule.outside}
        for key, flow in list(self._flows.items()):
            if flow.target not in right:
                self._end(key)

    def sweep(self) -> None:
        """End flows of clients that have fallen silent."""
        now_s = self._loop.time()
        for key, flow in list(self._flows.items()):
            if now_s - flow.last_s > FLOW_IDLE_S:
                self._end(key)

    def _receive(self) -> None:
        for _ in range(_BURST):
            try:
                data, extra, _, client = self._socket.recvmsg(_DATAGRAM, 128)
            except OSError:
                return
            info = next((value for level, kind, value in extra if (level, kind) == (self._level, self._info)), b"")
            with contextlib.suppress(OSError):
                self._pass_on(data, client, info)

    def _pass_on(self, data: bytes, client: Target, info: bytes) -> None:
        key = (client, info)
        flow = self._flows.get(key)
        if flow is None:
            targets = self._picker.pick(client[0], _asked(info), at_home=_is_here(client[0]))
            if not targets or self._budget.flows <= 0:
                return
            flow = self._flows[key] = _Flow(targets[0], self._loop.time())
            self._budget.flows -= 1
            self._picker.remember(client[0], targets[0])
            self._loop.add_reader(flow.socket.fileno(), self._answer, key, flow)
        flow.last_s = self._loop.time()
        flow.socket.send(data)

    def _answer(self, key: tuple[Target, bytes], flow: _Flow) -> None:
        client, info = key
        for _ in range(_BURST):
            try:
                data = flow.socket.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                # Nobody listens there; the client's next datagram finds out anew.
                self._end(key)
                return
            with contextlib.suppress(OSError):
                self._socket.sendmsg([data], [(self._level, self._info, _source(info))] if info else [], 0, client)

    def _end(self, key: tuple[Target, bytes]) -> None:
        flow = self._flows.pop(key)
        self._loop.remove_reader(flow.socket.fileno())
        flow.socket.close()
        self._budget.flows += 1


def _source(info: bytes) -> bytes:
    """The packet information that has an answer leave from the address that was asked, by whatever device."""
    return info[:16] + b"\0" * 4 if len(info) == 20 else b"\0" * 4 + info[8:12] + b"\0" * 4


def _asked(info: bytes) -> str:
    """The address that a datagram was sent to."""
    return (
        socket.inet_ntop(socket.AF_INET6, info[:16])
        if len(info) == 20
        else socket.inet_ntop(socket.AF_INET, info[8:12])
    )


def _is_here(client: str) -> bool:
    """Whether the client is on this machine: then its address is one that can be bound here."""
    with socket.socket(socket.AF_INET6 if ":" in client else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((client, 0))
        except OSError:
            return False
    return True


def _reset(connection: socket.socket) -> None:
    """End a connection so that its client notices at once."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    connection.close()
