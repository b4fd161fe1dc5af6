"""Clients that make much work with little: each is told to calm down, or costs no more than its share."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
from collections.abc import Iterable

import pytest

from navarch.apiserver.http2 import heads
from navarch.client.transport import Request, Response
from navarch.http2 import frames, hpack
from navarch.http2.frames import Code
from tests.apiserver.http2.test_malformed import ASKED, BEGUN, BLOCK, OPEN, frame, head
from tests.apiserver.http2.wire import GET, Wire, turns
from tests.growth import grows_with_size

MANY = 10_000


def resets() -> Iterable[bytes]:
    for stream in range(1, 2 * MANY, 2):
        yield GET(stream) + frames.rst_stream(stream, Code.CANCEL)


def refused() -> Iterable[bytes]:
    for stream in range(1, 2 * MANY, 2):
        yield GET(stream)


FLOODS = {
    "pings": lambda: itertools.repeat(frames.ping(b"12345678"), MANY),
    "settings": lambda: itertools.repeat(frames.settings({}), MANY),
    "priorities": lambda: itertools.repeat(frame(frames.PRIORITY, 0, 1, bytes(5)), MANY),
    "unknown frames": lambda: itertools.repeat(frame(0xEE, 0, 0, b""), MANY),
    "room byte by byte": lambda: itertools.chain([OPEN], itertools.repeat(frames.window_update(1, 1), MANY)),
    "empty data": lambda: itertools.chain([OPEN], itertools.repeat(frame(frames.DATA, 0, 1, b""), MANY)),
    "data byte by byte": lambda: itertools.chain([OPEN], itertools.repeat(frame(frames.DATA, 0, 1, b"x"), MANY)),
    "requests that are reset at once": resets,
    "more requests than are allowed": refused,
    "malformed requests": lambda: (
        head(*ASKED, ("te", "gzip"), stream=stream) for stream in range(1, 2 * MANY, 2)
    ),
    "data on a stream that is over": lambda: itertools.chain(
        [GET(1)], itertools.repeat(frame(frames.DATA, 0, 1, b""), MANY)
    ),
    "continuations of nothing": lambda: itertools.chain(
        [frame(frames.HEADERS, 0, 1, BLOCK)], itertools.repeat(frame(frames.CONTINUATION, 0, 1, b""), MANY)
    ),
    "continuations without end": lambda: itertools.chain(
        [frame(frames.HEADERS, 0, 1, BLOCK)],
        itertools.repeat(frame(frames.CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 3000), MANY),
    ),
}  # fmt: skip


class Busy:
    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    async def __call__(self, request: Request, certificate: bytes | None) -> Response:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        return Response(200, b"{}")


@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_its_connection(flood: str) -> None:
    busy = Busy()
    wire = Wire(busy)
    wire.server.data_received(BEGUN)
    for sent, piece in enumerate(FLOODS[flood]()):
        wire.server.data_received(piece)
        if sent % 50 == 0:
            await asyncio.sleep(0)
        if wire.pipe.closing:
            break

    goaways = [payload[4:8] for kind, _, _, payload in await wire.hear() if kind == frames.GOAWAY]
    assert goaways == [Code.ENHANCE_YOUR_CALM.to_bytes(4, "big")]
    assert busy.most <= 100
    assert busy.running == 0
    assert wire.serving.bodies.total == 0


async def test_a_patient_client_may_say_as_much() -> None:
    """What is asked for pays for what is said about it."""

    async def answer(request: Request, certificate: bytes | None) -> Response:
        return Response(200, b"x" * 8192)

    wire = Wire(answer)
    wire.server.data_received(BEGUN)
    for stream in range(1, 8001, 2):
        await wire.say(
            GET(stream), frames.window_update(0, 4096), frames.window_update(0, 4096), frames.window_update(stream, 1)
        )

    assert not wire.pipe.closing


# Heads


def many(count: int, size: int) -> bytes:
    """A request with one field remembered and then named again and again: one byte each."""
    remembered = b"\x40" + b"\x01a" + b"\x7f" + _rest(size) + b"v" * size
    return BLOCK + remembered + b"\xbe" * count


def _rest(size: int) -> bytes:
    out, value = bytearray(), size - 127
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


async def test_a_head_that_grows_when_it_is_read_is_answered_with_431() -> None:
    block = many(300, 4000)
    assert len(block) < 5_000
    wire = Wire()
    await wire.say(BEGUN, frames.header_block(1, block, frames.FRAME, end=True), GET(3))

    came = [(stream, payload) for kind, _, stream, payload in await wire.hear() if kind == frames.HEADERS]
    assert [stream for stream, _ in came] == [1, 3]
    assert hpack.literal(":status", "431") in came[0][1]


def again(stream: int, count: int, *, end: bool) -> bytes:
    """A request on the same connection, which says no more than that again."""
    block = BLOCK + hpack.literal("x-number", str(stream)) + b"\xbe" * count
    return frames.header_block(stream, block, frames.FRAME, end=end)


async def test_long_heads_of_short_blocks_have_one_bound_until_their_streams_are_over() -> None:
    """A hundred streams that wait for a body would hold a hundred megabytes for ten bytes of each kilobyte."""
    wires = [Wire(), Wire()]
    bodies = wires[1].serving.bodies = wires[0].serving.bodies
    bodies.strangers.limit = 5_000_000
    for wire in wires:
        await wire.say(BEGUN, frames.header_block(1, many(249, 4000), frames.FRAME, end=False))
        await wire.say(*(again(stream, 249, end=False) for stream in range(3, 41, 2)))

    heard = [await wire.hear() for wire in wires]
    calmed = [payload for each in heard for kind, _, _, payload in each if kind == frames.RST_STREAM]
    assert set(calmed) == {Code.ENHANCE_YOUR_CALM.to_bytes(4, "big")}
    assert 4_000_000 < bodies.total <= 5_000_000
    assert 35 <= len(calmed) < 40

    for wire in wires:
        wire.drop()
    await turns()
    assert bodies.total == 0


async def test_a_long_head_counts_while_its_request_runs() -> None:
    busy = Busy()
    wire = Wire(busy)
    await wire.say(BEGUN, frames.header_block(1, many(200, 4000), frames.FRAME, end=True))
    assert busy.running == 1
    assert wire.serving.bodies.total > 800_000

    await wire.say(frames.rst_stream(1, Code.CANCEL))
    assert (busy.running, wire.serving.bodies.total) == (0, 0)


async def test_what_a_short_block_stands_for_is_not_remembered() -> None:
    wire = Wire()
    await wire.say(BEGUN, frames.header_block(1, many(200, 4000), frames.FRAME, end=True))
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for stream in range(3, 99, 2):
            await wire.say(again(stream, 200, end=True))
            await wire.hear()
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    # Of 48 heads of 800 kB.
    assert kept < 1_000_000


def test_a_field_that_is_said_again_and_again_costs_what_it_is_long() -> None:
    def read(count: int) -> None:
        for _ in range(50):
            heads.Heads().request(many(count, 1000))

    assert grows_with_size(read, 960)


async def test_a_head_that_grows_without_end_ends_the_connection() -> None:
    wire = Wire()
    await wire.say(BEGUN, frames.header_block(1, many(10_000, 4000), frames.FRAME, end=True))

    goaways = [payload[4:8] for kind, _, _, payload in await wire.hear() if kind == frames.GOAWAY]
    assert goaways == [Code.ENHANCE_YOUR_CALM.to_bytes(4, "big")]


async def test_a_head_of_too_many_fields_is_answered_with_431() -> None:
    wire = Wire()
    fields = b"".join(hpack.literal(f"x-{number}", "") for number in range(1100))
    await wire.say(BEGUN, frames.header_block(1, BLOCK + fields, frames.FRAME, end=True))

    assert any(
        kind == frames.HEADERS and hpack.literal(":status", "431") in payload
        for kind, _, _, payload in await wire.hear()
    )


async def test_a_long_head_is_read() -> None:
    asked: list[Request] = []

    async def answer(request: Request, certificate: bytes | None) -> Response:
        asked.append(request)
        return Response(200, b"{}")

    wire = Wire(answer)
    block = BLOCK + hpack.literal("x-long", "y" * 900_000)
    await wire.say(BEGUN, frames.header_block(1, block, frames.FRAME, end=True))

    assert len(asked[0].headers["x-long"]) == 900_000


def test_what_is_remembered_of_heads_is_bounded() -> None:
    remembered = heads.Heads()
    for number in range(500):
        fields = b"".join(b"\x40" + hpack.literal(f"x-{number}-{each}", "v" * 500)[1:] for each in range(20))
        remembered.request(BLOCK + fields)
        remembered.request(BLOCK + hpack.literal("y", str(number)))

    decoder = remembered._decoder
    assert sum(size for _, _, size in decoder._fields) == decoder._size <= hpack.TABLE_MAX
    assert len(remembered._known) <= 64
