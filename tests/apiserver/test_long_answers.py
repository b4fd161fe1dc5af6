"""Long answers are put together while they are sent, and say what short ones would."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest
import yaml

from navarch.api import protobuf
from navarch.api.meta import Obj
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.pieces import PIECE, Pieces
from navarch.apiserver.server import ApiServer
from navarch.client.base import read_body
from navarch.store.base import Put
from tests.apiserver.conftest import CONFIG_MAPS, Api, config_map

TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
COUNT = 2_500


@pytest.fixture
async def many(server: ApiServer, api: Api) -> None:
    """2,500 ConfigMaps of 2 kB."""
    template: Obj = await api.ok("POST", CONFIG_MAPS, config_map("m", k="x" * 2_000))
    del template["metadata"]["resourceVersion"]
    codec = server.core.caches.by_resource()["", "configmaps"].codec
    for start in range(0, COUNT, 500):
        puts = []
        for number in range(start, start + 500):
            name = f"m-{number:05}"
            obj = {**template, "metadata": {**template["metadata"], "name": name}}
            puts.append(Put(codec.key("default", name), orjson.dumps(obj)))
        await server.store.commit(tuple(puts))
    await api.ok("DELETE", f"{CONFIG_MAPS}/m")


async def test_of_a_long_list_the_first_piece_is_there_before_the_second_is_made(api: Api, many: None) -> None:
    response = await api.send("GET", CONFIG_MAPS)

    body = response.body
    assert isinstance(body, Pieces)
    first = await anext(body)
    await api.ok("DELETE", f"{CONFIG_MAPS}/m-{COUNT - 1:05}")

    rest = await body.joined()
    assert len(first) < 2 * PIECE < len(rest)
    # All of one moment.
    names = [item["metadata"]["name"] for item in orjson.loads(first + rest)["items"]]
    assert names == [f"m-{number:05}" for number in range(COUNT)]


async def test_others_are_answered_between_two_pieces(api: Api, many: None) -> None:
    response = await api.send("GET", CONFIG_MAPS)
    assert isinstance(response.body, Pieces)
    between = 0
    async for _ in response.body:
        await api.ok("GET", f"{CONFIG_MAPS}/m-00001")
        between += 1

    assert between > COUNT * 2_000 // (2 * PIECE)


@pytest.mark.parametrize("query", ["", "pretty=true"])
@pytest.mark.parametrize("accept", ["application/json", TABLE, METADATA])
async def test_a_long_list_is_what_its_chunks_are(api: Api, many: None, accept: str, query: str) -> None:
    async def read(more: str) -> Obj:
        response = await api.send("GET", f"{CONFIG_MAPS}?{more}&{query}", accept=accept)
        answer: Obj = orjson.loads(await read_body(response))
        return answer

    field = "rows" if accept == TABLE else "items"
    chunks, token = [], ""
    while True:
        chunk = await read(f"limit=100&continue={token}")
        chunks += chunk[field]
        if not (token := chunk["metadata"].get("continue", "")):
            break

    whole = await read("")

    if accept == TABLE:
        # Ages are of the moment.
        for row in [*whole["rows"], *chunks]:
            del row["cells"]
    assert whole[field] == chunks
    assert len(chunks) == COUNT
    assert (whole["kind"], whole["apiVersion"]) == (chunk["kind"], chunk["apiVersion"])


async def test_a_long_list_is_the_same_in_yaml_and_in_protobuf(api: Api, many: None) -> None:
    plain = orjson.loads(await read_body(await api.send("GET", CONFIG_MAPS)))
    as_yaml = await read_body(await api.send("GET", f"{CONFIG_MAPS}?limit=600", accept="application/yaml"))
    message = await read_body(await api.send("GET", CONFIG_MAPS, accept=protobuf.MEDIA_TYPE))

    assert yaml.load(as_yaml, yaml.CSafeLoader)["items"] == plain["items"][:600]
    decoded = protobuf.decode(message)
    assert [item["metadata"] for item in decoded["items"]] == [item["metadata"] for item in plain["items"]]


@pytest.fixture
async def url(server: ApiServer) -> AsyncIterator[str]:
    front = HTTPFront(server)
    yield f"http://127.0.0.1:{await front.start('127.0.0.1', 0, None)}"
    await front.stop()


@pytest.mark.parametrize("accept", ["application/json", TABLE, protobuf.MEDIA_TYPE])
@pytest.mark.parametrize("way", ["short", "aiohttp"])
async def test_a_long_list_is_sent_compressed_to_who_takes_it_so(url: str, many: None, accept: str, way: str) -> None:
    # What has a fragment of a header that no plain request has goes to aiohttp.
    headers = {"accept": accept, **({"expect": "100-continue"} if way == "aiohttp" else {})}
    async with aiohttp.ClientSession(auto_decompress=False) as raw:
        async with raw.get(url + CONFIG_MAPS, headers={**headers, "accept-encoding": "identity"}) as answer:
            plain = await answer.read()
            assert "content-encoding" not in answer.headers
        async with raw.get(url + CONFIG_MAPS, headers={**headers, "accept-encoding": "gzip"}) as answer:
            packed = await answer.read()
            assert answer.headers["content-encoding"] == "gzip"

    unpacked = gzip.decompress(packed)
    assert len(packed) < len(plain) / 10
    if accept == TABLE:
        assert len(orjson.loads(unpacked)["rows"]) == len(orjson.loads(plain)["rows"]) == COUNT
    else:
        assert unpacked == plain


async def test_who_hangs_up_amid_a_long_list_leaves_nothing_running(url: str, server: ApiServer, many: None) -> None:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(f"GET {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()

    async with asyncio.timeout(30), aiohttp.ClientSession(url) as session:
        while any("_respond" in repr(task) for task in asyncio.all_tasks()):
            await asyncio.sleep(0.01)
        async with session.get(f"{CONFIG_MAPS}/m-00001") as answer:
            assert answer.status == 200
