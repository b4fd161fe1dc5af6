"""What the short way past aiohttp (`apiserver/connection.py`) brings: CPU per request with it and without.

One API server in a process of its own, with a front of each kind, asked in turns: whatever else the machine does falls
on both. Without TLS and with a store in memory, whose costs are the same either way.

    python benchmarks/short_way.py --requests 4000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time

import uvloop
from wire import Connection, Target

from navarch.apiserver.http import HTTPFront
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK
from navarch.client.transport import Request
from navarch.store.memory import MemoryStore

PODS = "/api/v1/namespaces/default/pods"
WAYS = ("short way", "aiohttp")


def pod(name: str) -> bytes:
    spec = {"schedulerName": "benchmark-none", "containers": [{"name": "web", "image": "registry.example.com/web:1"}]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).encode()


async def serve() -> None:
    server = ApiServer(MemoryStore())
    await server.start()
    await server.handle(Request("POST", "/api/v1/namespaces", body=b'{"metadata":{"name":"default"}}'), LOOPBACK)
    ports = [await HTTPFront(server, short_way=way == WAYS[0]).start("127.0.0.1", 0, None) for way in WAYS]
    print(json.dumps(ports), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(time.process_time(), flush=True)


class Server:
    """A process that says first where it listens, `ready`, and then, for each line, how much CPU time it has taken."""

    def __init__(self, program: str, *arguments: str) -> None:
        command = [sys.executable, program, "--serve", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = json.loads(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def cpu_s(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._line())

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


async def measure(server: Server, requests: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU microseconds per request, by what is asked and by way."""
    targets = [Target(f"http://127.0.0.1:{port}", None) for port in server.ready]
    connections = [[await Connection.open(target) for _ in range(8)] for target in targets]
    await connections[0][0].ask(targets[0].request("POST", PODS, pod("read")))
    found: dict[str, dict[str, list[float]]] = {what: {way: [] for way in WAYS} for what in ("GET", "create")}
    for round_ in range(rounds):
        for what in found:
            for index, way in enumerate(WAYS):
                target = targets[index]
                if what == "GET":
                    data = [target.request("GET", f"{PODS}/read")] * requests
                else:
                    data = [target.request("POST", PODS, pod(f"p-{round_}-{index}-{n}")) for n in range(requests // 4)]
                before = server.cpu_s()
                await ask_all(connections[index], data)
                found[what][way].append((server.cpu_s() - before) / len(data) * 1e6)
    return {
        what: {way: round(statistics.median(times), 1) for way, times in ways.items()} for what, ways in found.items()
    }


async def ask_all(connections: list[Connection], data: list[bytes]) -> None:
    async def one(connection: Connection, share: list[bytes]) -> None:
        for request in share:
            await connection.ask(request)

    async with asyncio.TaskGroup() as group:
        for index, connection in enumerate(connections):
            group.create_task(one(connection, data[index :: len(connections)]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--requests", type=int, default=4000, help="reads per round; a quarter as many creates")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        uvloop.run(serve())
        return
    server = Server(__file__)
    try:
        print(json.dumps(uvloop.run(measure(server, chosen.requests, chosen.rounds)), indent=2))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
