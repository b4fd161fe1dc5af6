"""`HTTPTransport`: requests over HTTPS with a client certificate or a bearer token, connections kept and reused.

A server that speaks HTTP/2, as API servers do, gets all requests and watches over one connection (`client/http2.py`),
or as few as it allows: a handshake costs both sides as much as some twenty requests, and each connection its buffers.
Over HTTP/1.1 requests whose answer comes as a whole go over connections of our own (`client/connection.py`); streams,
which are few and long, over aiohttp's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from navarch.client import http2
from navarch.client.connection import Answer, Connection
from navarch.client.http1 import request_head
from navarch.client.multiplexing import Connections
from navarch.client.pool import Pool
from navarch.client.transport import Request, Response
from navarch.http2.arriving import Arriving
from navarch.tls import PROTOCOLS

if TYPE_CHECKING:
    import aiohttp

_CONNECT_TIMEOUT_S = 10.0
_REQUEST_TIMEOUT_S = 60.0
_KEPT_IDLE_S = 30.0
# May be sent again when the server closed the connection before it answered.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class HTTPTransport:
    """Talks to the API server at `base_url`; `token` is read anew for each request, so that it may rotate. At most
    `connections` requests, watches aside, are under way at a time. `tls` is this transport's alone."""

    def __init__(
        self,
        base_url: str,
        *,
        tls: ssl.SSLContext | None = None,
        token: Callable[[], str] | None = None,
        connections: int = 32,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        parts = urlsplit(self.base_url)
        secure = parts.scheme == "https"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if secure else 80)
        self._tls = (tls or ssl.create_default_context()) if secure else None
        if self._tls is not None:
            self._tls.set_alpn_protocols(list(PROTOCOLS))
        self._authority = parts.netloc.rpartition("@")[2]
        self._limit = connections
        self._pool = Pool(self._connect_plain, connections)
        self._shared = Connections(self._connect, connections) if secure else None
        # A connection that turned out to speak HTTP/1.1.
        self._plain: Connection | None = None
        self._base_path = parts.path
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        """Raises ConnectionError where no answer came (refused, reset, timed out)."""
        headers = dict(request.headers)
        # Components sit beside the server or on a fast network, where compressing costs more than it saves.
        headers.setdefault("accept-encoding", "identity")
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token()}"
        path = self._base_path + request.path + ("?" + urlencode(request.query) if request.query else "")
        if not path.isascii() or " " in path:
            path = quote(path, safe="/%:@!$&'()*+,;=?-._~")
        try:
            if self._shared is not None and await self._shared.are_there():
                return await self._send_shared(self._shared, request, path, headers, stream)
            if stream:
                return await self._stream(request, path, headers)
            data = self._encoded(request.method, path, headers, request.body)
            again = request.method in _IDEMPOTENT
            return _response(await self._pool.ask(request.method, data, _REQUEST_TIMEOUT_S, again=again))
        except (OSError, TimeoutError) as error:
            said = f"{request.method} {self.base_url}{request.path}: {error or type(error).__name__}"
            raise ConnectionError(said) from error

    async def _send_shared(
        self, shared: Connections, request: Request, path: str, headers: dict[str, str], stream: bool
    ) -> Response:
        method, body = request.method, request.body
        length = len(body) if body or method in _WITH_BODY else -1
        block = http2.request_block(method, self._authority, path, headers, length)
        again = method in _IDEMPOTENT
        if not stream:
            return _response(await shared.ask(block, body, _REQUEST_TIMEOUT_S, again=again))
        status, headers, chunks = await shared.follow(block, _REQUEST_TIMEOUT_S, again=again)
        answer: AsyncIterator[bytes] | bytes = chunks
        if status >= 400:
            try:
                answer = b"".join([chunk async for chunk in chunks])
            finally:
                await chunks.aclose()
        return Response(status, answer, headers, _type_of(headers))

    def _encoded(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        lines = [("host", self._authority), *headers.items()]
        if body or method in _WITH_BODY:
            lines.append(("content-length", str(len(body))))
        return request_head(method, path, lines) + body

    async def _connect(self) -> http2.Connection | None:
        """One that speaks HTTP/2; None where the server does not."""
        plain, self._plain = self._plain, None
        if plain is not None and not plain.closed:
            # It has not changed its mind since.
            self._plain = plain
            return None
        connection = await self._open()
        if isinstance(connection, http2.Connection):
            return connection
        self._plain = connection
        return None

    async def _connect_plain(self) -> Connection:
        connection, self._plain = self._plain, None
        if connection is not None and not connection.closed:
            return connection
        opened = await self._open()
        if isinstance(opened, http2.Connection):
            # It did not, a moment ago.
            opened.close()
            assert self._shared is not None
            self._shared.look_again()
            raise ConnectionError("the server speaks HTTP/2 now")
        return opened

    async def _open(self) -> Connection | http2.Connection:
        loop = asyncio.get_running_loop()
        tls = self._tls
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            transport, _ = await loop.create_connection(
                lambda: Arriving(Connection, lambda: http2.Connection(loop)),
                self._host, self._port, ssl=tls, server_hostname=self._host if tls else None,
            )  # fmt: skip
            connection = transport.get_protocol()
            if isinstance(connection, http2.Connection):
                try:
                    await connection.ready
                except BaseException:
                    connection.close()
                    raise
                return connection
            assert isinstance(connection, Connection)
            return connection

    async def _stream(self, request: Request, path: str, headers: dict[str, str]) -> Response:
        # Rarely needed, and a good part of what a process would load.
        import aiohttp
        from yarl import URL

        url = self.base_url.removesuffix(self._base_path) + path
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, connect=None)
        try:
            answer = await self._opened().request(
                request.method,
                URL(url, encoded=True),
                headers=headers,
                data=request.body or None,
                timeout=timeout,
                allow_redirects=False,
            )
            if answer.status < 400:
                return Response(answer.status, _chunks(answer), dict(answer.headers), answer.content_type)
            async with answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        return Response(answer.status, body, dict(answer.headers), answer.content_type)

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        session = self._session
        if session is None or session.closed:
            # A watch holds its connection for good, so there is no limit to them.
            connector = aiohttp.TCPConnector(ssl=self._tls or True, limit=0, keepalive_timeout=_KEPT_IDLE_S)
            session = aiohttp.ClientSession(connector=connector, auto_decompress=True, read_bufsize=1 << 18)
            self._session = session
        return session

    def reconnect(self) -> None:
        """Go on over new connections, with what is in the TLS context now; streams that are open go on as they are."""
        if self._shared is not None:
            self._shared.retire()
        if self._plain is not None:
            self._plain.close()
        self._pool.close()
        self._pool = Pool(self._connect_plain, self._limit)

    async def close(self) -> None:
        if self._shared is not None:
            self._shared.close()
        if self._plain is not None:
            self._plain.close()
        self._pool.close()
        if self._session is not None:
            await self._session.close()
        # The TLS close handshake of uvloop's transports needs one turn of the loop.
        await asyncio.sleep(0)


def _response(answer: Answer) -> Response:
    return Response(answer.status, answer.body, answer.headers, _type_of(answer.headers))


def _type_of(headers: dict[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip() or "application/octet-stream"


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    import aiohttp

    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except aiohttp.ClientPayloadError:
        # The server went away in the middle of a stream: to a reader of lines that is its end.
        return
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error)) from error
    finally:
        answer.close()
