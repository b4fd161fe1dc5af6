"""Over real sockets: TLS-less HTTP, streams, upgrades joined to a kubelet, shutdown."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest
from aiohttp import web

from navarch.apiserver.handlers import targets
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.server import ApiServer
from tests.apiserver.conftest import Api, config_map, pod


@pytest.fixture
async def front(server: ApiServer, api: Api) -> AsyncIterator[str]:
    front = HTTPFront(server)
    port = await front.start("127.0.0.1", 0, None)
    yield f"http://127.0.0.1:{port}"
    await front.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def kubelet(monkeypatch: pytest.MonkeyPatch, api: Api) -> AsyncIterator[None]:
    """A node `n1` whose kubelet answers logs and echoes what is said to an exec."""

    async def logs(request: web.Request) -> web.Response:
        if request.match_info["container"] == "broken":
            return web.Response(status=400, text="no such log")
        return web.Response(text=f"log of {request.match_info['container']} tail={request.query.get('tailLines')}")

    async def execute(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
        await socket.prepare(request)
        await socket.send_bytes(b"\x01" + " ".join(request.query.getall("command")).encode())
        async for message in socket:
            await socket.send_bytes(b"\x01" + message.data[1:].upper())
        return socket

    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    app.router.add_get("/exec/{namespace}/{pod}/{container}", execute)
    runner = web.AppRunner(app, max_line_size=1 << 20)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setattr(targets, "unverified_tls", lambda: None)
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}})
    await api.patch("/api/v1/nodes/n1/status", {"status": status})
    await api.ok("POST", "/api/v1/namespaces/default/pods", pod("p", node="n1"))
    yield
    await runner.cleanup()


async def test_objects_over_http(front: str, session: aiohttp.ClientSession) -> None:
    path = f"{front}/api/v1/namespaces/default/configmaps"
    async with session.post(path, json=config_map("a", k="v")) as answer:
        assert answer.status == 201
    async with session.get(f"{path}/a") as answer:
        assert (await answer.json())["data"] == {"k": "v"}
        assert answer.headers["Content-Type"] == "application/json"


async def test_a_watch_streams_and_ends_at_shutdown(front: str, session: aiohttp.ClientSession, api: Api) -> None:
    async with session.get(f"{front}/api/v1/namespaces/default/configmaps?watch=true") as answer:
        await api.ok("POST", "/api/v1/namespaces/default/configmaps", config_map("a"))
        line = orjson.loads(await answer.content.readline())
        assert (line["type"], line["object"]["metadata"]["name"]) == ("ADDED", "a")

        api.server.drain()
        async with asyncio.timeout(3):
            assert await answer.content.read() == b""


async def test_a_big_list_is_compressed_for_who_takes_it(front: str, session: aiohttp.ClientSession, api: Api) -> None:
    await api.ok("POST", "/api/v1/namespaces/default/configmaps", config_map("a", k="x" * 200_000))
    path = f"{front}/api/v1/configmaps"

    async with (
        aiohttp.ClientSession(auto_decompress=False) as raw,
        raw.get(path, headers={"accept-encoding": "gzip"}) as answer,
    ):
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(orjson.loads(gzip.decompress(await answer.read()))["items"]) == 1
    async with session.get(path, headers={"accept-encoding": "identity"}) as answer:
        assert "Content-Encoding" not in answer.headers
        assert len((await answer.json())["items"]) == 1


async def test_a_log_comes_from_the_kubelet(front: str, session: aiohttp.ClientSession, kubelet: None) -> None:
    path = f"{front}/api/v1/namespaces/default/pods/p/log"
    async with session.get(f"{path}?tailLines=5") as answer:
        assert await answer.text() == "log of c tail=5"


async def test_an_exec_is_joined_to_the_kubelet(front: str, session: aiohttp.ClientSession, kubelet: None) -> None:
    url = f"{front}/api/v1/namespaces/default/pods/p/exec?command=echo&command=hi&stdin=true&stdout=true"
    async with asyncio.timeout(5), session.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
        assert socket.protocol == "v5.channel.k8s.io"
        assert await socket.receive_bytes() == b"\x01echo hi"
        await socket.send_bytes(b"\x00" + b"x" * 300_000)
        received = b""
        while len(received) < 300_001:
            received += await socket.receive_bytes()
        assert received == b"\x01" + b"X" * 300_000


async def test_a_kubelet_that_is_not_there_is_unavailable(front: str, session: aiohttp.ClientSession, api: Api) -> None:
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
    }
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n2"}})
    await api.patch("/api/v1/nodes/n2/status", {"status": status})
    await api.ok("POST", "/api/v1/namespaces/default/pods", pod("q", node="n2"))

    async with session.get(f"{front}/api/v1/namespaces/default/pods/q/log") as answer:
        assert answer.status == 503
        assert (await answer.json())["reason"] == "ServiceUnavailable"


async def test_a_long_command_fits_into_the_url(front: str, session: aiohttp.ClientSession, kubelet: None) -> None:
    url = f"{front}/api/v1/namespaces/default/pods/p/exec?stdout=true&command=" + "x" * 60_000
    async with asyncio.timeout(5), session.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
        assert await socket.receive_bytes() == b"\x01" + b"x" * 60_000


async def test_a_write_goes_on_when_its_client_hangs_up(front: str, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = api.server.store.commit
    begun, gone, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slowly(op: object) -> int:
        begun.set()
        await gone.wait()
        try:
            return await commit(op)  # type: ignore[arg-type]
        finally:
            done.set()

    monkeypatch.setattr(api.server.store, "commit", slowly)
    body = orjson.dumps(config_map("late"))
    _, writer = await asyncio.open_connection("127.0.0.1", int(front.rsplit(":", 1)[1]))
    head = f"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(20):
        await begun.wait()
        writer.close()
        await writer.wait_closed()
        # The server learns of it, too, before the commit goes on.
        await asyncio.sleep(0.05)
        gone.set()
        await done.wait()

    assert (await api("GET", "/api/v1/namespaces/default/configmaps/late"))[0] == 200
