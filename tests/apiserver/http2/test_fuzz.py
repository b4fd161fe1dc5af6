"""Frames in any order and of any content: the server never fails, keeps its bounds, and lets go of everything."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.apiserver.http2.answering import Answers
from navarch.client.transport import Request, Response
from navarch.http2 import frames, hpack
from tests.apiserver.http2.wire import Wire, turns

STREAMS = st.sampled_from([0, 1, 3, 5, 7, 9, 2, 77, (1 << 31) - 1])
FIELDS = st.lists(
    st.sampled_from([
        (":method", "GET"), (":method", "POST"), (":method", "HEAD"), (":scheme", "https"), (":path", "/"),
        (":path", "/stream"), (":path", "/wait"), (":path", "/big"), (":authority", "x"), ("content-length", "5"),
        ("accept", "x"), ("Bad", "x"), ("te", "trailers"), ("content-encoding", "gzip"), ("expect", "100-continue"),
    ]),
    max_size=7,
)  # fmt: skip
WHOLE = [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "x")]
HEADS = st.one_of(
    st.sampled_from(["/", "/stream", "/wait", "/big", "/fails"]).map(
        lambda path: [(n, path if n == ":path" else v) for n, v in WHOLE]
    ),
    FIELDS,
).map(lambda fields: b"".join(hpack.literal(*field) for field in fields))
PAYLOADS = st.one_of(st.binary(max_size=40), HEADS, st.sampled_from([b"", bytes(4), bytes(8), b"x" * 20_000]))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return frames.head(len(payload), kind, flags, stream) + payload


ANY = st.builds(frame, st.integers(0, 12), st.integers(0, 255), STREAMS, PAYLOADS)
LIKELY = st.one_of(
    st.builds(frame, st.just(frames.HEADERS), st.sampled_from([4, 5]), STREAMS, HEADS),
    st.builds(frame, st.just(frames.DATA), st.sampled_from([0, 1]), STREAMS, PAYLOADS),
    st.builds(lambda stream, more: frame(8, 0, stream, more.to_bytes(4, "big")), STREAMS, st.integers(1, 70_000)),
    st.builds(lambda stream: frame(frames.RST_STREAM, 0, stream, bytes(4)), STREAMS),
    st.just(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 0})),
    st.just(frames.settings({frames.Setting.INITIAL_WINDOW_SIZE: 70_000})),
    st.just(b"turn"),
)


class Some:
    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, request: Request, certificate: bytes | None) -> Response:
        if request.path == "/fails":
            raise ZeroDivisionError
        if request.path == "/wait":
            await asyncio.sleep(0.001)
        if request.path == "/stream":
            return Response(200, self.chunks())
        return Response(200, b"x" * (200_000 if request.path == "/big" else 5))

    async def chunks(self):  # type: ignore[no-untyped-def]
        self.open += 1
        try:
            for _ in range(5):
                yield b"x" * 30_000
                await asyncio.sleep(0)
        finally:
            self.open -= 1


async def play(pieces: list[bytes], cut: int, some: Some) -> tuple[Wire, Answers]:
    wire = Wire(some, streams=4)
    # The connection forgets them when it ends.
    answers = wire.server._answers
    # What a request fails with is for the log.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    wire.server.data_received(frames.PREFACE + frames.settings({}))
    for piece in pieces:
        if piece == b"turn":
            await turns(3)
            continue
        for part in (piece[:cut], piece[cut:]):
            wire.server.data_received(part)
            assert len(wire.server._streams) <= 4
            assert answers.running <= 4
    await turns()
    wire.drop()
    for _ in range(500):
        if not answers.running and not wire.serving.connections:
            break
        await asyncio.sleep(0.001)
    assert some.open == 0
    return wire, answers


@given(st.lists(st.one_of(LIKELY, ANY), max_size=25), st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_any_frames(pieces: list[bytes], cut: int) -> None:
    logging.getLogger("asyncio").disabled = True
    some = Some()
    try:
        wire, answers = asyncio.run(play(pieces, cut, some))
    finally:
        logging.getLogger("asyncio").disabled = False

    assert answers.running == 0
    assert not wire.server._streams
    assert not answers._waiting
    assert answers._unread == 0
    assert wire.serving.bodies.total == 0
    assert not wire.serving.connections


@pytest.mark.parametrize("size", [0, 1, 9, 24, 100])
async def test_bytes_that_are_nothing(size: int) -> None:
    wire = Wire()
    wire.server.data_received(b"\x00" * size)
    await turns()

    assert wire.pipe.closing == (size > 0)
