"""HEAD: the head of what GET answers, and nothing else, so that a connection that is kept stays in step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from navarch.apiserver.http import HTTPFront
from navarch.apiserver.server import ApiServer
from navarch.client.transport import Request
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map

PATHS = (
    "/healthz",
    "/readyz?verbose",
    "/version",
    "/metrics",
    "/",
    "/api",
    "/apis/apps/v1",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/apis/apps/v1",
    f"{CONFIG_MAPS}/a",
    CONFIG_MAPS,
    f"{CONFIG_MAPS}?watch=1",
    "/api/v1/watch/namespaces/default/configmaps",
    f"{CONFIG_MAPS}/missing",
    "/nowhere",
    "/apis/nowhere/v1/x",
    "/api/v1/namespaces/default/pods/p/log",
    f"{CONFIG_MAPS}?limit=x",
)


@pytest.fixture
async def port(server: ApiServer, api: Api) -> AsyncIterator[int]:
    await api.ok("POST", CONFIG_MAPS, config_map("a", k="x" * 300_000))
    front = HTTPFront(server)
    yield await front.start("127.0.0.1", 0, None)
    await front.stop()


async def head_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    assert lines[0].startswith("HTTP/1.1 "), lines[0]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    return int(lines[0].split()[1]), headers


async def body_of(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers["content-length"]))
    parts: list[bytes] = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(parts)


@pytest.mark.parametrize("accepted", ["", "Accept-Encoding: gzip\r\n"])
async def test_a_kept_connection_stays_in_step(port: int, accepted: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(30):
        for path in PATHS:
            writer.write(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n{accepted}\r\n".encode())
            status, headers = await head_of(reader)
            assert headers["content-type"], path
            # Whatever came behind the head would be taken for the beginning of this answer.
            writer.write(f"GET {CONFIG_MAPS}/a HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            found, next_headers = await head_of(reader)
            body = await body_of(reader, next_headers)
            assert (found, body[:20]) == (200, b'{"apiVersion":"v1","'), path
            if "watch" not in path:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                got, got_headers = await head_of(reader)
                length = len(await body_of(reader, got_headers))
                assert got == status, path
                if path not in ("/metrics", "/readyz?verbose"):
                    # Of what is sent in pieces it is not known, to a GET neither.
                    told = "content-length" in got_headers
                    assert headers.get("content-length") == (str(length) if told else None), path
    writer.close()


@pytest.mark.parametrize("path", PATHS)
async def test_in_process_it_carries_nothing_either(server: ApiServer, api: Api, path: str) -> None:
    path, _, query = path.partition("?")
    pairs = [(name, value) for name, _, value in [query.partition("=")] if name]
    response = await server.handle(Request("HEAD", path, pairs))

    assert response.body == b""
    assert server.core.metrics.watches == 0


async def test_where_get_is_not_allowed_head_is_not(server: ApiServer, api: Api) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert (await server.handle(Request("HEAD", path))).status == 405
