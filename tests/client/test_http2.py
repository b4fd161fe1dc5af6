"""HTTP/2 connections of our clients, in process against a server that is not ours (the library h2)."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

from navarch.client import http2
from navarch.client.connection import Answer, NoAnswerError
from navarch.client.http2 import NotLookedAtError, request_block
from navarch.client.multiplexing import Connections
from navarch.http2 import frames
from tests.apiserver.http2.wire import Pipe, eventually, turns

LONG_S = 60.0
GET = request_block("GET", "x", "/", {"accept": "application/json"}, -1)


class Server:
    """The other end of one connection; what it answers is said by the test."""

    def __init__(self, *, streams: int = 100, window: int = 65_535) -> None:
        self.pipe = Pipe()
        self.client = http2.Connection(asyncio.get_running_loop())
        self.pipe.protocol = self.client
        self.ours = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.ours.initiate_connection()
        self.ours.update_settings({
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
        })  # fmt: skip
        self.asked: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytearray] = {}
        self.whole: list[int] = []
        self.reset: dict[int, int] = {}
        self.pings = 0
        self.left: h2.events.ConnectionTerminated | None = None
        self.client.connection_made(self.pipe)
        self.say()

    def say(self) -> None:
        if data := self.ours.data_to_send():
            self.client.data_received(data)

    async def hear(self) -> None:
        await turns()
        while data := self.pipe.taken():
            for event in self.ours.receive_data(data):
                self._hear(event)
            self.say()
            await turns()

    def _hear(self, event: Any) -> None:
        if isinstance(event, h2.events.RequestReceived):
            assert event.headers is not None
            self.asked[event.stream_id] = dict(event.headers)  # type: ignore[arg-type]
            self.bodies[event.stream_id] = bytearray()
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.ours.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.whole.append(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.reset[event.stream_id] = int(event.error_code)
        elif isinstance(event, h2.events.PingReceived):
            self.pings += 1
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.left = event

    def begin(self, stream: int, status: int = 200, **headers: str) -> None:
        fields = [(":status", str(status)), *((name.replace("_", "-"), value) for name, value in headers.items())]
        self.ours.send_headers(stream, fields)
        self.say()

    def send(self, stream: int, data: bytes, *, end: bool = False) -> int:
        """As much as the client has room for; how much that was."""
        size = min(len(data), self.ours.local_flow_control_window(stream))
        for start in range(0, size, self.ours.max_outbound_frame_size):
            part = data[start : min(start + self.ours.max_outbound_frame_size, size)]
            self.ours.send_data(stream, part, end_stream=end and start + len(part) == len(data))
        self.say()
        return size

    async def answer(self, stream: int, body: bytes = b"{}", status: int = 200, **headers: str) -> None:
        self.begin(stream, status, **headers)
        while True:
            body = body[self.send(stream, body, end=True) :]
            if not body:
                return
            await self.hear()


def asking(server: Server, body: bytes = b"", timeout_s: float = LONG_S) -> asyncio.Task[Answer]:
    block = request_block("POST", "x", "/", {}, len(body)) if body else GET
    return asyncio.create_task(server.client.ask(block, body, timeout_s))


async def test_requests_share_a_connection_and_are_answered_in_any_order() -> None:
    server = Server()
    asked = [asking(server) for _ in range(3)]
    await server.hear()
    for stream in (5, 1, 3):
        await server.answer(stream, b"%d" % stream, audit_id="a")

    assert [(await each).body for each in asked] == [b"1", b"3", b"5"]
    assert (await asked[0]).headers == {"audit-id": "a"}
    assert server.asked[1] == {
        ":method": "GET", ":scheme": "https", ":authority": "x", ":path": "/", "accept": "application/json",
    }  # fmt: skip


async def test_what_is_asked_in_one_turn_goes_out_at_once() -> None:
    server = Server()
    await server.hear()
    writes = 0
    write = server.pipe.write

    def counted(data: Any) -> None:
        nonlocal writes
        writes += 1
        write(data)

    server.pipe.write = counted  # type: ignore[method-assign]
    asked = [asking(server, b"body") for _ in range(20)]
    await turns()

    assert writes == 1
    await server.hear()
    for stream in list(server.asked):
        await server.answer(stream)
    assert {(await each).status for each in asked} == {200}


async def test_long_bodies_go_as_there_is_room_either_way() -> None:
    body = bytes(range(256)) * 12_000
    server = Server()
    asked = asking(server, body)
    while not server.whole:
        await server.hear()
    await server.answer(1, body[::-1])

    assert bytes(server.bodies[1]) == body
    assert (await asked).body == body[::-1]


async def test_a_packed_answer_is_unpacked() -> None:
    server = Server()
    asked, broken = asking(server), asking(server)
    await server.hear()
    await server.answer(1, gzip.compress(b"text"), content_encoding="gzip")
    await server.answer(3, b"text", content_encoding="gzip")

    assert (await asked).body == b"text"
    with pytest.raises(ConnectionError, match="cannot be read"):
        await broken


async def test_what_is_followed_comes_as_it_comes() -> None:
    server = Server()
    following = asyncio.create_task(server.client.follow(GET, LONG_S))
    await server.hear()
    server.begin(1, content_type="application/json")
    status, headers, chunks = await following
    server.send(1, b"one")
    first = await anext(chunks)
    second = asyncio.create_task(anext(chunks))
    await turns()
    server.send(1, b"two")
    server.send(1, b"end", end=True)

    assert (status, headers) == (200, {"content-type": "application/json"})
    assert (first, await second) == (b"one", b"twoend")
    assert [chunk async for chunk in chunks] == []


async def test_who_does_not_take_what_comes_gets_no_more_and_others_do() -> None:
    server = Server()
    following = asyncio.create_task(server.client.follow(GET, LONG_S))
    await server.hear()
    server.begin(1)
    _, _, chunks = await following
    endless = bytes(1 << 16)
    sent = 0
    while size := server.send(1, endless):
        sent += size
        await server.hear()
    asked = asking(server)
    await server.hear()
    await server.answer(3)

    assert (await asked).status == 200
    assert sent == http2._ROOM
    assert len(await anext(chunks)) == sent
    await server.hear()
    assert server.send(1, endless) == len(endless)


@pytest.mark.parametrize("whole", [True, False])
async def test_what_is_given_up_is_reset_and_the_rest_goes_on(whole: bool) -> None:
    server = Server()
    if whole:
        lost = asking(server)
        await server.hear()
        server.begin(1)
        server.send(1, b"half")
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
    else:
        following = asyncio.create_task(server.client.follow(GET, LONG_S))
        await server.hear()
        server.begin(1)
        _, _, chunks = await following
        await chunks.aclose()
    next_one = asking(server)
    # What the server had sent by then is passed over.
    server.send(1, b"late")
    await server.hear()
    await server.answer(3)

    assert (await next_one).status == 200
    assert server.reset == {1: h2.errors.ErrorCodes.CANCEL}


async def test_a_server_that_leaves_answers_what_it_has_begun_and_the_rest_is_asked_elsewhere() -> None:
    server = Server()
    asked = [asking(server) for _ in range(2)]
    await server.hear()
    server.ours.close_connection(last_stream_id=1)
    data = server.ours.data_to_send()
    assert data is not None
    server.client.data_received(data)

    assert not server.client.has_room
    with pytest.raises(NotLookedAtError):
        await asked[1]
    # h2 sends nothing any more: the answer as a server writes it.
    server.client.data_received(frames.header_block(1, b"\x88", 100, end=True))
    assert (await asked[0]).status == 200
    await eventually(lambda: server.pipe.closing)


async def test_a_connection_that_ends_ends_what_is_asked_and_what_is_followed() -> None:
    server = Server()
    asked = asking(server)
    following = asyncio.create_task(server.client.follow(GET, LONG_S))
    unanswered = asyncio.create_task(server.client.follow(GET, LONG_S))
    await server.hear()
    server.begin(3)
    _, _, chunks = await following
    server.send(3, b"last")
    server.pipe.close()

    assert [chunk async for chunk in chunks] == [b"last"]
    for each in (asked, unanswered):
        with pytest.raises(NoAnswerError):
            await each
    assert not server.client.has_room


async def test_an_answer_that_does_not_come_in_time_is_given_up_and_nobody_else_asks_there() -> None:
    server = Server()
    with pytest.raises(TimeoutError):
        await asking(server, timeout_s=0.001)
    await server.hear()

    assert server.reset == {1: h2.errors.ErrorCodes.CANCEL}
    assert not server.client.has_room


async def test_a_server_that_is_silent_is_asked_whether_it_is_there_and_then_given_up() -> None:
    server = Server()
    asked = asking(server)
    await server.hear()
    server.client._look()
    server.client._look()
    await server.hear()
    assert server.pings == 1
    # It has answered.
    server.client._look()
    server.client._look()
    assert not server.pipe.closing
    server.client._look()

    assert server.pipe.closing
    with pytest.raises(ConnectionError):
        await asked


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frames.header_block(1, b"\xff\xff\xff\xff\xff\xff", 100, end=True),
        frames.head(9, frames.WINDOW_UPDATE, 0, 0) + bytes(9),
        frames.head(0, frames.PUSH_PROMISE, 0, 1),
    ],
)
async def test_what_is_no_http2_ends_the_connection(said: bytes) -> None:
    server = Server()
    asked = asking(server)
    await server.hear()
    server.client.data_received(said)

    with pytest.raises(ConnectionError):
        await asked
    assert not server.client.has_room


async def test_an_answer_without_a_status_fails_alone() -> None:
    server = Server()
    asked, other = asking(server), asking(server)
    await server.hear()
    server.client.data_received(frames.header_block(1, b"", 100, end=True))
    await server.answer(3)

    with pytest.raises(ConnectionError, match="status"):
        await asked
    assert (await other).status == 200


@pytest.mark.parametrize("text", ["/a\nb", "/a\rb", "/a\0b"])
def test_line_breaks_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        request_block("GET", "x", text, {}, -1)
    with pytest.raises(ValueError, match="line break"):
        request_block("GET", "x", "/", {"a": text}, -1)


class Servers:
    """Makes connections, as many as are asked for."""

    def __init__(self, **options: int) -> None:
        self.made: list[Server] = []
        self.options = options

    async def connect(self) -> http2.Connection | None:
        server = Server(**self.options)
        self.made.append(server)
        return server.client

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(200):
            await turns()
            for server in self.made:
                await server.hear()
            if condition():
                return
        raise AssertionError("it does not come about")


async def test_another_connection_is_opened_only_when_there_is_no_room() -> None:
    servers = Servers(streams=2)
    connections = Connections(servers.connect, 32)
    following = [asyncio.create_task(connections.follow(GET, LONG_S, again=True)) for _ in range(3)]
    await servers.until(lambda: sum(len(each.asked) for each in servers.made) == 3)

    assert [len(each.asked) for each in servers.made] == [2, 1]
    connections.close()
    await asyncio.gather(*following, return_exceptions=True)


async def test_no_more_is_asked_at_a_time_than_allowed() -> None:
    servers = Servers()
    connections = Connections(servers.connect, 2)
    asked = [asyncio.create_task(connections.ask(GET, b"", LONG_S, again=True)) for _ in range(5)]
    await servers.until(lambda: len(servers.made) == 1)
    server = servers.made[0]
    most, answered = 0, 0
    while not all(each.done() for each in asked):
        await server.hear()
        most = max(most, len(server.asked) - answered)
        answered += 1
        await server.answer(answered * 2 - 1)
        await turns()

    assert most == 2
    assert len(servers.made) == 1


@pytest.mark.parametrize("again", [True, False])
async def test_what_a_server_refuses_to_look_at_is_asked_again_whatever_it_is(again: bool) -> None:
    servers = Servers()
    connections = Connections(servers.connect, 32)
    asked = asyncio.create_task(connections.ask(GET, b"", LONG_S, again=again))
    await servers.until(lambda: bool(servers.made and servers.made[0].asked))
    server = servers.made[0]
    server.ours.reset_stream(1, h2.errors.ErrorCodes.REFUSED_STREAM)
    server.say()
    await servers.until(lambda: 3 in server.asked)
    await server.answer(3)

    assert (await asked).status == 200


@pytest.mark.parametrize("again", [True, False])
async def test_reads_alone_are_repeated_when_a_connection_ended(again: bool) -> None:
    servers = Servers()
    connections = Connections(servers.connect, 32)
    first = asyncio.create_task(connections.ask(GET, b"", LONG_S, again=again))
    await servers.until(lambda: bool(servers.made and servers.made[0].asked))
    await servers.made[0].answer(1)
    await first
    second = asyncio.create_task(connections.ask(GET, b"", LONG_S, again=again))
    await servers.until(lambda: 3 in servers.made[0].asked)
    servers.made[0].pipe.close()
    if again:
        await servers.until(lambda: len(servers.made) == 2 and bool(servers.made[1].asked))
        await servers.made[1].answer(1)
        assert (await second).status == 200
    else:
        with pytest.raises(ConnectionError):
            await second
        assert len(servers.made) == 1


async def test_those_who_follow_go_on_when_requests_go_elsewhere() -> None:
    servers = Servers()
    connections = Connections(servers.connect, 32)
    following = asyncio.create_task(connections.follow(GET, LONG_S, again=True))
    await servers.until(lambda: bool(servers.made and servers.made[0].asked))
    servers.made[0].begin(1)
    _, _, chunks = await following
    connections.retire()
    asked = asyncio.create_task(connections.ask(GET, b"", LONG_S, again=True))
    await servers.until(lambda: len(servers.made) == 2 and bool(servers.made[1].asked))
    await servers.made[1].answer(1)
    servers.made[0].send(1, b"still")

    assert (await asked).status == 200
    assert await anext(chunks) == b"still"
    await chunks.aclose()
    await eventually(lambda: servers.made[0].pipe.closing)


async def test_who_gives_up_while_a_connection_is_opened_leaves_it_to_others() -> None:
    opened = asyncio.Event()
    servers = Servers()

    async def connect() -> http2.Connection | None:
        await opened.wait()
        return await servers.connect()

    connections = Connections(connect, 32)
    lost = asyncio.create_task(connections.ask(GET, b"", LONG_S, again=True))
    waits = asyncio.create_task(connections.ask(GET, b"", LONG_S, again=True))
    await turns()
    lost.cancel()
    opened.set()
    await servers.until(lambda: bool(servers.made and servers.made[0].asked))
    await servers.made[0].answer(1)

    assert (await waits).status == 200
    assert len(servers.made) == 1


async def test_a_connection_that_cannot_be_opened_is_an_error_for_all_who_need_it_and_tried_again() -> None:
    tries = 0

    async def connect() -> http2.Connection | None:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0)
        raise ConnectionRefusedError("refused")

    connections = Connections(connect, 32)
    first = await asyncio.gather(*(connections.are_there() for _ in range(3)), return_exceptions=True)
    with pytest.raises(ConnectionRefusedError):
        await connections.are_there()

    assert all(isinstance(each, ConnectionRefusedError) for each in first)
    assert tries == 2
