"""`HTTPTransport`: requests over HTTPS with a client certificate or a bearer token, connections kept and reused.

Requests whose answer comes as a whole go over connections of our own (`client/connection.py`); streams, which are few
and long, over aiohttp's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from navarch.client.connection import Answer, Connection, NoAnswerError
from navarch.client.http1 import request_head
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
        self._pool = _Pool(self.base_url, tls, connections)
        self._base_path = urlsplit(self.base_url).path
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
        lines = [("host", self._pool.authority), *headers.items()]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(("content-length", str(len(body))))
        return request_head(method, path, lines) + body

    async def _ask(self, method: str, data: bytes) -> Answer:
        pool = self._pool
        while True:
            connection = await pool.take()
            again = connection.used and method in _IDEMPOTENT
            try:
                return await connection.ask(method, data, _REQUEST_TIMEOUT_S)
            except NoAnswerError:
                if not again:
                    raise
            finally:
                pool.give_back(connection)

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

    async def close(self) -> None:
        self._pool.close()
        if self._session is not None:
            await self._session.close()
        # The TLS close handshake of uvloop's transports needs one turn of the loop.
        await asyncio.sleep(0)


class _Pool:
    """At most `limit` connections to one server; who finds none waits, first come first served."""

    def __init__(self, base_url: str, tls: ssl.SSLContext | None, limit: int) -> None:
        parts = urlsplit(base_url)
        secure = parts.scheme == "https"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if secure else 80)
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self.authority = parts.netloc.rpartition("@")[2]
        self._free = limit
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    async def take(self) -> Connection:
        """An open connection, to be given back.  Raises OSError, TimeoutError."""
        if not self._free:
            await self._turn()
        else:
            self._free -= 1
        try:
            while self._idle:
                # The one last used, so that those beyond the present need stay idle and go.
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
            return await self._connect()
        except BaseException:
            self._leave()
            raise

    async def _turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            _, connection = await loop.create_connection(
                Connection, self._host, self._port, ssl=self._tls, server_hostname=self._host if self._tls else None
            )
        return connection

    def give_back(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
        elif not connection.closed:
            loop = asyncio.get_running_loop()
            connection.idle_since = loop.time()
            self._idle.append(connection)
            if self._sweeping is None:
                self._sweeping = loop.call_later(_KEPT_IDLE_S, self._sweep)
        self._leave()

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _sweep(self) -> None:
        """Close what has been idle for long."""
        loop = asyncio.get_running_loop()
        since = loop.time() - _KEPT_IDLE_S
        kept: list[Connection] = []
        for connection in self._idle:
            if connection.idle_since <= since:
                connection.close()
            elif not connection.closed:
                kept.append(connection)
        self._idle = kept
        self._sweeping = loop.call_later(_KEPT_IDLE_S, self._sweep) if kept else None

    def close(self) -> None:
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in self._idle:
            connection.close()
        self._idle.clear()


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
