"""One HTTP/1.1 connection of a client: a request out, its answer in, again and again.

In: a request's bytes.  Out: status, headers and the whole body. Bodies come with a length, in chunks, or until the
connection ends. One request at a time; whoever shares a connection waits for its turn elsewhere (`client/http.py`).
A general HTTP client costs more per request than the API server does, and components send a great many small ones.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import NamedTuple, cast

_BODILESS = frozenset({204, 304})
_HEAD_MAX = 1 << 20


class Answer(NamedTuple):
    """`headers` have lower-case names; several of one name are joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes


class NoAnswerError(ConnectionError):
    """The connection ended before anything of the answer came: the server may have closed it while it was idle."""


class Connection(asyncio.Protocol):
    """Made by `loop.create_connection`; `ask` while it is not `closed`."""

    __slots__ = (
        "_answer",
        "_buffer",
        "_chunked",
        "_chunks",
        "_headers",
        "_method",
        "_missing",
        "_parts",
        "_status",
        "_transport",
        "closed",
        "idle_since",
        "used",
    )

    def __init__(self) -> None:
        self.closed = False
        self.used = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._method = ""
        # What has come of a head, of a chunked body, and of one of known length.
        self._buffer = b""
        self._chunks = bytearray()
        self._parts: list[bytes] = []
        # Bytes of the body that are still to come; below 0 the head has not been read, or nobody knows.
        self._missing = -1
        self._chunked = False
        self._status = 0
        self._headers: dict[str, str] = {}

    async def ask(self, method: str, request: bytes, timeout_s: float) -> Answer:
        """Send the request, return the answer.  Raises ConnectionError (NoAnswerError), TimeoutError. Afterwards the
        connection can be used again, or is `closed`."""
        loop = asyncio.get_running_loop()
        transport = self._transport
        if transport is None or self.closed:
            raise NoAnswerError("the connection is closed")
        answer: asyncio.Future[Answer] = loop.create_future()
        self._answer = answer
        self._method = method
        expiry = loop.call_later(timeout_s, self._expire)
        transport.write(request)
        try:
            return await answer
        except asyncio.CancelledError:
            # Its answer is still on the way, and must not be taken for that of the next request.
            self.close()
            raise
        finally:
            expiry.cancel()
            self._answer = None
            self.used = True

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _expire(self) -> None:
        self._fail(TimeoutError("no answer in time"))

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._answer is None or self._answer.done():
            return
        if self._status and not self._chunked and self._missing < 0:
            # A body without a length ends with the connection.
            self._finish(b"".join(self._parts))
        elif self._status or self._buffer:
            self._answer.set_exception(ConnectionError("the connection ended in the middle of an answer"))
        else:
            self._answer.set_exception(NoAnswerError(str(error or "the server closed the connection")))

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            # Nobody asked.
            self.close()
            return
        try:
            self._take(data)
        except ValueError as error:
            self._fail(ConnectionError(f"the answer is no HTTP: {error}"))

    # Reading an answer

    def _take(self, data: bytes) -> None:
        while not self._status:
            data, self._buffer = self._buffer + data, b""
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > _HEAD_MAX:
                    raise ValueError("the head is too long")
                self._buffer = data
                return
            self._read_head(data[:end])
            data = data[end + 4 :]
            if 100 <= self._status < 200:
                # Says that the real answer is still to come.
                self._status = 0
        if self._chunked:
            self._chunks += data
            if self._chunks.endswith(b"\r\n\r\n") and (body := dechunked(bytes(self._chunks))) is not None:
                self._finish(body)
            return
        self._parts.append(data)
        if self._missing >= 0:
            self._missing -= len(data)
            if self._missing < 0:
                raise ValueError("more came than was announced")
            if self._missing == 0:
                self._finish(b"".join(self._parts) if len(self._parts) > 1 else data)

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        if not first.startswith("HTTP/1."):
            raise ValueError("it has no status line")
        self._status = int(first[9:12])
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._headers = headers
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if self._method == "HEAD" or self._status in _BODILESS:
            self._chunked, self._missing = False, 0
        elif "content-length" in headers:
            self._missing = int(headers["content-length"])
        else:
            self._missing = -1

    def _finish(self, body: bytes) -> None:
        status, headers, until_end = self._status, self._headers, not self._chunked and self._missing < 0
        self._parts, self._missing, self._chunked, self._status = [], -1, False, 0
        self._chunks.clear()
        if headers.get("connection", "").lower() == "close" or until_end:
            self.close()
        if headers.get("content-encoding", "").lower() == "gzip":
            try:
                body = zlib.decompress(body, zlib.MAX_WBITS | 16)
            except zlib.error as error:
                raise ValueError(str(error)) from None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(status, headers, body))


def dechunked(data: bytes) -> bytes | None:
    """The body behind its chunks; None while it is not complete.  Raises ValueError."""
    parts: list[bytes] = []
    position = 0
    while True:
        end = data.find(b"\r\n", position)
        if end < 0:
            return None
        length = int(data[position:end].split(b";", 1)[0], 16)
        position = end + 2
        if length == 0:
            return b"".join(parts)
        if position + length + 2 > len(data):
            return None
        parts.append(data[position : position + length])
        position += length + 2
