"""`HTTPTransport`: requests over HTTPS with a client certificate or a bearer token, connections kept and reused.

Requests whose answer comes as a whole go over connections of our own (`client/connection.py`); streams, which are few
and long, over aiohttp's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from navarch.client.connection import Answer, Connection
from navarch.client.http1 import request_head
from navarch.client.pool import Pool
from navarch.client.transport import Request, Response

_CONNECT_TIMEOUT_S = 10.0
_REQUEST_TIMEOUT_S = 60.0
_KEPT_IDLE_S = 30.0
# May be sent again when the server closed the connection before it answered.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class HTTPTransport:
    """Talks to the API server at `base_url`; `token` is read anew for each request, so that it may rotate."""

    def __init__(
        self,
        base_url: str,
        *,
        tls: ssl.SSLContext | None = None,
        token: Callable[[], str] | None = None,
        connections: int = 32,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._tls = tls
        self._token = token
        parts = urlsplit(self.base_url)
        secure = parts.scheme == "https"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if secure else 80)
        self._pool_tls = (tls or ssl.create_default_context()) if secure else None
        self._authority = parts.netloc.rpartition("@")[2]
        self._connections = connections
        self._pool = Pool(self._connect, connections)
        self._base_path = parts.path
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        """Raises ConnectionError where no answer came (refused, reset, timed out)."""
        headers = dict(request.headers)
        # Components sit beside the server or on a fast network, where compressing costs more than it saves.
        headers.setdefault("accept-encoding", "identity")
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token()}"
        path = request.path + ("?" + urlencode(request.query) if request.query else "")
        if stream:
            return await self._stream(request, path, headers)
        data = self._encoded(request.method, path, headers, request.body)
        try:
            answer = await self._ask(request.method, data)
        except (OSError, TimeoutError) as error:
            said = f"{request.method} {self.base_url}{path}: {error or type(error).__name__}"
            raise ConnectionError(said) from error
        content_type = answer.headers.get("content-type", "").partition(";")[0].strip()
        return Response(answer.status, answer.body, answer.headers, content_type or "application/octet-stream")

    def _encoded(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        path = self._base_path + path
        if not path.isascii() or " " in path:
            path = quote(path, safe="/%:@!$&'()*+,;=?-._~")
        lines = [("host", self._authority), *headers.items()]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(("content-length", str(len(body))))
        return request_head(method, path, lines) + body

    async def _ask(self, method: str, data: bytes) -> Answer:
        return await self._pool.ask(method, data, _REQUEST_TIMEOUT_S, again=method in _IDEMPOTENT)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        tls = self._pool_tls
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(
                Connection, self._host, self._port, ssl=tls, server_hostname=self._host if tls else None
            )
        return connection

    async def _stream(self, request: Request, path: str, headers: dict[str, str]) -> Response:
        url = self.base_url + path
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
            raise ConnectionError(f"{request.method} {url}: {error or type(error).__name__}") from error
        return Response(answer.status, body, dict(answer.headers), answer.content_type)

    def _opened(self) -> aiohttp.ClientSession:
        session = self._session
        if session is None or session.closed:
            # A watch holds its connection for good, so there is no limit to them.
            connector = aiohttp.TCPConnector(ssl=self._tls or True, limit=0, keepalive_timeout=_KEPT_IDLE_S)
            session = aiohttp.ClientSession(connector=connector, auto_decompress=True, read_bufsize=1 << 18)
            self._session = session
        return session

    def reconnect(self) -> None:
        """Go on over new connections, with what is in the TLS context now; streams that are open go on as they are."""
        self._pool.close()
        self._pool = Pool(self._connect, self._connections)

    async def close(self) -> None:
        self._pool.close()
        if self._session is not None:
            await self._session.close()
        # The TLS close handshake of uvloop's transports needs one turn of the loop.
        await asyncio.sleep(0)


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
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
