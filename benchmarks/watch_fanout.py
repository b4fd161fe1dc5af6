"""Watch fan-out: how many events per second reach how many watchers, and how long the last one lags behind.

ConfigMaps are changed as fast as the server takes it while watchers, in a process of their own, count what arrives.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from multiprocessing.connection import Connection as Pipe
from typing import Any

from common import Namespace, Result, drive, parser, run, say, target_of
from wire import Connection, Target

_MARK = b'","object":'


class Counter:
    """Counts events in a stream of bytes, however it is cut."""

    def __init__(self) -> None:
        self.events = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        joined = self._tail + data
        self.events += joined.count(_MARK)
        self._tail = joined[-(len(_MARK) - 1) :]


def watch_all(options: Any, namespace: str, watchers: int, expected: int, pipe: Pipe) -> None:
    """The watchers' process: opens all, says so, and reports when every one has seen everything."""
    import uvloop

    async def watch() -> None:
        target = target_of(options)
        counters = [Counter() for _ in range(watchers)]
        path = f"/api/v1/namespaces/{namespace}/configmaps?watch=true&resourceVersion=0"
        ends = []
        for counter in counters:
            connection = await Connection.open(target)
            ends.append(connection.follow(target.request("GET", path), counter.feed))
        await asyncio.sleep(1)
        pipe.send("ready")
        initial = sum(counter.events for counter in counters)
        deadline_s = time.monotonic() + 300
        while sum(counter.events for counter in counters) - initial < expected * watchers:
            if time.monotonic() > deadline_s:
                break
            await asyncio.sleep(0.005)
        pipe.send((time.time(), sum(counter.events for counter in counters) - initial))

    uvloop.run(watch())


async def write(target: Target, namespace: str, events: int, objects: int) -> Result:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    merge = "application/merge-patch+json"
    requests = [
        target.request("PATCH", f"{path}/map-{i % objects}", json.dumps({"data": {"n": str(i)}}).encode(), merge)
        for i in range(events)
    ]
    connections = [await Connection.open(target) for _ in range(16)]
    return await drive(connections, requests)


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--watchers", type=int, default=100)
    options.add_argument("--events", type=int, default=2000)
    options.add_argument("--objects", type=int, default=100)
    chosen = options.parse_args()
    target = target_of(chosen)

    async def bench() -> Result:
        async with Namespace(target) as namespace:
            connection = await Connection.open(target)
            for i in range(chosen.objects):
                body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"map-{i}"}, "data": {"n": ""}}
                path = f"/api/v1/namespaces/{namespace.name}/configmaps"
                await connection.ask(target.request("POST", path, json.dumps(body).encode()))
            ours, theirs = multiprocessing.Pipe()
            arguments = (chosen, namespace.name, chosen.watchers, chosen.events, theirs)
            watching = multiprocessing.get_context("spawn").Process(target=watch_all, args=arguments)
            watching.start()
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, ours.recv)
            say(f"{chosen.watchers} watchers, {chosen.events} changes")
            began = time.time()
            writes = await write(target, namespace.name, chosen.events, chosen.objects)
            written = time.time()
            ended, received = await loop.run_in_executor(None, ours.recv)
            watching.join()
            return {
                "watchers": chosen.watchers,
                "events_received": received,
                "events_per_second": round(received / (ended - began), 1),
                "lag_after_last_write_s": round(max(ended - written, 0.0), 3),
                "writes": writes,
            }

    run(bench, chosen)


if __name__ == "__main__":
    main()
