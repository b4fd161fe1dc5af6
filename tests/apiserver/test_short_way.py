"""The short way past aiohttp's parser takes nothing that the parser would refuse or understand in another way."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import HttpVersion11, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st

from navarch.apiserver import connection
from navarch.apiserver.plain_requests import plain_request

PATH = b"/api/v1/namespaces/default/configmaps"
LINES = [
    b"Host: x",
    b"host:y",
    b"Content-Length: 2",
    b"content-length: 0",
    b"Content-Length: 02",
    b"Content-Length: +2",
    b"Content-Length: 2, 2",
    b"Content-Length:\t2",
    b"Content-Length : 2",
    b" Content-Length: 2",
    b"Content-Length: 2 ",
    b"Content-Length: 0x2",
    b"Content_Length: 2",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding : chunked",
    b"transfer-encoding:\x0bchunked",
    b"Transfer-Encoding: gzip, chunked",
    b"X-A: 1\r\n folded",
    b"X-A: 1\n X-B: 2",
    b"X-A: 1\nContent-Length: 2",
    b"X-A: 1\rContent-Length: 2",
    b"X-A: \x00",
    b"X-A: \x7f",
    b"X-A: \xe9",
    b"X-\xe9: 1",
    b": no name",
    b"no colon",
    b"",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: Upgrade",
    b"Upgrade: h2c",
    b"Expect: 100-continue",
    b"Content-Encoding: gzip",
    b"Content-Type: application/json",
    b"Authorization: Bearer a",
    b"X(A): 1",
    b"X A: 1",
    b'X"A: 1',
]
FIRST = [
    b"GET " + PATH + b" HTTP/1.1",
    b"POST " + PATH + b" HTTP/1.1",
    b"PUT " + PATH + b"/a?dryRun=All HTTP/1.1",
    b"DELETE " + PATH + b"/a HTTP/1.1",
    b"PATCH " + PATH + b"/a?fieldManager=x%20y&a=%C3%A9 HTTP/1.1",
    b"GET " + PATH + b"?limit=5&continue=a%2Bb+c&x&y= HTTP/1.1",
    b"GET " + PATH + b"?a=%zz&b=%ff HTTP/1.1",
    b"GET " + PATH + b"#frag HTTP/1.1",
    b"GET " + PATH + b"?q#frag HTTP/1.1",
    b"GET  " + PATH + b" HTTP/1.1",
    b"GET " + PATH + b"  HTTP/1.1",
    b"GET " + PATH + b" HTTP/1.1 ",
    b"get " + PATH + b" HTTP/1.1",
    b"FOO " + PATH + b"/a%2fb?x=1&y HTTP/1.1",
    b"FOO(" + PATH + b" HTTP/1.1",
    b"FOO /../a//b HTTP/1.1",
    b"FOO " + PATH + b" HTTP/1.0",
    b"FOO * HTTP/1.1",
    b"FOO  " + PATH + b" HTTP/1.1",
    b"FOO http://x" + PATH + b" HTTP/1.1",
    b"CONNECTED " + PATH + b" HTTP/1.1",
    b"GET " + PATH + b" HTTP/1.0",
    b"GET " + PATH + b" HTTP/2.0",
    b"GET http://x" + PATH + b" HTTP/1.1",
    b"GET " + PATH + b"/../secrets HTTP/1.1",
    b"GET " + PATH + b"/%2e%2e/secrets HTTP/1.1",
    b"GET " + PATH + b"?a=b;c=d HTTP/1.1",
    b"\r\nGET " + PATH + b" HTTP/1.1",
    b"GET\t" + PATH + b" HTTP/1.1",
    b"GET //api/v1/pods HTTP/1.1",
    b"GET /api/v1/pods\x00 HTTP/1.1",
]
HEADS = st.builds(
    lambda first, lines, glue: first + b"\r\n" + glue.join(lines),
    st.sampled_from(FIRST),
    st.lists(st.sampled_from(LINES), max_size=6).map(lambda lines: [b"Host: x", *lines]),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]),
)
BODY = b"{}GET / HTTP/1.1\r\n\r\n"


# Methods that the parser does not know, and one that it does: Kubernetes reads the rest of the request alike.
UNKNOWN = re.compile(rb"(?:get|FOO|CONNECTED)(?= )")
KNOWN = b"M-SEARCH"


def with_known_method(head: bytes) -> bytes:
    return UNKNOWN.sub(KNOWN, head, count=1) if UNKNOWN.match(head) else head


def by_aiohttp(data: bytes) -> list[Any]:
    """What aiohttp's own parser makes of it, with the server's limits.  Raises HttpProcessingError."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(
            BaseProtocol(loop),
            loop,
            2**16,
            max_line_size=1 << 20,
            max_field_size=1 << 20,
            auto_decompress=False,
        )
        messages, _, _ = parser.feed_data(data)
        return list(messages)
    finally:
        loop.close()


