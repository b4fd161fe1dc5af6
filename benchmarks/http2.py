"""What a request costs the server over HTTP/2 and over HTTP/1.1: CPU per request, asked in turns.

One API server in a process of its own, over TLS, with a store in memory; requests as Go's clients send them (header
compression with a memory, a token, one connection for all over HTTP/2 and one per request in flight over HTTP/1.1).

    python benchmarks/http2.py --requests 2000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path

import hpack
import uvloop
from short_way import PODS, Server, ask_all, pod
from wire import Connection, Target

from navarch.apiserver.http import HTTPFront
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK
from navarch.client.transport import Request
from navarch.cluster import pki
from navarch.cluster.config import ClusterConfig
from navarch.http2 import frames
from navarch.store.memory import MemoryStore
from navarch.tls import tls_context

WAYS = ("HTTP/1.1", "HTTP/2")
IN_FLIGHT = 32
TOKEN = "t" * 900


async def serve(folder: Path) -> None:
    server = ApiServer(MemoryStore())
    await server.start()
    await server.handle(Request("POST", "/api/v1/namespaces", body=b'{"metadata":{"name":"default"}}'), LOOPBACK)
    front = HTTPFront(server)
    port = await front.start("127.0.0.1", 0, tls_context(folder / "apiserver.crt", folder / "apiserver.key", None))
    print(port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(time.process_time(), flush=True)


class TLSServer(Server):
    """With a certificate of its own."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        config = ClusterConfig("bench", self.folder.name)
        pki.ensure(config)
        super().__init__(__file__, str(config.pki))

    def stop(self) -> None:
        super().stop()
        self.folder.cleanup()


class Streams(asyncio.Protocol):
    """One connection of HTTP/2 with up to `IN_FLIGHT` requests at a time."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.stream = 1
        self.left: list[tuple[str, str, bytes]] = []
        self.running = 0
        self.unread = 0
        self.data = b""
        self.done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        settings = {frames.Setting.ENABLE_PUSH: 0, frames.Setting.INITIAL_WINDOW_SIZE: 4 << 20}
        transport.write(frames.PREFACE + frames.settings(settings) + frames.window_update(0, 1 << 30))

    async def ask(self, requests: list[tuple[str, str, bytes]]) -> None:
        self.left, self.done = list(reversed(requests)), asyncio.get_running_loop().create_future()
        self.transport.write(b"".join(self._next() for _ in range(min(IN_FLIGHT, len(self.left)))))
        await self.done

    def _next(self) -> bytes:
        method, path, body = self.left.pop()
        head = [(":authority", "127.0.0.1:6443"), (":method", method), (":path", path), (":scheme", "https")]
        head += [("accept", "application/json, */*"), ("authorization", f"Bearer {TOKEN}")]
        if body:
            head += [("content-type", "application/json"), ("content-length", str(len(body)))]
        head += [("user-agent", "kubectl/v1.37.0 (linux/amd64)"), ("accept-encoding", "gzip")]
        stream, self.stream = self.stream, self.stream + 2
        self.running += 1
        out = frames.header_block(stream, self.encoder.encode(head), frames.FRAME, end=not body)
        return out + frames.head(len(body), frames.DATA, frames.END_STREAM, stream) + body if body else out

    def data_received(self, data: bytes) -> None:
        data, at, out = self.data + data, 0, []
        while len(data) - at >= frames.HEAD_SIZE:
            upper, lower, kind, flags, _ = frames.HEAD.unpack_from(data, at)
            end = at + frames.HEAD_SIZE + (upper << 8 | lower)
            if end > len(data):
                break
            if kind in (frames.RST_STREAM, frames.GOAWAY):
                raise SystemExit(f"refused: {data[at:end]!r}")
            self.unread += end - at if kind == frames.DATA else 0
            if kind in (frames.DATA, frames.HEADERS) and flags & frames.END_STREAM:
                self.running -= 1
                if self.left:
                    out.append(self._next())
            elif kind == frames.SETTINGS and not flags:
                out.append(frames.SETTINGS_ACK)
            at = end
        self.data = data[at:]
        if self.unread >= 4096:
            out.append(frames.window_update(0, self.unread))
            self.unread = 0
        if out:
            self.transport.write(b"".join(out))
        if not self.running and self.done is not None and not self.done.done():
            self.done.set_result(None)


async def measure(server: Server, requests: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU microseconds per request, by what is asked and by way."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    target = Target(f"https://127.0.0.1:{server.ready}", tls, TOKEN)
    connections = [await Connection.open(target) for _ in range(IN_FLIGHT)]
    tls.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    _, streams = await loop.create_connection(Streams, "127.0.0.1", server.ready, ssl=tls)
    for number in range(500):
        await connections[0].ask(target.request("POST", PODS, pod(f"read-{number}")))
    found: dict[str, dict[str, list[float]]] = {what: {way: [] for way in WAYS} for what in ("GET", "create")}
    for round_ in range(rounds):
        for what in found:
            for way in WAYS if round_ % 2 else WAYS[::-1]:
                if what == "GET":
                    asked = [("GET", f"{PODS}/read-{n % 500}", b"") for n in range(requests)]
                else:
                    names = [f"p-{round_}-{WAYS.index(way)}-{n}" for n in range(requests // 4)]
                    asked = [("POST", PODS, pod(name)) for name in names]
                before = server.cpu_s()
                if way == WAYS[1]:
                    await streams.ask(asked)
                else:
                    await ask_all(connections, [target.request(*each) for each in asked])
                found[what][way].append((server.cpu_s() - before) / len(asked) * 1e6)
    return {
        what: {way: round(statistics.median(times), 1) for way, times in ways.items()} for what, ways in found.items()
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--requests", type=int, default=2000, help="reads per round; a quarter as many creates")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        uvloop.run(serve(chosen.serve))
        return
    server = TLSServer()
    try:
        print(json.dumps(uvloop.run(measure(server, chosen.requests, chosen.rounds)), indent=2))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
