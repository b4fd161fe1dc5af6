"""What cluster DNS costs: queries a second that one core answers, and how long answers take.

The server runs in a process of its own with services in memory, and is asked by UDP on loopback, over some sockets with
some queries in flight on each; takes no cluster. Queries a second on one core are queries by the server's CPU time, in
user mode and in the kernel, so that what the asking takes does not count. `--changes` has a service's endpoints change
so many times a second, which is when kept answers are forgotten.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import multiprocessing
import random
import resource
import socket
import time
from multiprocessing.connection import Connection
from typing import Any

import dns.message

from navarch.api.meta import Key
from navarch.node.dns.records import ClusterRecords, services_by_address, slices_by_service
from navarch.node.dns.server import DnsServer
from navarch.node.dns.upstream import Upstream, UpstreamConfig

_KINDS = ("A", "AAAA", "A", "SRV")


class Objects:
    """As much of an informer as records read."""

    def __init__(self, objects: list[dict[str, Any]]) -> None:
        self._objects = {(each["metadata"]["namespace"], each["metadata"]["name"]): each for each in objects}
        self._indexed: dict[str, list[dict[str, Any]]] = {}
        for each in objects:
            index = slices_by_service if "endpoints" in each else services_by_address
            for value in index(each):
                self._indexed.setdefault(value, []).append(each)

    def get(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self._objects.get((namespace, name))

    def by_index(self, _: str, value: str) -> list[dict[str, Any]]:
        return self._indexed.get(value, [])

    def list(self, namespace: str | None = None) -> list[dict[str, Any]]:
        return [each for (where, _), each in self._objects.items() if namespace in (None, where)]


def service(number: int) -> dict[str, Any]:
    headless = number % 5 == 0
    spec = {
        "clusterIP": "None" if headless else f"10.43.{number // 250}.{number % 250 + 1}",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }
    return {"metadata": {"name": f"s{number}", "namespace": f"n{number % 20}"}, "spec": spec}


def endpoint_slice(number: int) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": f"s{number}"}
    return {
        "metadata": {"name": f"s{number}-a", "namespace": f"n{number % 20}", "labels": labels},
        "endpoints": [{"addresses": [f"10.42.{number % 250}.{each}"]} for each in range(2, 5)],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


async def serve(services: int, changes: int, channel: Connection) -> None:
    """Until told to end; then how much CPU it took since it was told to begin."""
    records = ClusterRecords(
        Objects([service(number) for number in range(services)]),
        Objects([endpoint_slice(number) for number in range(services)]),
        domain="cluster.local",
        dns_ip="10.43.0.10",
    )
    server = DnsServer(records, Upstream(UpstreamConfig(servers=(("127.0.0.1", 9),))))
    channel.send(await server.start("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    source = random.Random(2)

    async def change() -> None:
        while changes:
            await asyncio.sleep(1 / changes)
            number = source.randrange(services)
            server.changed(Key(f"n{number % 20}", f"s{number}"))

    changing = loop.create_task(change())
    while True:
        words = await loop.run_in_executor(None, channel.recv)
        used = resource.getrusage(resource.RUSAGE_SELF)
        channel.send(used.ru_utime + used.ru_stime)
        if words == "end":
            break
    changing.cancel()
    await server.stop()


def run_server(services: int, changes: int, channel: Connection) -> None:
    uvloop = importlib.import_module("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(services, changes, channel))


def names(services: int, source: random.Random) -> list[bytes]:
    """Queries as a pod's resolver sends them: two in five for names that the search path makes up."""
    found = []
    for number in range(services):
        full = f"s{number}.n{number % 20}.svc.cluster.local."
        for kind in _KINDS:
            name = f"_http._tcp.{full}" if kind == "SRV" else full
            found.append(dns.message.make_query(name, kind).to_wire()[2:])
        found += [
            dns.message.make_query(f"host{number}.example.{path}", "A").to_wire()[2:]
            for path in ("default.svc.cluster.local.", "svc.cluster.local.")
        ]
    source.shuffle(found)
    return found


def ask(port: int, queries: list[bytes], count: int, in_flight: int, source: random.Random) -> list[float]:
    """Send `count` queries, each when an answer makes room; how long each took."""
    took: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        client.connect(("127.0.0.1", port))
        client.settimeout(5)
        sent_s: dict[bytes, float] = {}
        sent = 0
        while len(took) < count:
            while sent < count and len(sent_s) < in_flight:
                identifier = (sent & 0xFFFF).to_bytes(2, "big")
                sent_s[identifier] = time.perf_counter()
                client.send(identifier + source.choice(queries))
                sent += 1
            answer = client.recv(4096)
            took.append(time.perf_counter() - sent_s.pop(answer[:2]))
    return took


def measure(options: argparse.Namespace) -> dict[str, Any]:
    source = random.Random(1)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=run_server, args=(options.services, options.changes, theirs))
    process.start()
    try:
        port = ours.recv()
        queries = names(options.services, source)
        for rest in queries if options.warm else ():
            ask(port, [rest], 1, 1, source)
        ours.send("begin")
        used = ours.recv()
        began = time.perf_counter()
        took = sorted(ask(port, queries, options.queries, options.in_flight, source))
        elapsed = time.perf_counter() - began
        ours.send("end")
        cpu_s = ours.recv() - used
    finally:
        process.join(5)
        process.kill()
    return {
        "services": options.services,
        "queries": len(took),
        "per_second_of_one_core": round(len(took) / cpu_s),
        "per_second": round(len(took) / elapsed),
        "cpu_us": round(cpu_s / len(took) * 1e6, 1),
        "p50_ms": round(took[len(took) // 2] * 1e3, 3),
        "p99_ms": round(took[len(took) * 99 // 100] * 1e3, 3),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--services", type=int, default=1000)
    options.add_argument("--queries", type=int, default=100_000)
    options.add_argument("--in-flight", type=int, default=32)
    options.add_argument("--changes", type=int, default=0, help="of services, a second")
    options.add_argument("--cold", dest="warm", action="store_false", help="ask nothing before measuring")
    options.add_argument("-o", "--output", choices=("text", "json"), default="text")
    chosen = options.parse_args()
    result = measure(chosen)
    if chosen.output == "json":
        print(json.dumps(result))
        return
    print(f"{result['queries']} queries about {result['services']} services")
    print(f"one core     {result['per_second_of_one_core']} queries/s ({result['cpu_us']} µs of CPU each)")
    print(f"as asked     {result['per_second']} queries/s, p50 {result['p50_ms']} ms, p99 {result['p99_ms']} ms")


if __name__ == "__main__":
    main()
