"""Upgraded connections: what the client and the other end say to each other is not ours to understand.

In: a request that asks for an upgrade, and where it goes.  Out: the other end's refusal, or a `Tunnel`; `join` then
copies bytes both ways until either side is done, or until nothing has gone either way for as long as Kubernetes lets a
stream be idle. Backpressure is the sockets' own: each direction waits for its reader.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from navarch.api.errors import unavailable
from navarch.apiserver.handlers.targets import Target
from navarch.client.transport import Request, Response

_CHUNK = 64 * 1024
_HEAD_MAX = 64 * 1024
_CONNECT_S = 10.0
_ANSWER_S = 60.0
# The default of the kubelet's streamingConnectionIdleTimeout.
IDLE_S = 4 * 3600.0
_DROPPED = frozenset({"host", "authorization", "content-length", "transfer-encoding"})
# Whom the request counts as has been settled here; what a backend of ours would make of it is another matter.
IMPERSONATION = "impersonate-"


@dataclass(slots=True)
class Tunnel(Response):
    """A 101 with the connection behind it; `head` is the raw response head to send on."""

    head: bytes = b""
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None


async def open_tunnel(request: Request, target: Target, url: str) -> Response:
    """Raises StatusError 503 where nobody answers."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection(target.host, target.port, ssl=target.tls, limit=_HEAD_MAX)
    except (OSError, TimeoutError) as error:
        raise unavailable(f'error dialing backend: "{target.base_url}{url}": {error or "timed out"}') from error
    try:
        writer.write(_request_head(request, target, url))
        async with asyncio.timeout(_ANSWER_S):
            head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
    except (
        OSError,
        TimeoutError,
        asyncio.IncompleteReadError,
        asyncio.LimitOverrunError,
        ValueError,
        IndexError,
    ) as error:
        writer.close()
        raise unavailable(f"error dialing backend: {error or 'no answer'}") from error
    if status == 101:
        return Tunnel(101, b"", {}, head=head, reader=reader, writer=writer)
    return await _refusal(status, head, reader, writer)


def _request_head(request: Request, target: Target, url: str) -> bytes:
    lines = [f"{request.method} {url} HTTP/1.1", f"Host: {target.authority}"]
    lines += [
        f"{name}: {value}"
        for name, value in request.headers.items()
        if name not in _DROPPED and not name.startswith(IMPERSONATION)
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


async def _refusal(status: int, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Response:
    headers = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    body = b""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_CONNECT_S):
            length = headers.get("content-length", "")
            body = await reader.readexactly(int(length)) if length.isdecimal() else await reader.read(_HEAD_MAX)
    writer.close()
    return Response(status, body, {}, headers.get("content-type", "text/plain"))


class _Idle:
    """Calls `expired` once nothing has passed for `limit_s`. What passes only notes the time: one timer looks at it."""

    def __init__(self, limit_s: float, expired: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s = limit_s
        self._expired = expired
        self._timer = self._loop.call_later(limit_s, self._look)
        self.last_s = self._loop.time()

    def passed(self) -> None:
        self.last_s = self._loop.time()

    def _look(self) -> None:
        left_s = self.last_s + self._limit_s - self._loop.time()
        if left_s <= 0:
            self._expired()
        else:
            self._timer = self._loop.call_later(left_s, self._look)

    def stop(self) -> None:
        self._timer.cancel()


class _Client(asyncio.Protocol):
    """The client's connection, once it is ours: what it sends goes to the other end."""

    def __init__(self, writer: asyncio.StreamWriter, transport: asyncio.Transport, idle: _Idle) -> None:
        self._writer = writer
        self._transport = transport
        self._idle = idle
        self._draining: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self._idle.passed()
        self._writer.write(data)
        buffered = self._writer.transport.get_write_buffer_size()
        if buffered > _CHUNK and self._draining is None:
            self._transport.pause_reading()
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.drain()
        self._draining = None
        if not self.lost:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.writable.set()
        self._writer.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


async def join(tunnel: Tunnel, transport: asyncio.Transport, *, idle_s: float = IDLE_S) -> None:
    """Copy until either side ends or both have been silent for `idle_s`; both are closed then."""
    reader, writer = tunnel.reader, tunnel.writer
    assert reader is not None
    assert writer is not None

    def cut_off() -> None:
        # Not in order: one side may be waiting for a reader who is gone.
        writer.transport.abort()
        transport.abort()

    idle = _Idle(idle_s, cut_off)
    client = _Client(writer, transport, idle)
    transport.set_protocol(client)
    transport.write(tunnel.head)
    try:
        while chunk := await reader.read(_CHUNK):
            await client.writable.wait()
            if transport.is_closing():
                break
            idle.passed()
            transport.write(chunk)
    except OSError:
        # One side broke off, which ends the other too.
        pass
    finally:
        idle.stop()
        writer.close()
        transport.close()
