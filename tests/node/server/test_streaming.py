"""What a client may send over an exec's WebSocket, and what ends it."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace

import aiohttp
import pytest
import yaml
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from navarch.node.server.streaming import EXEC_PROTOCOLS, BadMessage, _Channels, _receive, refusal, web_socket


def _parse(protocol: str, kind: WSMsgType, data: str | bytes) -> tuple[int, bytes] | None:
    channels = _Channels(SimpleNamespace(ws_protocol=protocol))  # type: ignore[arg-type]
    return channels.parse(SimpleNamespace(type=kind, data=data))


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text[1:].replace("\n", "").replace("\r", ""), validate=True)
    except ValueError:
        return False
    return text[0] in "0123456789"


@given(protocol=st.sampled_from(EXEC_PROTOCOLS), data=st.text() | st.binary())
def test_whatever_a_client_sends_is_a_message_or_a_bad_one(protocol: str, data: str | bytes) -> None:
    kind = WSMsgType.TEXT if isinstance(data, str) else WSMsgType.BINARY
    try:
        parsed = _parse(protocol, kind, data)
    except BadMessage:
        assert "base64" in protocol
        assert not _is_base64(str(data))
        return
    assert (parsed is None) == (not data)
    assert parsed is None or 0 <= parsed[0] < 256


@pytest.mark.parametrize(
    "text",
    [
        "failed to exec in container: failed to load task: no running task found: not found",
        'rpc error: code = NotFound desc = an error occurred when try to find container "c": not found',
        "unable to upgrade connection: 500 Internal Server Error",
    ],
)
def test_a_refusal_is_no_status_in_yaml(text: str) -> None:
    """kubectl would show the message of the Status that it takes it for, which has none."""
    said = yaml.safe_load(refusal(RuntimeError(text)))

    assert isinstance(said, str)
    assert said.split()[-1] == text.split()[-1]


@given(channel=st.integers(0, 9), data=st.binary())
def test_base64_comes_out_as_it_went_in(channel: int, data: bytes) -> None:
    text = f"{channel}{base64.encodebytes(data).decode()}"

    assert _parse("base64.channel.k8s.io", WSMsgType.TEXT, text) == (channel, data)


@pytest.mark.parametrize("text", ["x", "²a", "0a", "0====", "0\u00e9"])
async def test_a_bad_message_closes_the_socket_and_ends_the_session(text: str) -> None:
    ended = asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        socket = await web_socket(request, EXEC_PROTOCOLS)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(asyncio.Event().wait())
                await _receive(socket, _Channels(socket), {}, running)  # type: ignore[arg-type]
        finally:
            # Also where the test's server cancels it, as the client has gone.
            ended.set()
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    async with (
        asyncio.timeout(20),
        TestServer(app) as server,
        aiohttp.ClientSession() as session,
        session.ws_connect(server.make_url("/"), protocols=["base64.channel.k8s.io"]) as client,
    ):
        await client.send_str(text)
        last = await client.receive()
        await ended.wait()

    assert (last.type, client.close_code) == (WSMsgType.CLOSE, 1007)


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        ([], (101, None)),
        (["channel.k8s.io"], (101, "channel.k8s.io")),
        (["v9.channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io"], (101, "v4.channel.k8s.io")),
        (["v9.channel.k8s.io"], (403, None)),
        (["binary.k8s.io", "chat"], (403, None)),
    ],
)
async def test_who_offers_protocols_gets_the_first_that_is_known_or_is_refused(
    offered: list[str], answer: tuple[int, str | None]
) -> None:
    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = await web_socket(request, EXEC_PROTOCOLS)
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    if offered:
        headers["Sec-WebSocket-Protocol"] = ", ".join(offered)
    async with (
        asyncio.timeout(20),
        TestServer(app) as server,
        aiohttp.ClientSession() as session,
        session.get(server.make_url("/"), headers=headers) as got,
    ):
        assert (got.status, got.headers.get("Sec-WebSocket-Protocol")) == answer
