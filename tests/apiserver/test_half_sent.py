"""Heads of requests that do not become whole, of however many connections: together they have little room, and whoever
has taken most of it is cut off first."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from navarch.apiserver import connection
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.http2.connection import Connection
from navarch.apiserver.server import ApiServer
from navarch.http2 import frames, hpack
from tests.apiserver.conftest import CONFIG_MAPS, Api
from tests.apiserver.http2.test_malformed import BEGUN, BLOCK, frame
from tests.apiserver.http2.wire import GET, Wire, turns

BEGINNING = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: "
LIMIT = 500_000


@pytest.fixture
async def front(server: ApiServer, api: Api) -> AsyncIterator[tuple[HTTPFront, int]]:
    front = HTTPFront(server)
    yield front, await front.start("127.0.0.1", 0, None)
    await front.stop()


class Client:
    """One that sends a head, or some of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def hear(self) -> bytes:
        """All until the connection ends."""
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""


async def client(port: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port))


async def test_heads_that_do_not_become_whole_have_little_room_together(front: tuple[HTTPFront, int]) -> None:
    bodies, port = front[0]._web.bodies, front[1]
    bodies.strangers.limit = LIMIT
    small = await client(port)
    await small.say(BEGINNING)
    long = [await client(port) for _ in range(6)]
    for each in long:
        await each.say(BEGINNING + b"a" * 150_000)
    # The oldest of those that are equally long.
    assert await long[0].hear() == b""
    async with asyncio.timeout(30):
        while not 0 < bodies.total <= LIMIT:
            await asyncio.sleep(0.01)

    await small.say(b"b\r\nConnection: close\r\n\r\n")
    assert (await small.hear()).startswith(b"HTTP/1.1 200")
    for each in (small, *long):
        each.writer.close()
    async with asyncio.timeout(30):
        while bodies.total:
            await asyncio.sleep(0.01)


async def test_many_long_lines_are_one_long_head(front: tuple[HTTPFront, int]) -> None:
    """Of the hundred that a head may have, each may be long, but not all together."""
    bodies, port = front[0]._web.bodies, front[1]
    one = await client(port)
    saying = asyncio.create_task(one.say(BEGINNING + b"\r\nX-More: ".join([b"a" * 100_000] * 40)))

    assert (await one.hear()).startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    one.writer.close()
    await saying
    async with asyncio.timeout(30):
        while bodies.total:
            await asyncio.sleep(0.01)


async def test_a_long_head_in_pieces_counts_until_it_is_whole(front: tuple[HTTPFront, int]) -> None:
    bodies, port = front[0]._web.bodies, front[1]
    one = await client(port)
    await one.say(BEGINNING + b"a" * 300_000)
    async with asyncio.timeout(30):
        while bodies.strangers.total < 300_000:
            await asyncio.sleep(0.01)

    await one.say(b"a" * 300_000 + b"\r\n\r\n")
    async with asyncio.timeout(30):
        assert (await one.reader.readline()).startswith(b"HTTP/1.1 200")
    assert bodies.total == 0
    one.writer.close()


async def test_who_was_known_before_is_no_stranger(front: tuple[HTTPFront, int]) -> None:
    bodies, port = front[0]._web.bodies, front[1]
    one = await client(port)
    await one.say(f"GET {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(30):
        assert (await one.reader.readline()).startswith(b"HTTP/1.1 200")
    await one.say(BEGINNING + b"a" * 100_000)
    async with asyncio.timeout(30):
        while bodies.known.total < 100_000:
            await asyncio.sleep(0.01)
    assert bodies.strangers.total == 0
    one.writer.close()


async def test_who_is_refused_while_he_sends_is_cut_off_soon(
    front: tuple[HTTPFront, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LAST_WORDS_S", 0.2)
    bodies, port = front[0]._web.bodies, front[1]
    bodies.known.limit = 100_000
    one = await client(port)
    lines = b"Host: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    await one.say(f"POST {CONFIG_MAPS} HTTP/1.1\r\n".encode() + lines + b"\r\n\r\n200000\r\n" + b" " * 200_000)

    async def go_on() -> None:
        while not (one.reader.at_eof() or one.writer.is_closing()):
            await one.say(b" " * 1000)
            await asyncio.sleep(0.01)

    going = asyncio.create_task(go_on())
    heard = await one.hear()
    # Where the rest of what it sent had not been read, the end is a reset, by which the answer may be lost.
    assert heard == b"" or b" 429 " in heard.partition(b"\r\n")[0]
    one.writer.close()
    await going


# HTTP/2


@pytest.mark.parametrize(
    "half",
    [
        frame(frames.HEADERS, 0, 1, BLOCK) + frame(frames.CONTINUATION, 0, 1, b"x" * 100_000),
        frame(frames.DATA, 0, 1, b"x" * 200_000)[:100_000],
    ],
    ids=["head", "frame"],
)
async def test_over_http2_they_have_the_same_room(half: bytes) -> None:
    wire = Wire()
    bodies = wire.serving.bodies
    bodies.strangers.limit = 150_000
    await wire.say(BEGUN, half)
    assert 100_000 <= bodies.strangers.total < 110_000

    other = Wire()
    other.serving.bodies = bodies
    await other.say(BEGUN, half)
    await turns()
    assert (wire.pipe.closing, other.pipe.closing) == (True, False)
    other.drop()
    await turns()
    assert bodies.total == 0


async def test_over_http2_a_head_that_is_whole_takes_no_room() -> None:
    wire = Wire()
    block = BLOCK + hpack.literal("x-long", "y" * 100_000)
    whole = frames.header_block(1, block, frames.FRAME, end=True)
    await wire.say(BEGUN, whole[:70_000])
    assert wire.serving.bodies.total > 60_000
    await wire.say(whole[70_000:])
    assert wire.serving.bodies.total == 0
    # This one has been used by somebody.
    await wire.say(GET(3)[:20])
    assert (wire.serving.bodies.known.total, wire.serving.bodies.strangers.total) == (20, 0)
    wire.drop()
    await turns()
    assert wire.serving.bodies.total == 0


async def test_a_connection_that_is_gone_is_no_garbage_that_only_the_collector_finds() -> None:
    wire = Wire()
    await wire.say(BEGUN, GET(1))
    gone: weakref.ref[Connection] = weakref.ref(wire.server)
    gc.disable()
    try:
        wire.drop()
        await turns()
        wire.pipe.protocol = None
        del wire
        assert gone() is None
    finally:
        gc.enable()