@given(HEADS)
@example(b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked")
@example(b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3")
@example(b"POST " + PATH + b" HTTP/1.1\r\nHost: x\r\nX-A: 1\nContent-Length: 2")
@example(b"GET " + PATH + b" HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n folded")
def test_what_goes_the_short_way_is_the_same_request_to_aiohttp(head: bytes) -> None:
    plain = plain_request(head)
    if plain is None:
        # It goes to aiohttp, untouched.
        return
    request, length = plain

    message, payload = by_aiohttp(with_known_method(head) + b"\r\n\r\n" + BODY[:length])[0]

    assert message.version == HttpVersion11
    assert request.method.encode() == (head.split(b" ")[0] if UNKNOWN.match(head) else message.method.encode())
    assert message.url.raw_path == request.path
    assert list(message.url.query.items()) == list(request.query)
    assert message.url.raw_fragment == ""
    assert not any((message.chunked, message.upgrade, message.compression))
    assert message.should_close == request.last
    headers: dict[str, str] = {}
    for name, value in message.headers.items():
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    assert headers == request.headers
    assert int(headers.get("content-length", "0")) == length
    assert payload.total_bytes == length


@given(HEADS)
def test_what_aiohttp_refuses_does_not_go_the_short_way(head: bytes) -> None:
    try:
        messages = by_aiohttp(with_known_method(head) + b"\r\n\r\n")
    except HttpProcessingError:
        messages = []
    if not messages:
        assert plain_request(head) is None


@given(HEADS)
def test_what_follows_a_short_request_is_the_next_one_to_both(head: bytes) -> None:
    plain = plain_request(head)
    if plain is None:
        return
    follower = b"GET /version HTTP/1.1\r\nHost: z\r\n\r\n"

    if plain[0].last:
        return
    messages = by_aiohttp(with_known_method(head) + b"\r\n\r\n" + BODY[: plain[1]] + follower)

    assert [message.path for message, _ in messages[1:]] == ["/version"]


def test_a_query_is_decoded_as_aiohttp_decodes_it() -> None:
    for text in ("a=%zz&b=%ff", "a+b=c+d", "x&y=", "a=%C3%A9&a=2", "%61=%3D", "a=b=c"):
        head = f"GET {PATH.decode()}?{text} HTTP/1.1\r\nHost: x".encode()
        message, _ = by_aiohttp(head + b"\r\n\r\n")[0]
        plain = plain_request(head)
        assert plain is None or list(message.url.query.items()) == list(plain[0].query), text
        assert plain is None or list(plain[0].query) == parse_qsl(text, keep_blank_values=True)


# What the short way knows of aiohttp

PRIVATE = {
    "_close": "told to stop taking requests",
    "_drain_helper": "waits until the transport takes more",
    "_force_close": "told to end at once",
    "_kwargs": "what the server makes its protocols with",
    "_loop": "",
    "_next_keepalive_close_time": "when an idle connection is ended",
    "_pause_transport_reading": "",
    "_paused": "whether the transport takes more",
    "_process_keepalive": "ends an idle connection",
    "_request_count": "requests that aiohttp has parsed",
    "_resume_transport_reading": "",
    "_upgraded": "the connection is another protocol's",
    "_waiter": "aiohttp waits for the next request",
}


def test_every_private_name_of_aiohttp_that_is_used_is_known_here() -> None:
    tree = ast.parse(inspect.getsource(connection))
    own: set[str] = set()
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()"):
            if isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            if node.attr.startswith("_") and not node.attr.startswith("__"):
                used.add(node.attr)
    own -= {"_close", "_force_close", "_next_keepalive_close_time", "_process_keepalive"}
    assert used - own == set(PRIVATE)


async def test_aiohttp_has_them_and_they_mean_what_they_meant() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="ok")

    server = web.Server(handler, keepalive_timeout=5.0)
    assert server._kwargs == {"keepalive_timeout": 5.0}
    protocol: Any = server()
    assert [name for name in PRIVATE if name != "_kwargs" and not hasattr(protocol, name)] == []
    transport = Recorded()
    protocol.connection_made(transport)
    assert protocol._loop is asyncio.get_running_loop()
    await asyncio.sleep(0)
    assert (protocol._request_count, protocol._upgraded, protocol._close, protocol._force_close) == (
        0,
        False,
        False,
        False,
    )
    assert protocol._waiter is not None
    assert not protocol._waiter.done()

    protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert protocol._request_count == 1
    assert protocol._waiter.done()
    for _ in range(10):
        await asyncio.sleep(0)
    assert b"ok" in transport.written
    assert not protocol._waiter.done()
    assert protocol._next_keepalive_close_time > protocol._loop.time() + 4

    protocol._pause_transport_reading()
    protocol._resume_transport_reading()
    assert transport.reading == ["pause", "resume"]
    protocol.pause_writing()
    assert protocol._paused
    protocol.resume_writing()
    assert not protocol._paused
    await protocol._drain_helper()

    protocol._next_keepalive_close_time = 0.0
    protocol._process_keepalive()
    assert transport.closed
    assert protocol._force_close
    protocol.connection_lost(None)


class Recorded(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading.append("pause")

    def resume_reading(self) -> None:
        self.reading.append("resume")


@pytest.mark.parametrize("short_way", [False, True])
async def test_without_the_short_way_aiohttp_answers_everything(short_way: bool) -> None:
    answered: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        answered.append("aiohttp")
        return web.Response()

    async def answer(request: Any, certificate: Any) -> Any:
        answered.append("short")
        return connection.Response(200, b"")

    protocol: Any = connection.Server(handler, answer, short_way=short_way)()
    protocol.connection_made(Recorded())
    protocol.data_received(FIRST[0] + b"\r\nHost: x\r\n\r\n")
    for _ in range(10):
        await asyncio.sleep(0)
    assert answered == ["short" if short_way else "aiohttp"]
    protocol.connection_lost(None)
