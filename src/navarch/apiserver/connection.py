"""One connection of the HTTPS front, with a short way for the many small requests.

aiohttp's protocol takes a request apart and puts an answer together in general ways that cost several times what the
answer itself does. A plain request, whose head comes in one piece, that has a body of stated length or none and that
names a resource, is handled here; its answer is streamed if it is long, or a watch. Everything else (logs, upgrades,
HTTP/1.0, chunked or compressed bodies, odd heads) goes to aiohttp untouched, but for methods that its parser does not
know: as in Kubernetes they are what the handlers refuse.

Invariant: a byte goes one way only. What comes while a plain request is being answered waits; once aiohttp has been
given something other than one whole request, it has the connection for good.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from navarch.apiserver import web
from navarch.apiserver.answer_heads import head_of
from navarch.apiserver.bodies import Bodies, IsKnown
from navarch.apiserver.pieces import Pieces
from navarch.apiserver.plain_requests import plain_request, refusable_request
from navarch.client.transport import Request, Response
from navarch.records import mutable
from navarch.tls import peer_certificate

# Answers a request, and makes a long answer ready to be sent: `(request, peer certificate) -> response`.
Answer = Callable[[Request, bytes | None], Awaitable[Response]]
# The same for a request that need not wait for anything, with a body that is all there; None for any other.
Ready = Callable[[Request, bytes | None], Response | None]

IDLE_S = 300.0
BODY_S = 60.0
# As long as Kubernetes waits for a request's head.
HEAD_S = 32.0
# Who has not read for so long is cut off.
STALLED_S = 30.0
# Who is refused in the middle of what he sends may read why; then the connection is cut, whatever else he sends.
LAST_WORDS_S = 1.0
# As much as Go reads of a head.
HEAD_MAX = (1 << 20) + 4096
_BUFFER = 64 << 10
_HEAD_MAX = 8192
_PIPELINE_MAX = 64 << 10
_END = b"\r\n\r\n"
_BODY_FOLLOWS = re.compile(rb"\n(?:content-length|transfer-encoding)\s*:", re.IGNORECASE)


@mutable
class _Due:
    """A request whose body is still coming."""

    request: Request
    body: bytearray
    length: int
    timer: asyncio.TimerHandle


class Connection(web.RequestHandler):
    """aiohttp's protocol, with the short way in front of it."""

    __slots__ = (
        "_answer",
        "_answering",
        "_began_s",
        "_bodies",
        "_done_s",
        "_due",
        "_general",
        "_handling",
        "_head_size",
        "_known",
        "_later",
        "_later_size",
        "_patience",
        "_peer",
        "_peer_known",
        "_ready",
        "_streaming",
        "_used",
        "remote",
    )

    def __init__(
        self,
        manager: web.Server,
        answer: Answer,
        bodies: Bodies,
        short_way: bool,
        ready: Ready | None = None,
        **options: Any,
    ) -> None:
        super().__init__(manager, **options)
        self._answer = answer
        self._ready = ready
        self._bodies = bodies
        self._answering: asyncio.Task[None] | None = None
        self._due: _Due | None = None
        self._later: list[bytes] = []
        self._later_size = 0
        # Whether aiohttp has the connection for good; how many requests it is handling.
        self._general = not short_way
        self._streaming = False
        self._handling = 0
        # When the first byte of the request came whose head is not whole yet, and when the last answer was sent.
        self._began_s: float | None = None
        self._done_s = 0.0
        # Of that head; and whether somebody has asked here before who said who he is.
        self._head_size = 0
        self._known = False
        self._used = False
        self._patience: asyncio.TimerHandle | None = None
        # The address of who is at the other end.
        self.remote = ""
        self._peer: bytes | None = None
        self._peer_known = False

    # In

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._done_s = self._loop.time()
        self._patience = self._loop.call_later(HEAD_S, self._look)
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if isinstance(peer, tuple) else ""

    def _look(self) -> None:
        """End a connection on which nothing is asked: slow heads, and none at all, would stay for ever."""
        now = self._loop.time()
        self._patience = self._loop.call_later(HEAD_S / 2, self._look)
        if self._answering is not None or self._due is not None or self._handling:
            return
        since, limit = self._done_s, IDLE_S if self._used else HEAD_S
        if self._began_s is not None:
            since, limit = self._began_s, HEAD_S
        if now - since >= limit and self.transport is not None:
            self.transport.abort()

    def begins(self) -> None:
        """A request's head is whole."""
        self._began_s = None
        if self._head_size:
            self._bodies.remove(self)
            self._head_size = 0
        self._used = True

    def handles(self) -> None:
        """aiohttp has handed a request on."""
        self.begins()
        self._handling += 1

    def handled(self) -> None:
        self._handling -= 1
        self._done_s = self._loop.time()

    def data_received(self, data: bytes) -> None:
        if self._general or not data:
            self._pass_on(data)
        elif self._answering is not None:
            self._later.append(data)
            self._later_size += len(data)
            if self._later_size > _PIPELINE_MAX:
                # It waits with who sends it: there is no bound on how many connections could have us keep it.
                self._pause_transport_reading()
        elif self._due is not None:
            self._take_body(self._due, data)
        elif self._is_idle():
            self._take_request(data)
        else:
            self._leave(data)

    def _is_idle(self) -> bool:
        """Whether aiohttp has nothing to do: it has been given nothing yet, or waits for the next request."""
        waiter = self._waiter
        if waiter is None:
            return self._request_count == 0
        return not waiter.done() and not self._upgraded

    def _leave(self, data: bytes) -> None:
        self._general = True
        self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """To aiohttp, which holds what has come of a head until it is whole."""
        super().data_received(data)
        if not data or not self._is_idle() or self._force_close:
            return
        if self._began_s is None:
            self._began_s = self._loop.time()
        self._head_size += len(data)
        if self._head_size > HEAD_MAX:
            # It stays counted until the connection is gone, as the parser keeps what it has.
            self._say_last(_TOO_LONG)
        else:
            self._bodies.head(self, self._head_size, self._cut, known=self._known)

    def _cut(self) -> None:
        """There is too much of all heads that are coming, and this is the longest."""
        if self.transport is not None:
            self.transport.abort()

    def _take_request(self, data: bytes) -> None:
        end = data.find(_END, 0, _HEAD_MAX)
        goes_on = end > 0 and not (self._force_close or self._close)
        plain = plain_request(data[:end]) if goes_on else None
        if plain is None and goes_on and (refusable := refusable_request(data[:end])) is not None:
            self._begin(refusable)
            return
        if plain is None:
            # From one whole request without a body, which may be all that is not plain, aiohttp comes back.
            self._general = not (
                data.startswith(b"GET ") and end == len(data) - len(_END) and not _BODY_FOLLOWS.search(data)
            )
            self._pass_on(data)
            return
        request, length = plain
        body = data[end + len(_END) :]
        if len(body) < length:
            timer = self._loop.call_later(BODY_S, self._give_up, 408)
            self._due = _Due(request, bytearray(body), length, timer)
            self._bodies.add(self, len(body), self._too_much, request, self._certificate())
            return
        self._whole(request, body, length)

    def _take_body(self, due: _Due, data: bytes) -> None:
        due.body += data
        if len(due.body) < due.length:
            self._bodies.add(self, len(data), self._too_much, due.request, self._certificate())
            return
        self._forget_due(due)
        self._whole(due.request, bytes(due.body), due.length)

    def _whole(self, request: Request, body: bytes, length: int) -> None:
        if len(body) > length:
            self._later.append(body[length:])
            self._later_size += len(body) - length
            body = body[:length]
        request.body = body
        self._begin(request)

    def _forget_due(self, due: _Due) -> None:
        due.timer.cancel()
        self._bodies.remove(self)
        self._due = None

    def _too_much(self) -> None:
        """There is too much of all bodies that are coming, and this is the longest."""
        self._give_up(429)

    def _give_up(self, status: int) -> None:
        """The body did not arrive in time, or there is no room for it."""
        if self._due is not None:
            self._forget_due(self._due)
        self._say_last(Response(status, b"", {"Retry-After": "1"} if status == 429 else {}))

    def _say_last(self, response: Response) -> None:
        """Answer before the request is whole, and end the connection."""
        transport = self.transport
        if transport is None:
            return
        assert isinstance(response.body, bytes)
        said = Response(response.status, b"", {"Connection": "close", **response.headers}, response.content_type)
        transport.write(head_of(said, len(response.body)) + response.body)
        # What else comes is read for nobody: left unread, it would take the answer along when the connection ends.
        self._force_close = True
        self.ends_soon()

    def ends_soon(self) -> None:
        """Cut the connection when its client has had the time to read what is sent to him last."""
        if self.transport is not None:
            self._loop.call_later(LAST_WORDS_S, self.transport.abort)

    # Out

    def _begin(self, request: Request) -> None:
        self.begins()
        self._close = self._close or request.last
        request.remote = self.remote
        if self._ready is not None and request.method == "GET" and not (self._later or self._close or self._paused):
            response = self._ready(request, self._certificate())
            if response is not None and isinstance(response.body, bytes):
                self._known = True
                if self.transport is not None:
                    self.transport.write(head_of(response, len(response.body)) + response.body)
                self._answered()
                return
        self._answering = self._loop.create_task(self._respond(request))

    async def _respond(self, request: Request) -> None:
        # A write that has begun goes on when its client hangs up; what is only read is soon read.
        try:
            response = await self._answer(request, self._certificate())
            self._known = self._known or not (request.last or response.status == 401)
            if request.last:
                response = replace(response, headers={**response.headers, "Connection": "close"})
            await self._send(response)
        except (ConnectionError, TimeoutError):
            if self.transport is not None:
                self.transport.abort()
        except BaseException:
            if self.transport is not None:
                self.transport.abort()
            raise
        finally:
            self._answering = None
        if self.transport is None:
            return
        self._answered()
        if self._force_close or self._close:
            self.transport.close()
        elif self._later:
            later, self._later, self._later_size = b"".join(self._later), [], 0
            self._resume_transport_reading()
            # Handling a long pipeline here would copy what is left of it once per request.
            (self.data_received if len(later) <= _PIPELINE_MAX else self._leave)(later)

    def _answered(self) -> None:
        self._done_s = self._loop.time()
        self._next_keepalive_close_time = self._done_s + IDLE_S

    async def _send(self, response: Response) -> None:
        body = response.body
        if not isinstance(body, bytes):
            await self._stream(response, body)
            return
        transport = self.transport
        if transport is None:
            return
        transport.write(head_of(response, len(body)) + body)
        if self._paused:
            # Who asks again and again and reads nothing is not answered again before he does.
            await self.room()

    async def room(self) -> None:
        """Until the client has read what it was sent before.  Raises ConnectionError, TimeoutError."""
        if self._paused:
            async with asyncio.timeout(STALLED_S):
                await self._drain_helper()

    async def _stream(self, response: Response, chunks: AsyncIterator[bytes]) -> None:
        """What is long, or comes from another server, as it comes; who asked and is gone ends it."""
        self._streaming = True
        if self.transport is not None:
            # What a reader does not read waits as objects, which all readers share, not as bytes of its own.
            self.transport.set_write_buffer_limits(_BUFFER)
        length = chunks.length if isinstance(chunks, Pieces) else None
        try:
            self._write(head_of(response, length))
            async for chunk in chunks:
                if length is not None:
                    self._write(chunk)
                elif chunk:
                    self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                if self._paused:
                    await self.room()
            if length is None:
                self._write(b"0\r\n\r\n")
        finally:
            self._streaming = False
            await chunks.aclose()  # type: ignore[attr-defined]

    def _write(self, data: bytes) -> None:
        """Raises ConnectionError."""
        if self.transport is None:
            raise ConnectionError("the client is gone")
        self.transport.write(data)

    def _certificate(self) -> bytes | None:
        """The client's certificate, as `tls` has it, the same for all of a connection."""
        if not self._peer_known:
            self._peer = peer_certificate(self.transport)
            self._peer_known = True
        return self._peer

    # The end

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._due is not None:
            self._forget_due(self._due)
        if self._patience is not None:
            self._patience.cancel()
        if self._head_size:
            self._bodies.remove(self)
        self._later.clear()
        if self._streaming and self._answering is not None:
            self._answering.cancel()
        super().connection_lost(exc)
        if self._general:
            # Whatever it sent, also what was no request.
            web.forget_urls()

    def _process_keepalive(self) -> None:
        if self._answering is not None or self._due is not None:
            # Not idle, whatever aiohttp thinks.
            self._next_keepalive_close_time = self._loop.time() + IDLE_S
        super()._process_keepalive()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        self._close = True
        if self._answering is not None:
            await asyncio.wait([self._answering], timeout=timeout)
        await super().shutdown(timeout)


_TOO_LONG = Response(431, b"431 Request Header Fields Too Large", {}, "text/plain; charset=utf-8")


class Server(web.Server):
    """Makes a `Connection` for each connection; without `short_way` aiohttp has them all from the start."""

    def __init__(
        self,
        handler: Any,
        answer: Answer,
        *,
        short_way: bool = True,
        is_known: IsKnown | None = None,
        ready: Ready | None = None,
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._answer = answer
        self._short_way = short_way
        self._ready = ready
        self.bodies = Bodies(is_known)

    def __call__(self) -> web.RequestHandler:
        return Connection(
            self, self._answer, self.bodies, self._short_way, self._ready, loop=self._loop, **self._kwargs
        )
