"""The HTTPS front: aiohttp's bare server, and HTTP/2's connections, before `ApiServer.handle`.

In: connections, with or without a client certificate.  Out: what the handler answers, streams as they come. One
handler serves every path, so that no router is between a request and `handle`; a stream's chunks are written as they
gather, and a client that does not read them in time is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

from aiohttp import HttpVersion11
from aiohttp.http import HttpProcessingError

from navarch.api.errors import StatusError, too_large
from navarch.apiserver import connection, web
from navarch.apiserver.bodies import Bodies, readable, too_late, too_much
from navarch.apiserver.decoding import MAX_BODY
from navarch.apiserver.http2 import connection as http2
from navarch.apiserver.http2.answering import Serving
from navarch.apiserver.negotiation import respond_error
from navarch.apiserver.pieces import Pieces, cut, in_turns
from navarch.apiserver.plain_requests import query_of, together
from navarch.apiserver.routes import parse, verb_of
from navarch.apiserver.server import ApiServer
from navarch.apiserver.tunnel import Tunnel, join
from navarch.apiserver.user import ANONYMOUS
from navarch.client.transport import Request, Response
from navarch.http2.arriving import Arriving
from navarch.store.base import StoreUnavailable
from navarch.tls import peer_certificate

log = logging.getLogger(__name__)

_GZIP_FROM = 128 * 1024
_STREAM_BUFFER = 64 << 10
# What the kernel holds of a connection before it is sent: by itself it takes 4 MiB for each reader that does not read.
_UNSENT_MAX = 256 << 10
_SHUTDOWN_S = 3.0
_quiet = log.getChild("connections")
# What is no HTTP is answered with 400; a traceback for each would only fill the disk.
_quiet.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
# Of one line of a head; all of it may be as long as `connection` says, which is found out first.
_LINE_MAX = 2 * connection.HEAD_MAX
# How long the end of a TLS connection may take, what it was sent before included.
_TLS_END_S = 10.0
_URL_KEPT = 8 << 10
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class HTTPFront:
    """Serves one ApiServer on one address; `short_way` is for comparing with what aiohttp does alone. HTTP/2 is spoken
    where a context offers it (`tls_context`): with at most `streams` requests at a time on a connection, of which one
    is the last with a chance of `goaway_chance`."""

    def __init__(
        self, server: ApiServer, *, short_way: bool = True, streams: int = 0, goaway_chance: float = 0.0
    ) -> None:
        self._server = server
        self._web = connection.Server(
            self._handle,
            self._answer,
            short_way=short_way,
            is_known=self._knows,
            ready=self._ready,
            handler_cancellation=True,
            access_log=None,
            logger=_quiet,
            keepalive_timeout=connection.IDLE_S,
            # Done here, within the limit of a body.
            auto_decompress=False,
            # Commands to execute and selectors travel in the URL.
            max_line_size=_LINE_MAX,
            max_field_size=_LINE_MAX,
        )
        self._http2 = Serving(self._answer, self._web.bodies)
        if goaway_chance > 0:
            dice = server.core.world.random("apiserver", "goaway")
            self._http2.parts = lambda: dice.random() < goaway_chance
        if streams > 0:
            self._http2.streams = streams
        self._listening: list[asyncio.Server] = []

    def _arrives(self) -> asyncio.Protocol:
        loop = asyncio.get_running_loop()
        return Arriving(self._web, lambda: http2.Connection(self._http2, loop))

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen; returns the port (of use where 0 was asked for)."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            self._arrives, host, port, ssl=tls, backlog=1024, reuse_address=True, **_patience(tls)
        )
        self._listen_on(server)
        return int(server.sockets[0].getsockname()[1])

    async def serve(self, listeners: Iterable[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Take the connections of sockets that listen already."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            self._listen_on(
                await loop.create_server(self._arrives, sock=listener, ssl=tls, backlog=4096, **_patience(tls))
            )

    def _listen_on(self, server: asyncio.Server) -> None:
        self._listening.append(server)
        for listener in server.sockets:
            # Connections have it from the socket that they come by.
            with contextlib.suppress(OSError):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_MAX)

    async def stop(self) -> None:
        """Take no more connections, end the watches, let running requests finish for a moment."""
        for listening in self._listening:
            listening.close()
        self._server.drain()
        await asyncio.gather(
            self._web.shutdown(_SHUTDOWN_S), *(each.shutdown(_SHUTDOWN_S) for each in self._http2.connections)
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SHUTDOWN_S):
                for listening in self._listening:
                    await listening.wait_closed()

    async def _knows(self, request: Request, certificate: bytes | None) -> bool:
        """Whether the credentials of a request are somebody's; it is as it was afterwards."""
        asked = replace(request, headers=dict(request.headers))
        with contextlib.suppress(StatusError, StoreUnavailable):
            return await self._server.core.authenticator.authenticate(asked, certificate) is not ANONYMOUS
        return False

    def _ready(self, request: Request, certificate: bytes | None) -> Response | None:
        """What a plain request gets that need not wait for anything."""
        return self._server.ready_reads.answer(request, certificate, _GZIP_FROM)

    async def _answer(self, request: Request, certificate: bytes | None) -> Response:
        """What a plain request gets, over `connection`."""
        response = await self._server.handle(request, None, certificate)
        body = response.body
        if isinstance(body, bytes) and len(body) < _GZIP_FROM:
            return response
        return self._in_pieces(response, request.headers.get("accept-encoding", ""))

    def _in_pieces(self, response: Response, accepted: str) -> Response:
        """A long answer as it is sent: in pieces, compressed if the client takes it so."""
        body = response.body
        if isinstance(body, bytes):
            body = Pieces(in_turns(self._server.core.work, cut(body)), len(body))
        elif not isinstance(body, Pieces):
            return response
        headers = response.headers
        if "gzip" in accepted and "Content-Encoding" not in headers:
            body, headers = body.packed(), {**headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return Response(response.status, body, headers, response.content_type)

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        protocol = incoming.protocol
        assert isinstance(protocol, connection.Connection)
        protocol.handles()
        try:
            await protocol.room()
            return await self._handle_one(incoming, protocol)
        except TimeoutError:
            _cut_off(incoming)
            raise asyncio.CancelledError from None
        finally:
            protocol.handled()

    async def _handle_one(self, incoming: web.BaseRequest, protocol: connection.Connection) -> web.StreamResponse:
        try:
            request = await _request_of(incoming, self._web.bodies)
        except StatusError as error:
            if error.code in (408, 429):
                protocol.ends_soon()
            return _finished(respond_error(error))
        request.remote = protocol.remote
        answering = self._server.handle(request, None, peer_certificate(incoming.transport))
        if request.method in _WRITES and "upgrade" not in request.headers:
            # A write that has begun goes on when its client hangs up: whoever undid what admission did for it, while
            # its commit is under way, would be wrong half of the time.
            response = await asyncio.shield(answering)
        else:
            response = await answering
        body = response.body
        if isinstance(response, Tunnel):
            return await _joined(incoming, response)
        if isinstance(body, bytes) and len(body) < _GZIP_FROM:
            return _finished(response)
        if "upgrade" in request.headers and verb_of(request, parse(request.path)) == "watch":
            return await _over_websocket(incoming, request, response)
        response = self._in_pieces(response, request.headers.get("accept-encoding", ""))
        assert not isinstance(response.body, bytes)
        return await _stream(incoming, response, response.body)


def _patience(tls: ssl.SSLContext | None) -> dict[str, Any]:
    """How long the beginning and the end of a connection may take."""
    if tls is None:
        return {}
    return {"ssl_handshake_timeout": connection.HEAD_S, "ssl_shutdown_timeout": _TLS_END_S}


async def _request_of(incoming: web.BaseRequest, bodies: Bodies) -> Request:
    """Raises StatusError 400, 408, 413, 415, 429."""
    headers: dict[str, str] = {}
    for name, value in incoming.headers.items():
        lower = name.lower()
        value = _in_unicode(value)
        headers[lower] = together(lower, headers[lower], value) if lower in headers else value
    path, text = incoming.rel_url.raw_path, incoming.rel_url.raw_query_string
    if len(path) + len(text) > _URL_KEPT:
        web.forget_urls()
    # Not as the URL reads it: what it made of its text would be kept with it.
    query = query_of(_in_unicode(text)) if text else ()
    request = Request(incoming.method, path, query, headers, b"")
    if incoming.body_exists:
        length = incoming.content_length
        if length is not None and length > MAX_BODY:
            raise too_large(MAX_BODY)
        request.body = await _read_body(incoming, request, bodies)
        return readable(request)
    return request


def _in_unicode(text: str) -> str:
    """Bytes that are no UTF-8 arrive as surrogates, which no answer could repeat."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


async def _read_body(incoming: web.BaseRequest, request: Request, bodies: Bodies) -> bytes:
    body, whose, peer = bytearray(), object(), peer_certificate(incoming.transport)

    def give_up() -> None:
        incoming.content.set_exception(too_much())

    try:
        async with asyncio.timeout(connection.BODY_S):
            while chunk := await incoming.content.readany():
                body += chunk
                if len(body) > MAX_BODY:
                    raise too_large(MAX_BODY)
                bodies.add(whose, len(chunk), give_up, request, peer)
    except TimeoutError:
        raise too_late() from None
    finally:
        bodies.remove(whose)
    return bytes(body)


def _finished(response: Response) -> web.Response:
    body = response.body
    assert isinstance(body, bytes)
    answer = web.Response(status=response.status, body=body, headers=dict(response.headers))
    _set_headers(answer, response)
    return answer


def _set_headers(answer: web.StreamResponse, response: Response) -> None:
    answer.headers["Content-Type"] = response.content_type
    answer.headers.setdefault("Cache-Control", "no-cache, private")
    if response.status == 401:
        answer.headers["WWW-Authenticate"] = 'Basic realm="kubernetes-master"'


async def _joined(incoming: web.BaseRequest, tunnel: Tunnel) -> web.StreamResponse:
    """The connection is no longer HTTP; aiohttp is told that it ended."""
    transport = incoming.transport
    if transport is None:
        if tunnel.writer is not None:
            tunnel.writer.close()
    else:
        await join(tunnel, transport)
    raise asyncio.CancelledError


async def _over_websocket(incoming: web.BaseRequest, request: Request, response: Response) -> web.StreamResponse:
    # Few want it, and it is a part of aiohttp that nothing else here needs.
    from navarch.apiserver import watch_socket

    if not watch_socket.wanted(request):
        assert not isinstance(response.body, bytes)
        return await _stream(incoming, response, response.body)
    loop = asyncio.get_running_loop()
    return await watch_socket.serve(
        incoming, request, response, lambda: loop.call_later(connection.STALLED_S, _cut_off, incoming)
    )


async def _stream(incoming: web.BaseRequest, response: Response, body: AsyncIterator[bytes]) -> web.StreamResponse:
    loop = asyncio.get_running_loop()
    answer = web.StreamResponse(status=response.status, headers=dict(response.headers))
    _set_headers(answer, response)
    if isinstance(body, Pieces) and body.length is not None:
        answer.content_length = body.length
    elif incoming.version >= HttpVersion11:
        answer.enable_chunked_encoding()
    try:
        await answer.prepare(incoming)
        if incoming.transport is not None:
            # What a reader does not read waits as objects, which all readers share, not as bytes of its own.
            incoming.transport.set_write_buffer_limits(_STREAM_BUFFER)
        async for chunk in body:
            # A timer of its own costs a tenth of `asyncio.timeout`, and most chunks are written at once.
            stalled = loop.call_later(connection.STALLED_S, _cut_off, incoming)
            try:
                await answer.write(chunk)
            finally:
                stalled.cancel()
        stalled = loop.call_later(connection.STALLED_S, _cut_off, incoming)
        try:
            await answer.write_eof()
        finally:
            stalled.cancel()
    except ConnectionError:
        # The client is gone or does not read; there is nobody to tell.
        _cut_off(incoming)
    finally:
        await body.aclose()  # type: ignore[attr-defined]
    return answer


def _cut_off(incoming: web.BaseRequest) -> None:
    if incoming.transport is not None:
        incoming.transport.abort()
