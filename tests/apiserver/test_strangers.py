"""What anybody can send over a connection, without being anybody: it leaves no memory behind, and a method that is
none is refused as Kubernetes refuses it."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

from navarch.apiserver.http import HTTPFront
from navarch.apiserver.http2.heads import TooLong, head_of
from navarch.apiserver.server import ApiServer
from tests.apiserver.conftest import CONFIG_MAPS, Api


@pytest.fixture
async def port(server: ApiServer, api: Api) -> AsyncIterator[int]:
    front = HTTPFront(server)
    yield await front.start("127.0.0.1", 0, None)
    await front.stop()


async def answers(port: int, data: bytes) -> bytes:
    """All that is answered until the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(60):
            writer.write(data)
            return await reader.read()
    finally:
        writer.close()


def request(target: str, *, method: str = "GET", line: str = "") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n{line}Connection: close\r\n\r\n".encode()


# Memory

_LONG = "x" * 200_000


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (lambda number: request(f"/api/v1/namespaces/{number}{_LONG}/pods"), b"200"),
        (lambda number: request(f"/api/v1/pods?{number}{_LONG}"), b"200"),
        (lambda number: request(f"/api/v1/pods?{number}" + "&a=" * 9_000), b"200"),
        (lambda number: request(f"http://{number}{_LONG}/api/v1/pods"), b"200"),
        (lambda number: request(f"/{number}{_LONG}", line="no name\r\n"), b"400"),
        (lambda number: request("/version", line="".join(f"{number:x}{i:03x}:\r\n" for i in range(1100))), b"400"),
    ],
    ids=["path", "query", "parameters", "host", "what is no request", "lines"],
)
async def test_long_lines_are_not_kept(port: int, sent: Callable[[int], bytes], code: bytes) -> None:
    async def visit(start: int, count: int) -> None:
        for number in range(start, start + count):
            assert (await answers(port, sent(number))).split()[1] == code

    await visit(0, 3)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await visit(3, 12)
        # The last connection's end is seen in a turn of its own.
        await asyncio.sleep(0)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    # Of twelve times 200 kB, or of as many times nine thousand parameters, or of a thousand headers.
    assert kept < 1_000_000


async def test_a_query_of_more_parameters_than_go_reads_is_refused(port: int) -> None:
    for count, code in ((9_999, b"200"), (10_000, b"400")):
        answer = await answers(port, request(CONFIG_MAPS + "?a" + "&a" * count))
        assert answer.split()[1] == code
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["message"] == "number of query parameters exceeded limit"


def test_over_http2_such_a_query_is_too_long() -> None:
    fields = [(":method", "GET", 0), (":scheme", "https", 0), (":authority", "x", 0)]
    assert len(head_of([*fields, (":path", "/a?a" + "&a" * 9_999, 0)]).query) == 10_000
    with pytest.raises(TooLong):
        head_of([*fields, (":path", "/a?a" + "&a" * 10_000, 0)])


# Methods


@pytest.mark.parametrize("method", ["FOO", "get", "BREW-TEA", "PROPFIND", "CONNECT"])
@pytest.mark.parametrize("path", [CONFIG_MAPS, f"{CONFIG_MAPS}/%61?x=1", "/api/v1", "/apis/apps", "/version"])
async def test_an_unknown_method_is_not_allowed(port: int, method: str, path: str) -> None:
    head, _, body = (await answers(port, request(path, method=method))).partition(b"\r\n\r\n")

    assert head.split()[1] == b"405"
    assert orjson.loads(body) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "the server does not allow this method on the requested resource",
        "reason": "MethodNotAllowed",
        "details": {},
        "code": 405,
    }


@pytest.mark.parametrize("method", ["FOO", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/nowhere", "/apis/nowhere/v1/x", "/apis/nowhere"])
async def test_where_nothing_is_no_method_is_refused(port: int, method: str, path: str) -> None:
    head, _, body = (await answers(port, request(path, method=method))).partition(b"\r\n\r\n")

    assert (head.split()[1], body) == (b"404", b"404 page not found\n")


@pytest.mark.parametrize("line", ["Transfer-Encoding: chunked", "Expect: 100-continue", "Content-Encoding: gzip"])
async def test_an_unknown_method_is_not_allowed_however_its_body_comes(port: int, line: str) -> None:
    asked = f"FOO {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n".encode()
    answer = await answers(port, asked + request("/version"))

    # What follows is not taken for another request.
    assert [part.split()[0] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"405"]
    assert b"\r\nConnection: close\r\n" in answer


async def test_a_kept_connection_goes_on_after_an_unknown_method(port: int) -> None:
    asked = f"FOO {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    answer = await answers(port, asked + asked + request(CONFIG_MAPS))

    assert [part.split()[0] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"405", b"405", b"200"]
