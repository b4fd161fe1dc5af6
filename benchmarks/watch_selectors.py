"""Watchers with selectors at a steady rate of writes: when events arrive, and what each costs the server.

`--for all`: every change is for every watcher (500 of them see the cost of one event each). `--for two`: each change is
for two watchers at most, and all others have to be passed over (10,000 of them). Labels select; the time of each write
is in the object, so that whoever sees it knows how old it is. Watchers are in processes of their own.

    python benchmarks/watch_selectors.py --watchers 500 --rate 150 --for all --pid PID-OF-THE-API-SERVER
    python benchmarks/watch_selectors.py --watchers 10000 --rate 200 --for two --pid PID-OF-THE-API-SERVER
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import time
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final

from big_lists import resident_mb, spent_s
from common import Namespace, Result, parser, run, say, summary, target_of
from wire import Connection

_SENT: Final = re.compile(rb'"sent":"(\d+)"')
_MARK: Final = b'","object":'
_OPENED_AT_ONCE: Final = 50


def watch(options: Any, namespace: str, numbers: range, pipe: Pipe) -> None:
    """The watchers of one process."""
    import uvloop

    async def follow() -> None:
        target = target_of(options)
        ages_s: list[float] = []
        events = [0]
        counting = [False]

        def sees(data: bytes, first: bool) -> None:
            if counting[0]:
                events[0] += data.count(_MARK)
                if first or options.whom == "two":
                    now = time.time_ns()
                    ages_s.extend((now - int(sent)) / 1e9 for sent in _SENT.findall(data))

        gate = asyncio.Semaphore(_OPENED_AT_ONCE)

        async def open_one(number: int) -> Connection:
            selector = "bench=all" if options.whom == "all" else f"id=n{number // 2}"
            path = f"/api/v1/namespaces/{namespace}/configmaps?watch=true&labelSelector={selector}"
            async with gate:
                connection = await Connection.open(target)
                connection.follow(
                    target.request("GET", f"{path}&resourceVersion=0"), lambda data: sees(data, number == numbers[0])
                )
                await asyncio.sleep(0)
            return connection

        opened = await asyncio.gather(*(open_one(number) for number in numbers))
        await asyncio.sleep(2)
        counting[0] = True
        pipe.send(len(opened))
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        pipe.send((events[0], ages_s))

    uvloop.run(follow())


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--watchers", type=int, default=500)
    options.add_argument("--rate", type=float, default=150, help="writes per second")
    options.add_argument("--seconds", type=float, default=10)
    options.add_argument("--for", dest="whom", choices=("all", "two"), default="all")
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--pid", type=int, default=0, help="the server's process, for its CPU")
    chosen = options.parse_args()
    target = target_of(chosen)

    async def bench() -> Result:
        loop = asyncio.get_running_loop()
        async with Namespace(target) as namespace:
            path = f"/api/v1/namespaces/{namespace.name}/configmaps"
            connections = [await Connection.open(target) for _ in range(8)]
            objects = 100 if chosen.whom == "all" else min(500, chosen.watchers // 2)
            # Spread over the watchers.
            stride = max(1, chosen.watchers // 2 // objects)
            for i in range(objects):
                metadata = {"name": f"map-{i}", "labels": {"bench": "all", "id": f"n{i * stride}"}}
                body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"sent": "0"}}
                await connections[0].ask(target.request("POST", path, json.dumps(body).encode()))
            before_mb, shares = resident_mb(chosen.pid), []
            for index in range(chosen.processes):
                numbers = range(index, chosen.watchers, chosen.processes)
                ours, theirs = multiprocessing.Pipe()
                arguments = (chosen, namespace.name, numbers, theirs)
                process = multiprocessing.get_context("spawn").Process(target=watch, args=arguments)
                process.start()
                shares.append((process, ours))
            opened = sum([await loop.run_in_executor(None, ours.recv) for _, ours in shares])
            say(f"{opened} watchers, {chosen.rate:g} changes per second for {chosen.seconds:g} s")
            mb = resident_mb(chosen.pid)
            before_s, began, writes = spent_s(chosen.pid), time.monotonic(), 0
            pending: set[asyncio.Task[bytes]] = set()
            while (now := time.monotonic()) < began + chosen.seconds:
                due = began + writes / chosen.rate
                if now < due:
                    await asyncio.sleep(due - now)
                patch = json.dumps({"data": {"sent": str(time.time_ns())}}).encode()
                request = target.request(
                    "PATCH", f"{path}/map-{writes % objects}", patch, "application/merge-patch+json"
                )
                pending.add(task := asyncio.create_task(connections[writes % 8].ask(request)))
                task.add_done_callback(pending.discard)
                writes += 1
                if writes % 8 == 0:
                    await asyncio.gather(*pending)
            elapsed_s = time.monotonic() - began
            await asyncio.sleep(1)
            cpu_s = spent_s(chosen.pid) - before_s
            events, ages_s = 0, []
            for process, ours in shares:
                ours.send("end")
                seen, ages = await loop.run_in_executor(None, ours.recv)
                events, ages_s = events + seen, ages_s + ages
                process.join()
            return {
                "watchers": opened,
                "writes_per_second": round(writes / elapsed_s, 1),
                "events": events,
                "events_per_write": round(events / writes, 2),
                "delivery": summary(ages_s, elapsed_s),
                "server_cpu_s": round(cpu_s, 3),
                "cpu_per_event_us": round(cpu_s / max(events, 1) * 1e6, 2),
                "cpu_per_write_us": round(cpu_s / writes * 1e6, 1),
                "memory_per_watcher_kb": round((mb - before_mb) * 1000 / max(opened, 1), 1),
            }

    run(bench, chosen)


if __name__ == "__main__":
    main()
