"""Raw bytes to the HTTPS front: requests in pieces, in a row, and of kinds that go to aiohttp, on one connection."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import orjson
import pytest

from navarch.api.errors import unauthorized
from navarch.apiserver import answer_heads, connection
from navarch.apiserver.auth.base import EveryoneIsAdmin
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.plain_requests import plain_request
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import ANONYMOUS, LOOPBACK, User
from navarch.client.transport import Request, Response
from tests.apiserver.conftest import Api, config_map
from tests.growth import async_grows_with_size

PATH = "/api/v1/namespaces/default/configmaps"


class Wire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.005)

    async def hear(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(30):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:]}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body


@pytest.fixture
async def wire(server: ApiServer, api: Api) -> AsyncIterator[Wire]:
    front = HTTPFront(server)
    port = await front.start("127.0.0.1", 0, None)
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
    yield wire
    wire.writer.close()
    await front.stop()


def request(method: str, path: str, body: bytes = b"", *lines: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: x", *lines]
    if body:
        head += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def create(name: str, **data: str) -> bytes:
    return request("POST", PATH, orjson.dumps(config_map(name, **data)))


async def test_a_body_in_pieces(wire: Wire) -> None:
    data = create("a", k="v" * 1000)
    await wire.say(data[:-700], data[-700:-10], data[-10:] + request("GET", f"{PATH}/a"))
    assert (await wire.hear())[0] == 201
    status, headers, body = await wire.hear()
    assert (status, headers["content-type"], headers["cache-control"]) == (200, "application/json", "no-cache, private")
    assert orjson.loads(body)["data"] == {"k": "v" * 1000}


async def test_a_head_in_pieces(wire: Wire) -> None:
    data = create("a", k="v")
    await wire.say(data[:20], data[20:], create("b"))
    assert [(await wire.hear())[0] for _ in range(2)] == [201, 201]


@pytest.mark.parametrize("pieces", [1, 3])
async def test_pipelined_requests_are_answered_in_order(wire: Wire, pieces: int) -> None:
    data = b"".join(create(f"n{n}") + request("GET", f"{PATH}/n{n}") for n in range(20))
    step = len(data) // pieces + 1
    await wire.say(*(data[start : start + step] for start in range(0, len(data), step)))
    names = [orjson.loads((await wire.hear())[2])["metadata"]["name"] for _ in range(40)]
    assert names == [f"n{n}" for n in range(20) for _ in range(2)]


async def test_a_long_pipeline(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PIPELINE_MAX", 500)
    await wire.say(b"".join(create(f"n{n}") for n in range(20)))
    assert [(await wire.hear())[0] for _ in range(20)] == [201] * 20


@pytest.mark.parametrize(
    "other",
    [
        request("GET", "/version"),
        request("GET", f"{PATH}/%61"),
        request("GET", f"{PATH}/a", b"body of a GET"),
        request("GET", f"{PATH}/a", b"", "X-Odd: \u00e9"),
        request("POST", PATH, b"", "Transfer-Encoding: chunked", "Content-Type: application/json")
        + b"2\r\n{}\r\n0\r\n\r\n",
        request("OPTIONS", "/"),
    ],
)
async def test_the_ways_alternate_on_one_connection(wire: Wire, other: bytes) -> None:
    for name in ("a", "b"):
        await wire.say(create(name))
        assert (await wire.hear())[0] == 201
        await wire.say(other)
        status, _, body = await wire.hear()
        assert status != 400, body


async def test_a_watch_comes_as_a_stream(wire: Wire) -> None:
    await wire.say(request("GET", f"{PATH}?watch=true&timeoutSeconds=1"))
    async with asyncio.timeout(30):
        assert b"chunked" in (await wire.reader.readuntil(b"\r\n\r\n"))
        await wire.reader.readuntil(b"0\r\n\r\n")
    await wire.say(create("after"))
    assert (await wire.hear())[0] == 201


async def test_a_body_that_does_not_come(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BODY_S", 0.05)
    await wire.say(create("a")[:-5])
    assert (await wire.hear())[0] == 408
    assert await wire.reader.read() == b""


async def test_a_long_body_is_refused(wire: Wire) -> None:
    await wire.say(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode())
    assert (await wire.hear())[0] == 413


async def test_no_http_is_a_bad_request(wire: Wire) -> None:
    await wire.say(b"hello\r\n\r\n")
    assert (await wire.hear())[0] == 400


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api/v1/pods HTTP/1.0\r\nHost: x",
        b"GET /api/v1/pods HTTP/1.1",
        b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nHost: y",
        b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n folded",
        b"GET /api/v1/pods HTTP/1.1\r\nHost : x",
        b"POST /api/v1/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2",
        b"POST /api/v1/pods HTTP/1.1\r\nHost: x\r\nContent-Length: +1",
        b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nConnection: close",
        b"GET /api/v1/namespaces/n/pods/p/log HTTP/1.1\r\nHost: x",
        b"GET /api/v1/namespaces/n/pods/../x HTTP/1.1\r\nHost: x",
    ],
)
def test_what_is_not_plain(head: bytes) -> None:
    assert plain_request(head) is None


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: b", "a\nSet-Cookie: b", "a\rSet-Cookie: b"])
def test_what_an_answer_says_makes_no_header_of_its_own(text: str) -> None:
    head = answer_heads.head_of(Response(200, b"", {"Warning": text, "X-Other": "c"}), 0)

    assert b"\r\nWarning: a" in head
    assert b"\r\nX-Other: c\r\n\r\n" in head
    assert not re.search(rb"[\r\n]Set-Cookie", head)
    assert head.count(b"\n") == head.count(b"\r")


def test_a_plain_request() -> None:
    head = (
        b"POST /api/v1/namespaces/n/pods?dryRun=All&x=a+%26 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a:2\r\ncontent-length: 7"
    )
    found = plain_request(head)
    assert found is not None
    request, length = found
    assert (request.method, request.path, length) == ("POST", "/api/v1/namespaces/n/pods", 7)
    assert list(request.query) == [("dryRun", "All"), ("x", "a &")]
    assert request.headers == {"host": "h", "x-a": "1, 2", "content-length": "7"}


async def test_a_body_in_very_small_pieces_takes_no_quadratic_time(server: ApiServer, api: Api) -> None:
    answered: list[Request] = []

    async def answer(request: Request, certificate: bytes | None) -> Response:
        answered.append(request)
        return Response(200, b"{}")

    async def receive(size: int) -> None:
        made = connection.Server(None, answer)()
        transport = Discarding()
        made.connection_made(transport)
        data = create("a", k="v" * size)
        made.data_received(data[:200])
        for at in range(200, len(data)):
            made.data_received(data[at : at + 1])
        await asyncio.sleep(0)
        assert answered.pop().body == data[data.index(b"\r\n\r\n") + 4 :]
        made.connection_lost(None)

    assert await async_grows_with_size(receive, 300_000)


class Discarding(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        return

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        return

    def close(self) -> None:
        return


@pytest.fixture
async def front(server: ApiServer, api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[HTTPFront, int]]:
    # Whoever is refused while he sends hears it, however busy the machine is.
    monkeypatch.setattr(connection, "LAST_WORDS_S", 60.0)
    front = HTTPFront(server)
    yield front, await front.start("127.0.0.1", 0, None)
    await front.stop()


@pytest.mark.parametrize("chunked", [False, True])
async def test_of_all_bodies_that_are_coming_the_longest_are_given_up(
    front: tuple[HTTPFront, int], chunked: bool
) -> None:
    bodies = front[0]._web.bodies
    bodies.known.limit = 500_000
    part = b"x" * 100_000
    lines = ("Transfer-Encoding: chunked",) if chunked else ("Content-Length: 2000000",)
    wires = [Wire(*await asyncio.open_connection("127.0.0.1", front[1])) for _ in range(4)]
    for wire in wires:
        await wire.say(request("POST", PATH, b"", *lines, "Content-Type: application/json"))
    for count, wire in enumerate(wires):
        for _ in range(count + 1):
            await wire.say(b"186a0\r\n" + part + b"\r\n" if chunked else part)

    status, headers, _ = await wires[-1].hear()

    assert (status, headers["retry-after"]) == (429, "1")
    assert bodies.total <= 500_000
    fresh = Wire(*await asyncio.open_connection("127.0.0.1", front[1]))
    await fresh.say(create("fits"))
    assert (await fresh.hear())[0] == 201
    for wire in (*wires, fresh):
        wire.writer.close()
    async with asyncio.timeout(30):
        while bodies.total:
            await asyncio.sleep(0.01)


class OnlyJane(EveryoneIsAdmin):
    """Knows one token; who shows none is a stranger, and so is who shows another."""

    async def authenticate(self, request: Request, certificate: object) -> User:
        shown = request.headers.get("authorization")
        if shown not in (None, "Bearer jane"):
            raise unauthorized()
        return LOOPBACK if shown else ANONYMOUS

    def recognized(self, request: Request, certificate: object) -> None:
        return None


@pytest.mark.parametrize("chunked", [False, True])
async def test_strangers_have_little_room_for_bodies_together_and_take_none_from_those_who_are_known(
    front: tuple[HTTPFront, int], server: ApiServer, chunked: bool
) -> None:
    server.use(authenticator=OnlyJane())
    bodies = front[0]._web.bodies
    bodies.strangers.limit = 500_000
    whole = orjson.dumps(config_map("big", k="v" * 900_000))
    lines = ("Transfer-Encoding: chunked",) if chunked else (f"Content-Length: {len(whole)}",)

    async def begin(*credentials: str) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", front[1]))
        await wire.say(request("POST", PATH, b"", *lines, "Content-Type: application/json", *credentials))
        return wire

    async def say(wire: Wire, data: bytes) -> None:
        for at in range(0, len(data), 100_000):
            part = data[at : at + 100_000]
            await wire.say(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)

    jane = await begin("Authorization: Bearer jane")
    await say(jane, whole[:600_000])
    strangers = [await begin(), await begin("Authorization: Bearer junk"), await begin()]
    for stranger in strangers:
        with contextlib.suppress(ConnectionError):
            await say(stranger, whole[:300_000])

    assert 0 < bodies.strangers.total <= 500_000
    assert bodies.known.total == 600_000
    await say(jane, whole[600_000:])
    if chunked:
        await jane.say(b"0\r\n\r\n")
    assert (await jane.hear())[0] == 201
    assert (await strangers[0].hear())[0] == 429
    for wire in (jane, *strangers):
        wire.writer.close()
    async with asyncio.timeout(30):
        while bodies.total:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET",
        create("a")[:20],
        b"GET /version HTTP/1.1\r\nHost: x\r\nX-Slow: ",
    ],
)
async def test_connections_on_which_nothing_is_asked_are_ended(
    server: ApiServer, api: Api, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    front = HTTPFront(server)
    reader, writer = await asyncio.open_connection("127.0.0.1", await front.start("127.0.0.1", 0, None))
    writer.write(said)

    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
    writer.close()
    await front.stop()


async def test_a_connection_that_has_been_used_may_be_idle(
    server: ApiServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.1)
    front = HTTPFront(server)
    wire = Wire(*await asyncio.open_connection("127.0.0.1", await front.start("127.0.0.1", 0, None)))
    for name, other in (("a", "/version"), ("b", f"{PATH}?watch=1&timeoutSeconds=1")):
        await wire.say(create(name))
        assert (await wire.hear())[0] == 201
        await asyncio.sleep(0.5)
        await wire.say(request("GET", other))
        status, _, _ = await wire.hear()
        assert status == 200
    wire.writer.close()
    await front.stop()


async def test_a_connection_that_sent_a_body_in_chunks_may_be_idle(
    server: ApiServer, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.1)
    front = HTTPFront(server)
    wire = Wire(*await asyncio.open_connection("127.0.0.1", await front.start("127.0.0.1", 0, None)))
    body = orjson.dumps(config_map("a"))
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:])]
    await wire.say(request("POST", PATH, b"", "Transfer-Encoding: chunked", "Content-Type: application/json"), *chunks)
    await wire.say(b"0\r\n\r\n")
    assert (await wire.hear())[0] == 201

    await asyncio.sleep(0.5)
    await wire.say(request("GET", "/version"))
    assert (await wire.hear())[0] == 200
    wire.writer.close()
    await front.stop()
