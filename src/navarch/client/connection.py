"""One HTTP/1.1 connection of a client: a request out, its answer in, again and again.

In: a request's bytes.  Out: status, headers and the whole body. Bodies come with a length, in chunks, or until the
connection ends. One request at a time; whoever shares a connection waits for its turn elsewhere (`client/http.py`).
A general HTTP client costs more per request than the API server does, and components send a great many small ones.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from typing import NamedTuple, cast

from navarch.client import http1

_BODILESS = frozenset({204, 304})


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
        "_body",
        "_chunks",
        "_head",
        "_headers",
        "_length",
        "_longest",
        "_method",
        "_status",
        "_transport",
        "closed",
        "idle_since",
        "used",
    )

    def __init__(self, longest: int | None = None) -> None:
        """`longest` is how long an answer's body may be, unpacked; None: as long as it likes."""
        self._longest = longest
        self.closed = False
        self.used = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._method = ""
        self._head = http1.HeadReader()
        # What has come of a body, and how long it will be; None where nobody says, or it comes in chunks.
        self._body = bytearray()
        self._length: int | None = None
        self._chunks: http1.Chunks | None = None
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
        if self._status and self._chunks is None and self._length is None:
            # A body without a length ends with the connection.
            self._finish(bytes(self._body))
        elif self._status or self._head.started:
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
            found = self._head.feed(data)
            if found is None:
                return
            head, data = found
            if 100 <= head.status < 200:
                # Says that the real answer is still to come.
                continue
            self._begin(head)
        if self._chunks is not None:
            body = self._chunks.feed(data)
            _check_length(self._chunks.size, self._longest)
            if body is not None:
                self._finish(body)
            return
        self._body += data
        _check_length(len(self._body), self._longest)
        if self._length is not None:
            if len(self._body) > self._length:
                raise ValueError("more came than was announced")
            if len(self._body) == self._length:
                self._finish(bytes(self._body))

    def _begin(self, head: http1.Head) -> None:
        self._status, self._headers = head
        self._chunks = None
        if self._method == "HEAD" or self._status in _BODILESS:
            self._length = 0
        elif http1.is_chunked(self._headers):
            self._length, self._chunks = None, http1.Chunks()
        else:
            self._length = http1.length_of(self._headers)
            _check_length(self._length or 0, self._longest)

    def _finish(self, body: bytes) -> None:
        status, headers, until_end = self._status, self._headers, self._chunks is None and self._length is None
        self._body, self._length, self._chunks, self._status = bytearray(), None, None, 0
        if headers.get("connection", "").lower() == "close" or until_end:
            self.close()
        body = unpacked(headers, body, self._longest)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(status, headers, body))


def _check_length(length: int, longest: int | None) -> None:
    """Raises ValueError for a body that is longer than it may be."""
    if longest is not None and length > longest:
        raise ValueError(f"a body of more than {longest} bytes")


def unpacked(headers: Mapping[str, str], body: bytes, longest: int | None = None) -> bytes:
    """What a body says, which may have been packed; no more of it is made than may be.  Raises ValueError."""
    if headers.get("content-encoding", "").lower() != "gzip":
        return body
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        body = unpacker.decompress(body, 0 if longest is None else longest + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    _check_length(len(body), longest)
    if not unpacker.eof:
        raise ValueError("a packed body without its end")
    return body
