"""The HTTP transport against a server that sends prepared bytes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from navarch.client.base import _lines
from navarch.client.http import HTTPTransport
from navarch.client.http1 import Chunks, HeadReader, length_of
from navarch.client.transport import Request, Response
from tests.growth import async_grows_with_size, grows_with_size

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: 2\r\n\r\n{}"


class Server:
    """Answers the n-th request with the n-th list of pieces; an empty list closes the connection."""

    def __init__(self, answers: Sequence[Sequence[bytes]]) -> None:
        self.answers = list(answers)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                self.bodies.append(await reader.readexactly(int(length[0][15:]) if length else 0))
                pieces = self.answers.pop(0)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.002)
                if not pieces or b"connection: close" in pieces[0].lower():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def served(*answers: Sequence[bytes], connections: int = 4) -> AsyncIterator[tuple[Server, HTTPTransport]]:
    server = Server(answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    transport = HTTPTransport(
        f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/base", connections=connections, token=lambda: "t"
    )
    try:
        yield server, transport
    finally:
        await transport.close()
        listening.close()


async def test_requests_share_a_connection() -> None:
    async with served([OK], [OK]) as (server, transport):
        answer = await transport.send(Request("POST", "/a", [("b", "c d")], {"x-y": "z"}, b"body"))
        await transport.send(Request("GET", "/a"))
        assert (answer.status, answer.body, answer.content_type) == (200, b"{}", "application/json")
        assert server.connections == 1
        assert server.heads[0].startswith(b"POST /base/a?b=c+d HTTP/1.1\r\nhost: 127.0.0.1:")
        assert b"x-y: z\r\n" in server.heads[0]
        assert b"authorization: Bearer t\r\n" in server.heads[0]
        assert server.bodies == [b"body", b""]


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([OK[:10], OK[10:60], OK[60:]], b"{}"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + OK], b"{}"),
        ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{", b"}\r\n0\r\n", b"\r\n"], b"{}"),
        ([b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{", b"}"], b"{}"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
    ],
)
async def test_bodies(pieces: list[bytes], body: bytes) -> None:
    async with served(pieces, [OK]) as (_, transport):
        assert (await transport.send(Request("GET", "/"))).body == body
        assert (await transport.send(Request("GET", "/"))).body == b"{}"


async def test_gzip_is_undone() -> None:
    packed = zlib.compress(b"{}", wbits=zlib.MAX_WBITS | 16)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with served([head + packed]) as (_, transport):
        assert (await transport.send(Request("GET", "/"))).body == b"{}"


async def test_reads_are_repeated_when_an_idle_connection_was_closed() -> None:
    async with served([OK], [], [OK]) as (server, transport):
        await transport.send(Request("GET", "/"))
        assert (await transport.send(Request("GET", "/"))).status == 200
        assert server.connections == 2


async def test_creates_are_not_repeated() -> None:
    async with served([OK], [], [OK]) as (server, transport):
        await transport.send(Request("GET", "/"))
        with pytest.raises(ConnectionError):
            await transport.send(Request("POST", "/", body=b"{}"))
        assert len(server.heads) == 2


@pytest.mark.parametrize("pieces", [[b"nonsense\r\n\r\n"], [OK[:-1], b"}}"]])
async def test_what_is_no_http_is_an_error(pieces: list[bytes]) -> None:
    async with served(pieces) as (_, transport):
        with pytest.raises(ConnectionError):
            await transport.send(Request("GET", "/"))


async def test_refused() -> None:
    with pytest.raises(ConnectionError):
        await HTTPTransport("http://127.0.0.1:1").send(Request("GET", "/"))


async def test_no_more_connections_than_allowed() -> None:
    async with served(*[[OK]] * 20, connections=2) as (server, transport):
        answers = await asyncio.gather(*(transport.send(Request("GET", f"/{n}")) for n in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert server.connections == 2


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    async with served([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"], [OK], connections=1) as (server, transport):
        lost = asyncio.create_task(transport.send(Request("GET", "/lost")))
        waiting = asyncio.create_task(transport.send(Request("GET", "/waiting")))
        while not server.heads:
            await asyncio.sleep(0.001)
        waiting.cancel()
        lost.cancel()
        await asyncio.gather(lost, waiting, return_exceptions=True)
        assert (await transport.send(Request("GET", "/next"))).body == b"{}"
        assert b"/next" in server.heads[-1]


async def test_line_breaks_are_refused() -> None:
    send: Callable[..., object] = HTTPTransport("http://127.0.0.1:1").send
    with pytest.raises(ValueError, match="line break"):
        await send(Request("GET", "/", headers={"a": "b\r\nc: d"}))  # type: ignore[misc]


CHUNKED = b"3;x=y\r\nabc\r\n1\r\nd\r\nA\r\n0123456\r\n9\r\n0\r\ntrailer: x\r\n\r\n"


@pytest.mark.parametrize("step", [1, 2, 3, 5, 100])
def test_a_body_in_chunks_in_pieces_of_any_size(step: int) -> None:
    chunks = Chunks()
    found = [chunks.feed(CHUNKED[start : start + step]) for start in range(0, len(CHUNKED), step)]
    assert found == [None] * (len(found) - 1) + [b"abcd0123456\r\n9"]


@pytest.mark.parametrize("data", [b"zz\r\n", b"-1\r\n", b"\r\n", b"0x3\r\n", b"1" * 5000])
def test_chunks_that_are_none(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^a chunk('s line is too long| of size )"):
        Chunks().feed(data)


@pytest.mark.parametrize("length", ["-1", "+3", "1_0", "x", "\u0663", ""])
def test_lengths_that_are_none(length: str) -> None:
    with pytest.raises(ValueError, match=r"^a body of length "):
        length_of({"content-length": length})


def test_small_pieces_take_no_quadratic_time() -> None:
    def feed(times: int) -> None:
        head = HeadReader()
        for _ in range(2 * times):
            assert head.feed(b"x: y") is None
        chunks = Chunks()
        for _ in range(times):
            assert chunks.feed(b"4\r\n\r\n\r\n\r\n") is None

    assert grows_with_size(feed, 100_000)


async def test_a_long_chunk_of_a_watch_is_split_in_linear_time() -> None:
    line = b'{"type":"ADDED","object":{"metadata":{"name":"' + b"x" * 300 + b'"}}}\n'

    async def body(count: int) -> AsyncIterator[bytes]:
        whole = line * count
        yield b"\n" + whole[:100]
        yield whole[100:-5]
        yield whole[-5:-1]
        yield b"\n"

    async def split(count: int) -> None:
        lines = [found async for found in _lines(Response(200, body(count)))]
        assert lines == [line[:-1]] * count

    assert await async_grows_with_size(split, 60_000)
