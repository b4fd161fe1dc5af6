"""A watch over WebSocket, from handshake to close, as Go's clients and others ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from navarch.api import protobuf
from navarch.apiserver import connection
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.server import ApiServer
from navarch.apiserver.watch_socket import wanted
from navarch.client.transport import Request
from navarch.kinds import resources
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map

WATCH = f"{CONFIG_MAPS}?watch=true"
PROTOBUF = {"Accept": "application/vnd.kubernetes.protobuf;stream=watch"}


class Watcher:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    def open(self, path: str, **options: Any) -> Any:
        return self.session.ws_connect(f"{self.url}{path}", **{"origin": self.url, **options})


@pytest.fixture
async def watcher(server: ApiServer, api: Api) -> AsyncIterator[Watcher]:
    front = HTTPFront(server)
    port = await front.start("127.0.0.1", 0, None)
    async with aiohttp.ClientSession() as session:
        yield Watcher(f"http://127.0.0.1:{port}", session)
    await front.stop()


async def seen(socket: aiohttp.ClientWebSocketResponse) -> tuple[str, str]:
    message = await socket.receive()
    assert message.type == aiohttp.WSMsgType.TEXT, message
    event = orjson.loads(message.data)
    return event["type"], event["object"]["metadata"]["name"]


async def test_each_event_is_a_message(watcher: Watcher, api: Api) -> None:
    for name in ("a", "b"):
        await api.ok("POST", CONFIG_MAPS, config_map(name))
    async with watcher.open(WATCH) as socket:
        assert [await seen(socket), await seen(socket)] == [("ADDED", "a"), ("ADDED", "b")]
        await api.ok("DELETE", f"{CONFIG_MAPS}/a")
        await api.patch(f"{CONFIG_MAPS}/b", {"data": {"k": "two\nlines"}})

        assert [await seen(socket), await seen(socket)] == [("DELETED", "a"), ("MODIFIED", "b")]


async def test_selectors_and_the_end_are_those_of_a_watch(watcher: Watcher, api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    await api.ok("POST", CONFIG_MAPS, config_map("b"))
    async with watcher.open(f"{WATCH}&fieldSelector=metadata.name%3Db&timeoutSeconds=1") as socket:
        assert await seen(socket) == ("ADDED", "b")
        end = await socket.receive()

        assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1000)


async def test_bookmarks_come_as_messages(watcher: Watcher, api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    path = f"{WATCH}&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    async with watcher.open(path) as socket:
        assert await seen(socket) == ("ADDED", "a")
        event = orjson.loads((await socket.receive()).data)

    assert event["type"] == "BOOKMARK"
    assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_protobuf_comes_as_binary_messages(watcher: Watcher, api: Api) -> None:
    async with watcher.open(WATCH, headers=PROTOBUF) as socket:
        for name in ("a", "b"):
            await api.ok("POST", CONFIG_MAPS, config_map(name))
        messages = [await socket.receive() for _ in range(2)]

    assert {message.type for message in messages} == {aiohttp.WSMsgType.BINARY}
    # A WatchEvent: its first field is the type, a text; the object's magic is within.
    assert [message.data[:7] for message in messages] == [b"\x0a\x05ADDED"] * 2
    assert all(protobuf.MAGIC in message.data for message in messages)


async def test_what_has_been_forgotten_is_an_event_and_the_end(watcher: Watcher, api: Api) -> None:
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    api.server.core.caches.of(resources.CONFIG_MAPS).oldest = 1 << 40
    async with watcher.open(f"{WATCH}&resourceVersion=1") as socket:
        event = orjson.loads((await socket.receive()).data)
        end = await socket.receive()

    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert end.type == aiohttp.WSMsgType.CLOSE


@pytest.mark.parametrize(("path", "status"), [(f"{WATCH}&resourceVersion=abc", 500), ("/api/v1/nothing?watch=1", 404)])
async def test_a_watch_that_cannot_be_is_refused_before_the_handshake(watcher: Watcher, path: str, status: int) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await watcher.open(path)

    assert refused.value.status == status


@pytest.mark.parametrize("says", [False, True])
async def test_the_watch_is_over_when_its_client_closes(watcher: Watcher, api: Api, says: bool) -> None:
    async with watcher.open(WATCH) as socket:
        if says:
            await socket.send_str("hello")
            await socket.ping(b"there?")
        await api.ok("POST", CONFIG_MAPS, config_map("a"))
        assert await seen(socket) == ("ADDED", "a")
        assert api.server.core.metrics.watches == 1

    while api.server.core.metrics.watches:
        await asyncio.sleep(0.005)


async def test_a_watch_ends_with_the_server(watcher: Watcher, api: Api) -> None:
    async with watcher.open(WATCH) as socket:
        while not api.server.core.metrics.watches:
            await asyncio.sleep(0.005)
        api.server.drain()

        assert (await socket.receive()).data == 1000


async def test_a_client_that_does_not_read_is_cut_off(
    watcher: Watcher, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_S", 0.2)
    _, writer = await asyncio.open_connection("127.0.0.1", int(watcher.url.rsplit(":", 1)[1]), limit=1024)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    head = f"GET {WATCH} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n{key}\r\n"
    writer.write(head.encode())
    writer.transport.pause_reading()
    while not api.server.core.metrics.watches:
        await asyncio.sleep(0.005)
    number = 0
    while api.server.core.metrics.watches:
        await api.ok("POST", CONFIG_MAPS, config_map(f"n{number}", k="v" * 500_000))
        number += 1
        await asyncio.sleep(0.01)
    writer.transport.abort()


async def test_the_one_protocol_that_is_offered_is_taken(watcher: Watcher) -> None:
    async with watcher.open(WATCH, protocols=("anything",)) as socket:
        assert socket.protocol == "anything"
    async with watcher.open(WATCH, compress=15) as socket:
        assert (socket.protocol, socket.compress) == (None, 0)


@pytest.mark.parametrize(
    ("connection", "upgrade", "is_one"),
    [("Upgrade", "websocket", True), ("keep-alive, upgrade", "WebSocket", True), ("close", "websocket", False),
     ("Upgrade", "SPDY/3.1", False)],
)  # fmt: skip
def test_what_asks_for_a_websocket(connection: str, upgrade: str, is_one: bool) -> None:
    assert wanted(Request("GET", "/", (), {"connection": connection, "upgrade": upgrade})) == is_one


async def test_another_upgrade_is_a_plain_watch(watcher: Watcher, api: Api) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    async with watcher.session.get(f"{watcher.url}{WATCH}", headers=headers) as answer:
        assert answer.status == 200
        assert orjson.loads(await answer.content.readline())["type"] == "ADDED"
