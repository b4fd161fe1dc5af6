"""Switching protocols: an HTTP/1.1 request that asks for another protocol on its connection, and the bytes after that.

`switch` sends the request and reads the head of the answer; where that is 101, the connection is the two ends' own, and
`pump` joins it to another one byte for byte. What they say to each other is not ours to understand. Backpressure is the
sockets' own: each direction waits for its reader. Used by the API server, for what goes on to a kubelet, and by the
kubelet, for what goes on to the container runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import Final

from navarch.client.http1 import answer_head
from navarch.numbers import is_digits
from navarch.records import mutable

_CHUNK: Final = 64 * 1024
_HEAD_MAX: Final = 64 * 1024
_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 60.0
# The default of the kubelet's streamingConnectionIdleTimeout.
IDLE_S: Final = 4 * 3600.0


@mutable
class Answer:
    """What the other end answered: its status, the raw head, and the connection as it stands after that."""

    status: int
    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def headers(self) -> dict[str, str]:
        """By name in lower case."""
        return answer_head(self.head[:-4]).headers

    async def refusal(self) -> bytes:
        """The body of an answer that is not 101; ends the connection."""
        body = b""
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_CONNECT_S):
                length = self.headers().get("content-length", "")
                if is_digits(length):
                    body = await self.reader.readexactly(int(length))
                else:
                    body = await self.reader.read(_HEAD_MAX)
        self.writer.close()
        return body


class NoAnswer(ConnectionError):
    """The other end was reached and said nothing that HTTP would know."""


async def switch(
    host: str,
    port: int,
    request_line: str,
    headers: Iterable[str],
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> Answer:
    """Send a request head (`POST /path HTTP/1.1`, `Name: value` …) and read the head of the answer; `server_name` is
    what the certificate is for, where that is not the host.

    Raises OSError or TimeoutError where nobody is there, NoAnswer where somebody is who does not answer."""
    async with asyncio.timeout(_CONNECT_S):
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls, limit=_HEAD_MAX, server_hostname=server_name if tls is not None else None
        )
    try:
        writer.write(("\r\n".join([request_line, *headers]) + "\r\n\r\n").encode("latin-1", "replace"))
        async with asyncio.timeout(_ANSWER_S):
            head = await reader.readuntil(b"\r\n\r\n")
        return Answer(answer_head(head[:-4]).status, head, reader, writer)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as e:
        writer.close()
        raise NoAnswer(str(e) or "no answer") from e
    except BaseException:
        writer.close()
        raise


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


class Inlet(asyncio.Protocol):
    """What comes from a client's transport goes to the other end's writer. One that does not read as fast as the client
    writes makes the client wait, not us keep it."""

    def __init__(self, writer: asyncio.StreamWriter, transport: asyncio.Transport, passed: Callable[[], None]) -> None:
        self._writer = writer
        self._transport = transport
        self._passed = passed
        self._draining: asyncio.Task[None] | None = None
        self._lost = False
        self.writable = asyncio.Event()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._passed()
        self._writer.write(data)
        if self._draining is None and self._writer.transport.get_write_buffer_size() > _CHUNK:
            self._transport.pause_reading()
            self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.drain()
        self._draining = None
        if not self._lost:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.writable.set()
        self._writer.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


async def pump(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    transport: asyncio.Transport,
    *,
    greeting: bytes,
    idle_s: float = IDLE_S,
) -> None:
    """Copy both ways between a client's `transport`, which is told `greeting` first, and the other end, until either
    side ends or both have been silent for `idle_s`; both are closed then."""

    def cut_off() -> None:
        # Not in order: one side may be waiting for a reader who is gone.
        writer.transport.abort()
        transport.abort()

    idle = _Idle(idle_s, cut_off)
    inlet = Inlet(writer, transport, idle.passed)
    transport.set_protocol(inlet)
    transport.write(greeting)
    try:
        while chunk := await reader.read(_CHUNK):
            await inlet.writable.wait()
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
