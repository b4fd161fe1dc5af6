"""A list of 15,000 pods in all forms: its first byte, its last, the server's CPU, and what others wait meanwhile.

The one who asks for something small again and again is a process of its own: what it waits is the server's doing. The
server's CPU is told where its process is on this machine (`--pid`).

    python benchmarks/big_lists.py --pid "$(pgrep -f 'navarch.*apiserver' | head -1)"
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

from common import Namespace, Result, drive, parser, run, say, summary, target_of
from pods_crud import pod
from wire import Connection, Target

_TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
FORMS: Final = {
    "json": "accept: application/json\r\n",
    "gzip": "accept: application/json\r\naccept-encoding: gzip\r\n",
    "table": f"accept: {_TABLE}\r\n",
    "metadata": f"accept: {_METADATA}\r\n",
    "protobuf": "accept: application/vnd.kubernetes.protobuf\r\n",
    "yaml": "accept: application/yaml\r\n",
}


class Reader(asyncio.Protocol):
    """Counts an answer's bytes without keeping them, whether they come with a length or in chunks."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.ended = asyncio.get_running_loop().create_future()
        self.first_s = 0.0
        self.size = 0
        self._head = b""
        self._length: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self.first_s:
            self.first_s = time.perf_counter()
        if self._length is None:
            self._head += data
            if b"\r\n\r\n" not in self._head:
                return
            head, _, data = self._head.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                self.ended.set_exception(RuntimeError(head.decode()))
            at = head.lower().find(b"content-length:")
            self._length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else -1
        self.size += len(data)
        if (self.size == self._length or (self._length < 0 and data.endswith(b"0\r\n\r\n"))) and not self.ended.done():
            self.ended.set_result(time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error or ConnectionError("closed by the server"))


async def read(target: Target, path: str, headers: str) -> tuple[float, float, int]:
    """Seconds until the first byte and the last, and how many there were."""
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(
        Reader, target.host, target.port, ssl=target.tls, server_hostname=target.host if target.tls else None
    )
    assert reader.transport is not None
    token = f"authorization: Bearer {target.token}\r\n" if target.token else ""
    began = time.perf_counter()
    reader.transport.write(f"GET {path} HTTP/1.1\r\nhost: {target.host}\r\n{headers}{token}\r\n".encode())
    ended = await reader.ended
    reader.transport.close()
    return reader.first_s - began, ended - began, reader.size


def probe(options: argparse.Namespace, path: str, pipe: Pipe) -> None:
    """The other client's process: reads something small again and again, until it is told to stop."""
    import uvloop

    async def ask() -> None:
        target = target_of(options)
        connection = await Connection.open(target)
        request = target.request("GET", path)
        pipe.send("ready")
        waits_s: list[float] = []
        while True:
            began = time.perf_counter()
            await connection.ask(request)
            waits_s.append(time.perf_counter() - began)
            if pipe.poll():
                if pipe.recv() == "end":
                    return
                pipe.send(waits_s)
                waits_s = []
            await asyncio.sleep(0.001)

    uvloop.run(ask())


def spent_s(pid: int) -> float:
    """The process's CPU so far, by all its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir() if pid else ()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6 if pid else 0.0


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--pods", type=int, default=15_000)
    options.add_argument("--padding", type=int, default=850, help="bytes added to each pod")
    options.add_argument("--repeat", type=int, default=5)
    options.add_argument("--forms", nargs="*", default=list(FORMS), choices=list(FORMS))
    options.add_argument("--at-once", type=int, default=1, help="how many ask for the list at the same time")
    options.add_argument("--pid", type=int, default=0, help="the server's process, for its CPU")
    chosen = options.parse_args()
    target = target_of(chosen)

    async def form(path: str, headers: str, ours: Pipe) -> Result:
        loop = asyncio.get_running_loop()
        firsts_s, lasts_s, cpus_s, waits_s, size = [], [], [], [], 0
        for _ in range(chosen.repeat):
            ours.send("reset")
            await loop.run_in_executor(None, ours.recv)
            before = spent_s(chosen.pid)
            found = await asyncio.gather(*(read(target, path, headers) for _ in range(chosen.at_once)))
            cpus_s.append(spent_s(chosen.pid) - before)
            ours.send("reset")
            waits_s += await loop.run_in_executor(None, ours.recv)
            firsts_s += [first for first, _, _ in found]
            lasts_s += [last for _, last, _ in found]
            size = found[0][2]
        others = summary(waits_s, 1.0)
        return {
            "megabytes": round(size / 1e6, 1),
            "first_byte_cold_ms": round(firsts_s[0] * 1000, 1),
            "first_byte_ms": round(statistics.median(firsts_s) * 1000, 1),
            "cold_s": round(lasts_s[0], 3),
            "median_s": round(statistics.median(lasts_s), 3),
            "best_s": round(min(lasts_s), 3),
            "cpu_cold_s": round(cpus_s[0], 3),
            "cpu_s": round(statistics.median(cpus_s), 3),
            "others_p50_ms": others["p50_ms"],
            "others_p99_ms": others["p99_ms"],
            "others_max_ms": round(max(waits_s) * 1000, 1),
        }

    async def bench() -> Result:
        result: Result = {}
        async with Namespace(target) as namespace:
            path = f"/api/v1/namespaces/{namespace.name}/pods"
            say(f"{chosen.pods} pods")
            before_mb = resident_mb(chosen.pid)
            connections = [await Connection.open(target) for _ in range(32)]
            await drive(
                connections,
                [target.request("POST", path, pod(f"filler-{i}", chosen.padding)) for i in range(chosen.pods)],
            )
            for each in connections:
                each.close()
            result["memory_mb"] = {"before": before_mb, "with_pods": resident_mb(chosen.pid)}
            ours, theirs = multiprocessing.Pipe()
            arguments: Any = (chosen, f"/api/v1/namespaces/{namespace.name}", theirs)
            other = multiprocessing.get_context("spawn").Process(target=probe, args=arguments)
            other.start()
            await asyncio.get_running_loop().run_in_executor(None, ours.recv)
            for name in chosen.forms:
                say(name)
                result[name] = await form(path, FORMS[name], ours)
            result["memory_mb"]["after_lists"] = resident_mb(chosen.pid)
            ours.send("end")
            other.join()
        return result

    run(bench, chosen)


if __name__ == "__main__":
    main()
