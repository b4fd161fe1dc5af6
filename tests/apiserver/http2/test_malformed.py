"""Frames that are not what RFC 9113 asks for: one stream or the connection ends, with the code that the RFC names."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from navarch.client.transport import Request, Response
from navarch.http2 import frames, hpack
from navarch.http2.frames import Code, Setting
from tests.apiserver.http2.wire import GET, Wire

BEGUN = frames.PREFACE + frames.settings({})
BIG = b"x" * 1000


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frames.head(len(payload), kind, flags, stream) + payload


def head(*fields: tuple[str, str], stream: int = 1, end: bool = True) -> bytes:
    return frames.header_block(stream, b"".join(hpack.literal(*field) for field in fields), frames.FRAME, end=end)


ASKED = ((":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/"))
SENT = ((":method", "POST"), *ASKED[1:])
BLOCK = b"".join(hpack.literal(*field) for field in ASKED)
OPEN = head(*SENT, end=False)

CONNECTION: dict[str, tuple[Code, Sequence[bytes]]] = {
    "a settings frame on a stream": (Code.PROTOCOL_ERROR, [frame(frames.SETTINGS, 0, 1)]),
    "settings of five bytes": (Code.FRAME_SIZE_ERROR, [frame(frames.SETTINGS, 0, 0, b"12345")]),
    "settings acknowledged with some": (Code.FRAME_SIZE_ERROR, [frame(frames.SETTINGS, frames.ACK, 0, b"123456")]),
    "a switch that is 2": (Code.PROTOCOL_ERROR, [frames.settings({Setting.ENABLE_PUSH: 2})]),
    "a window of 2^31": (Code.FLOW_CONTROL_ERROR, [frames.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31})]),
    "frames below 16 kB": (Code.PROTOCOL_ERROR, [frames.settings({Setting.MAX_FRAME_SIZE: 16_383})]),
    "frames of 16 MB": (Code.PROTOCOL_ERROR, [frames.settings({Setting.MAX_FRAME_SIZE: 1 << 24})]),
    "a ping on a stream": (Code.PROTOCOL_ERROR, [frame(frames.PING, 0, 1, b"12345678")]),
    "a ping of six bytes": (Code.FRAME_SIZE_ERROR, [frame(frames.PING, 0, 0, b"123456")]),
    "a GOAWAY on a stream": (Code.PROTOCOL_ERROR, [frame(frames.GOAWAY, 0, 1, bytes(8))]),
    "a GOAWAY of four bytes": (Code.FRAME_SIZE_ERROR, [frame(frames.GOAWAY, 0, 0, bytes(4))]),
    "a promise": (Code.PROTOCOL_ERROR, [frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, bytes(4) + BLOCK)]),
    "a frame that is too long": (Code.FRAME_SIZE_ERROR, [frames.head((256 << 10) + 1, frames.DATA, 0, 1)]),
    "data on no stream": (Code.PROTOCOL_ERROR, [frame(frames.DATA, 0, 0, b"x")]),
    "data before its stream": (Code.PROTOCOL_ERROR, [frame(frames.DATA, 0, 1, b"x")]),
    "a reset before its stream": (Code.PROTOCOL_ERROR, [frames.rst_stream(1, Code.CANCEL)]),
    "a reset of no stream": (Code.PROTOCOL_ERROR, [frames.rst_stream(0, Code.CANCEL)]),
    "a reset of three bytes": (Code.FRAME_SIZE_ERROR, [OPEN, frame(frames.RST_STREAM, 0, 1, bytes(3))]),
    "room before its stream": (Code.PROTOCOL_ERROR, [frames.window_update(1, 1)]),
    "no more room for the connection": (Code.PROTOCOL_ERROR, [frames.window_update(0, 0)]),
    "too much room for the connection": (Code.FLOW_CONTROL_ERROR, [frames.window_update(0, (1 << 31) - 1)]),
    "room of three bytes": (Code.FRAME_SIZE_ERROR, [frame(frames.WINDOW_UPDATE, 0, 0, bytes(3))]),
    "a head on no stream": (Code.PROTOCOL_ERROR, [frame(frames.HEADERS, frames.END_HEADERS, 0, BLOCK)]),
    "a head on a server's stream": (Code.PROTOCOL_ERROR, [GET(2)]),
    "a head on a stream that is over": (Code.STREAM_CLOSED, [GET(3), GET(1)]),
    "a head with more padding than there is": (
        Code.PROTOCOL_ERROR,
        [frame(frames.HEADERS, frames.END_HEADERS | frames.PADDED, 1, b"\xff" + BLOCK)],
    ),
    "data with more padding than there is": (
        Code.PROTOCOL_ERROR,
        [OPEN, frame(frames.DATA, frames.PADDED, 1, b"\x05abcd")],
    ),
    "a head without room for its priority": (
        Code.FRAME_SIZE_ERROR,
        [frame(frames.HEADERS, frames.END_HEADERS | frames.WITH_PRIORITY, 1, b"\x00\x00")],
    ),
    "a continuation of nothing": (Code.PROTOCOL_ERROR, [frame(frames.CONTINUATION, frames.END_HEADERS, 1, BLOCK)]),
    "a continuation of another stream": (
        Code.PROTOCOL_ERROR,
        [frame(frames.HEADERS, 0, 1, BLOCK[:5]), frame(frames.CONTINUATION, frames.END_HEADERS, 3, BLOCK[5:])],
    ),
    "something else within a head": (
        Code.PROTOCOL_ERROR,
        [frame(frames.HEADERS, 0, 1, BLOCK[:5]), frames.ping(b"12345678")],
    ),
    "a priority of no stream": (Code.PROTOCOL_ERROR, [frame(frames.PRIORITY, 0, 0, bytes(5))]),
    "a field that is not remembered": (Code.COMPRESSION_ERROR, [frame(frames.HEADERS, 4, 1, b"\xff\x00")]),
    "field 0": (Code.COMPRESSION_ERROR, [frame(frames.HEADERS, 4, 1, b"\x80")]),
    "a text that is cut short": (Code.COMPRESSION_ERROR, [frame(frames.HEADERS, 4, 1, BLOCK[:-1])]),
    "a number that does not end": (Code.COMPRESSION_ERROR, [frame(frames.HEADERS, 4, 1, b"\xff" + b"\xff" * 9)]),
    "the end of string within a text": (
        Code.COMPRESSION_ERROR,
        [frame(frames.HEADERS, 4, 1, b"\x44\x84\xff\xff\xff\xff")],
    ),
    "a table that is too big": (Code.COMPRESSION_ERROR, [frame(frames.HEADERS, 4, 1, b"\x3f\xe2\x1f" + BLOCK)]),
    "a table resized within a head": (Code.COMPRESSION_ERROR, [frame(frames.HEADERS, 4, 1, BLOCK + b"\x20")]),
    "compression that fails in trailers": (Code.COMPRESSION_ERROR, [OPEN, frame(frames.HEADERS, 5, 1, b"\xff\x00")]),
}

STREAM: dict[str, tuple[Code, Sequence[bytes]]] = {
    "a name in capitals": (Code.PROTOCOL_ERROR, [head(*ASKED, ("Accept", "x"))]),
    "a value with a line end": (Code.PROTOCOL_ERROR, [head(*ASKED, ("accept", "x\r\ny: z"))]),
    "a value with a space before it": (Code.PROTOCOL_ERROR, [head(*ASKED, ("accept", " x"))]),
    "a name that is empty": (Code.PROTOCOL_ERROR, [head(*ASKED, ("", "x"))]),
    "an unknown pseudo-field": (Code.PROTOCOL_ERROR, [head(*ASKED, (":test", "x"))]),
    "an answer's pseudo-field": (Code.PROTOCOL_ERROR, [head(*ASKED, (":status", "200"))]),
    "a pseudo-field after others": (Code.PROTOCOL_ERROR, [head(*ASKED[:3], ("accept", "x"), ASKED[3])]),
    "a pseudo-field twice": (Code.PROTOCOL_ERROR, [head(*ASKED, (":path", "/b"))]),
    "no method": (Code.PROTOCOL_ERROR, [head(*ASKED[1:])]),
    "a method that is none": (Code.PROTOCOL_ERROR, [head((":method", "G T"), *ASKED[1:])]),
    "no scheme": (Code.PROTOCOL_ERROR, [head(ASKED[0], *ASKED[2:])]),
    "no path": (Code.PROTOCOL_ERROR, [head(*ASKED[:3])]),
    "an empty path": (Code.PROTOCOL_ERROR, [head(*ASKED[:3], (":path", ""))]),
    "a path that is no path": (Code.PROTOCOL_ERROR, [head(*ASKED[:3], (":path", "version"))]),
    "a path with a space": (Code.PROTOCOL_ERROR, [head(*ASKED[:3], (":path", "/a b"))]),
    "a connection's field": (Code.PROTOCOL_ERROR, [head(*ASKED, ("connection", "keep-alive"))]),
    "an upgrade": (Code.PROTOCOL_ERROR, [head(*ASKED, ("upgrade", "websocket"))]),
    "a transfer encoding": (Code.PROTOCOL_ERROR, [head(*ASKED, ("transfer-encoding", "chunked"))]),
    "TE other than trailers": (Code.PROTOCOL_ERROR, [head(*ASKED, ("te", "gzip"))]),
    "a length that is no number": (Code.PROTOCOL_ERROR, [head(*SENT, ("content-length", "-1"), end=False)]),
    "two lengths": (
        Code.PROTOCOL_ERROR,
        [head(*SENT, ("content-length", "1"), ("content-length", "2"), end=False)],
    ),
    "a body shorter than it says": (
        Code.PROTOCOL_ERROR,
        [head(*SENT, ("content-length", "9"), end=False), frame(frames.DATA, frames.END_STREAM, 1, b"x")],
    ),
    "no body where one is stated": (Code.PROTOCOL_ERROR, [head(*SENT, ("content-length", "9"))]),
    "a body longer than it says": (
        Code.PROTOCOL_ERROR,
        [head(*SENT, ("content-length", "3"), end=False), frame(frames.DATA, 0, 1, b"x" * 4)],
    ),
    "trailers that end nothing": (Code.PROTOCOL_ERROR, [OPEN, head(("a", "b"), end=False)]),
    "a pseudo-field in trailers": (Code.PROTOCOL_ERROR, [OPEN, head((":path", "/"))]),
    "data after the end": (Code.STREAM_CLOSED, [GET(1, "/wait"), frame(frames.DATA, 0, 1, BIG)]),
    "trailers after the end": (Code.STREAM_CLOSED, [GET(1, "/wait"), head(("a", "b"))]),
    "data on a stream that is over": (Code.STREAM_CLOSED, [GET(1), frame(frames.DATA, 0, 1, BIG)]),
    "no more room": (Code.PROTOCOL_ERROR, [OPEN, frames.window_update(1, 0)]),
    "too much room": (Code.FLOW_CONTROL_ERROR, [OPEN, frames.window_update(1, (1 << 31) - 1)]),
    "more data than there is room for": (
        Code.FLOW_CONTROL_ERROR,
        # Each is passed on before there is half as much room left, which would make more; both together are too much.
        [OPEN + frame(frames.DATA, 0, 1, bytes(100_000)) + frame(frames.DATA, 0, 1, bytes(256 << 10))],
    ),
    "a stream that depends on itself": (
        Code.PROTOCOL_ERROR,
        [frame(frames.HEADERS, frames.END_HEADERS | frames.WITH_PRIORITY, 1, b"\x00\x00\x00\x01\x10" + BLOCK)],
    ),
    "a priority of itself": (Code.PROTOCOL_ERROR, [frame(frames.PRIORITY, 0, 1, b"\x00\x00\x00\x01\x10")]),
    "a priority of four bytes": (Code.FRAME_SIZE_ERROR, [frame(frames.PRIORITY, 0, 1, bytes(4))]),
}

FINE: dict[str, Sequence[bytes]] = {
    "a frame of an unknown kind": [frame(0xF0, 0xFF, 7, b"anything"), GET(1)],
    "unknown settings": [frame(frames.SETTINGS, 0, 0, b"\x7f\x00\x00\x00\x00\x01"), GET(1)],
    "unknown flags": [frame(frames.PING, 0xFE, 0, b"12345678"), GET(1)],
    "the reserved bit": [frames.HEAD.pack(0, len(BLOCK), frames.HEADERS, 5, 1 << 31 | 1) + BLOCK],
    "padding": [frame(frames.HEADERS, 5 | frames.PADDED, 1, b"\x03" + BLOCK + bytes(3))],
    "priority": [frame(frames.HEADERS, 5 | frames.WITH_PRIORITY, 1, b"\x80\x00\x00\x03\x10" + BLOCK)],
    "continuations": [frame(frames.HEADERS, 1, 1, b""), frame(9, 0, 1, BLOCK[:7]), frame(9, 4, 1, BLOCK[7:])],
    "streams left out": [GET(77)],
    "a reset of what is over": [GET(1), frames.rst_stream(1, Code.CANCEL), GET(3)],
    "room for what is over": [GET(1), frames.window_update(1, 5), GET(3)],
    "priority of what is not begun": [frame(frames.PRIORITY, 0, 9, bytes(5)), GET(1)],
    "a body with padding": [
        head(*SENT, ("content-length", "2"), end=False),
        frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\x04{}" + bytes(4)),
    ],
    "an end of its own": [OPEN, frame(frames.DATA, 0, 1, BIG), frame(frames.DATA, frames.END_STREAM, 1)],
    "an empty body that says so": [head(*SENT, ("content-length", "0"))],
    "TE trailers": [head(*ASKED, ("te", "trailers"))],
    "no authority but a host": [head(ASKED[0], ASKED[1], ASKED[3], ("host", "x"))],
    "everything asked": [head((":method", "OPTIONS"), (":scheme", "https"), (":authority", "x"), (":path", "*"))],
    "a table of nothing": [frame(frames.HEADERS, 5, 1, b"\x20" + BLOCK)],
    "an acknowledgement that nobody waits for": [frames.SETTINGS_ACK, frames.ping(b"12345678", answer=True), GET(1)],
}


async def answer(request: Request, certificate: bytes | None) -> Response:
    if request.path == "/wait":
        import asyncio

        await asyncio.Event().wait()
    return Response(200, b"{}")


async def heard(said: Sequence[bytes]) -> tuple[Wire, list[tuple[int, int, int, bytes]]]:
    wire = Wire(answer)
    await wire.say(BEGUN, *said)
    return wire, await wire.hear()


@pytest.mark.parametrize("what", CONNECTION)
async def test_the_connection_ends(what: str) -> None:
    code, said = CONNECTION[what]
    wire, came = await heard(said)

    assert [int.from_bytes(payload[4:8], "big") for kind, _, _, payload in came if kind == frames.GOAWAY] == [code]
    assert wire.pipe.closing


@pytest.mark.parametrize("what", STREAM)
async def test_the_stream_ends_and_the_connection_goes_on(what: str) -> None:
    code, said = STREAM[what]
    wire, came = await heard(said)

    assert [int.from_bytes(payload, "big") for kind, _, _, payload in came if kind == frames.RST_STREAM] == [code]
    await wire.say(GET(101))
    assert [stream for kind, _, stream, _ in await wire.hear() if kind == frames.HEADERS] == [101]
    assert wire.serving.bodies.total == 0


@pytest.mark.parametrize("what", FINE)
async def test_what_is_odd_but_right_is_answered(what: str) -> None:
    wire, came = await heard(FINE[what])

    assert not {frames.GOAWAY, frames.RST_STREAM} & {kind for kind, *_ in came}
    assert frames.HEADERS in {kind for kind, *_ in came}
    assert not wire.pipe.closing


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"],
)
async def test_what_is_no_http2_ends_the_connection(said: bytes) -> None:
    wire = Wire(answer)
    for byte in said:
        await wire.say(bytes([byte]))
    await wire.say(frames.head(0, frames.PING, 0, 0))

    assert wire.pipe.closing


async def test_settings_come_first() -> None:
    wire = Wire(answer)
    await wire.say(frames.PREFACE, GET(1))

    assert wire.pipe.closing


async def test_bytes_may_come_one_by_one() -> None:
    wire = Wire(answer)
    for byte in BEGUN + GET(1) + OPEN.replace(b"\x00\x00\x00\x01", b"\x00\x00\x00\x03", 1):
        wire.server.data_received(bytes([byte]))
    await wire.say(frame(frames.DATA, frames.END_STREAM, 3, BIG))

    assert [stream for kind, _, stream, _ in await wire.hear() if kind == frames.HEADERS] == [1, 3]


async def test_a_refused_stream_can_be_asked_again() -> None:
    wire = Wire(answer, streams=2)
    await wire.say(BEGUN, GET(1, "/wait"), GET(3, "/wait"), GET(5))

    refused = [(stream, payload) for kind, _, stream, payload in await wire.hear() if kind == frames.RST_STREAM]
    assert refused == [(5, Code.REFUSED_STREAM.to_bytes(4, "big"))]
    await wire.say(frames.rst_stream(1, Code.CANCEL), GET(7))
    assert [stream for kind, _, stream, _ in await wire.hear() if kind == frames.HEADERS] == [7]


async def test_a_connect_reaches_nothing() -> None:
    asked: list[Request] = []

    async def remembered(request: Request, certificate: bytes | None) -> Response:
        asked.append(request)
        return Response(405, b"{}")

    wire = Wire(remembered)
    await wire.say(BEGUN, head((":method", "CONNECT"), (":authority", "example.com:443")))

    assert [request.method for request in asked] == ["CONNECT"]
