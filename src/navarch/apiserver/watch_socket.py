"""A watch over WebSocket: an event per message, text for JSON and binary for protobuf, without the length before it.

In: a watch's stream, of whole events, and the request that asked for an upgrade.  Out: what golang.org/x/net/websocket
reads: no extensions, the one subprotocol that was offered, a close with 1000 at the watch's end. What the client says
is passed over; when it closes, or does not read in time, the watch is over. `Origin` need not be there; Go's server
insists on one, but looks no further.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from aiohttp.http_websocket import WSMsgType
from aiohttp.web_ws import WebSocketResponse

from navarch.apiserver import protobuf_forms, web
from navarch.client.transport import Request, Response

_UPGRADE: Final = re.compile(r"(^|.*,\s*)upgrade($|\s*,)", re.ASCII)
_CLOSE_S: Final = 1.0
_SAID_MAX: Final = 1 << 16
_LENGTH: Final = 4


def wanted(request: Request) -> bool:
    """Whether a request asks for a WebSocket, as Kubernetes decides it."""
    headers = request.headers
    asked = _UPGRADE.match(headers.get("connection", "").lower()) is not None
    return asked and headers.get("upgrade", "").lower() == "websocket"


async def serve(
    incoming: web.BaseRequest, request: Request, response: Response, stalled: Callable[[], asyncio.TimerHandle]
) -> web.StreamResponse:
    """`stalled` begins the time that a message may take."""
    body = response.body
    assert not isinstance(body, bytes)
    offered = request.headers.get("sec-websocket-protocol", "").split(",")
    protocols = tuple(protocol.strip() for protocol in offered if protocol.strip())
    socket = WebSocketResponse(protocols=protocols, timeout=_CLOSE_S, compress=False, max_msg_size=_SAID_MAX)
    try:
        await socket.prepare(incoming)
        binary = response.content_type == protobuf_forms.WATCH_TYPE
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send(socket, body, binary, stalled))
            await _pass_over(socket)
            sending.cancel()
    except* (ConnectionError, RuntimeError):
        # The client is gone, or its connection is being closed: there is nobody to tell.
        pass
    finally:
        await body.aclose()  # type: ignore[attr-defined]
    return socket


async def _send(
    socket: WebSocketResponse, body: AsyncIterator[bytes], binary: bool, stalled: Callable[[], asyncio.TimerHandle]
) -> None:
    kind = WSMsgType.BINARY if binary else WSMsgType.TEXT
    async for chunk in body:
        for message in _framed(chunk) if binary else chunk.splitlines(keepends=True):
            timer = stalled()
            try:
                await socket.send_frame(message, kind)
            finally:
                timer.cancel()
    await socket.close()


async def _pass_over(socket: WebSocketResponse) -> None:
    """Until the client closes, or we do."""
    async for _ in socket:
        pass


def _framed(chunk: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(chunk):
        start = at + _LENGTH
        at = start + int.from_bytes(chunk[at:start], "big")
        yield chunk[start:at]
