"""`HTTPTransport`: requests over HTTPS with a client certificate or a bearer token, connections kept and reused."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from navarch.client.transport import Request, Response

_CONNECT_TIMEOUT_S = 10
_REQUEST_TIMEOUT_S = 60


class HTTPTransport:
    """Talks to the API server at `base_url`; `token` is read anew for each request, so that it may rotate."""

    def __init__(
        self,
        base_url: str,
        *,
        tls: ssl.SSLContext | None = None,
        token: Callable[[], str] | None = None,
        connections: int = 64,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._tls = tls
        self._token = token
        self._connections = connections
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def _open(self, stream: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(stream)
        if session is None or session.closed:
            # A watch holds its connection for good. Streams have connections of their own, without a limit: if they
            # shared that of the other requests, as many watches would leave none for anything else.
            limit = 0 if stream else self._connections
            connector = aiohttp.TCPConnector(ssl=self._tls or True, limit=limit, keepalive_timeout=30)
            session = aiohttp.ClientSession(connector=connector, auto_decompress=True, read_bufsize=1 << 18)
            self._sessions[stream] = session
        return session

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        """Raises ConnectionError where no answer came (refused, reset, timed out)."""
        url = self.base_url + request.path
        if request.query:
            url += "?" + urlencode(request.query)
        headers = dict(request.headers)
        # Components sit beside the server or on a fast network, where compressing costs more than it saves.
        headers.setdefault("accept-encoding", "identity")
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token()}"
        timeout = aiohttp.ClientTimeout(
            total=None if stream else _REQUEST_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S, connect=None
        )
        try:
            answer = await self._open(stream).request(
                request.method,
                URL(url, encoded=True),
                headers=headers,
                data=request.body or None,
                timeout=timeout,
                allow_redirects=False,
            )
            if stream and answer.status < 400:
                return Response(answer.status, _chunks(answer), dict(answer.headers), answer.content_type)
            async with answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(f"{request.method} {url}: {error or type(error).__name__}") from error
        return Response(answer.status, body, dict(answer.headers), answer.content_type)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        if self._sessions:
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
