"""A lean HTTP/1.1 client for load: prepared bytes out, status and body in, over TLS connections that stay open.

A general client costs more per request than a fast server does, and would measure itself. One request at a time per
connection; bodies with a length or in chunks. `Stream` hands on what a watch sends as it comes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go and as whom."""

    server: str
    tls: ssl.SSLContext | None
    token: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.server).hostname or "localhost"

    @property
    def port(self) -> int:
        parts = urlsplit(self.server)
        return parts.port or (443 if parts.scheme == "https" else 80)

    def request(self, method: str, path: str, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """A request's bytes."""
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}:{self.port}\r\naccept: application/json\r\n"
        if self.token:
            head += f"authorization: Bearer {self.token}\r\n"
        if body:
            head += f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body


class Failed(Exception):
    """The server answered with an error."""


class _Exchange(asyncio.Protocol):
    """One connection; `answer` is the future of the response to the request in flight."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.on_data: Callable[[bytes], None] | None = None
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._missing = -1
        self._chunked = False
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError(str(error or "closed by the server")))

    def data_received(self, data: bytes) -> None:
        if self.on_data is not None and self._status:
            self.on_data(data)
            return
        if self._missing > 0 and not self._chunked:
            # The bulk of a large body: kept in pieces, joined once.
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing <= 0:
                self._finish(b"".join(self._parts))
            return
        self._buffer += data
        if not self._status and not self._read_head():
            return
        if self._chunked and self._buffer.endswith(b"0\r\n\r\n"):
            self._finish(_dechunked(bytes(self._buffer)))

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end]).lower()
        del self._buffer[: end + 4]
        self._status = int(head[9:12])
        at = head.find(b"content-length:")
        self._chunked = at < 0
        if self.on_data is not None:
            if self._status >= 400:
                self._finish(bytes(self._buffer))
            elif self._buffer:
                self.on_data(bytes(self._buffer))
            return False
        if at >= 0:
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            self._missing = length - len(self._buffer)
            if self._missing <= 0:
                self._finish(bytes(self._buffer))
            else:
                self._parts = [bytes(self._buffer)]
            return False
        return True

    def _finish(self, body: bytes) -> None:
        status, answer = self._status, self.answer
        self._buffer.clear()
        self._parts, self._missing, self._status, self._chunked = [], -1, 0, False
        if answer is not None and not answer.done():
            answer.set_result((status, body))


def _dechunked(data: bytes) -> bytes:
    parts: list[bytes] = []
    position = 0
    while True:
        end = data.index(b"\r\n", position)
        length = int(data[position:end].split(b";")[0], 16)
        if length == 0:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + length])
        position = end + 4 + length


class Connection:
    """A connection that answers one request at a time."""

    def __init__(self, protocol: _Exchange) -> None:
        self._protocol = protocol

    @classmethod
    async def open(cls, target: Target) -> Connection:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            _Exchange, target.host, target.port, ssl=target.tls, server_hostname=target.host if target.tls else None
        )
        return cls(protocol)

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body."""
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._protocol.answer = answer
        assert self._protocol.transport is not None
        self._protocol.transport.write(request)
        return await answer

    async def ask(self, request: bytes) -> bytes:
        """The body of a successful answer."""
        status, body = await self.send(request)
        if status >= 400:
            raise Failed(f"{request.split(b' HTTP', 1)[0].decode()}: {status} {body[:300].decode(errors='replace')}")
        return body

    def follow(self, request: bytes, on_data: Callable[[bytes], None]) -> asyncio.Future[tuple[int, bytes]]:
        """Start a watch; the future is done only if it ends or fails."""
        ended: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._protocol.answer, self._protocol.on_data = ended, on_data
        assert self._protocol.transport is not None
        self._protocol.transport.write(request)
        return ended

    def close(self) -> None:
        if self._protocol.transport is not None:
            self._protocol.transport.close()
