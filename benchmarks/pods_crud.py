"""Create, get, list, patch and delete pods over TLS: rates and latencies with a number of connections.

The pods name a scheduler that does not exist, so that nothing but the API server (and its store) works on them. For
the list, pods are padded to the size of real ones, so that 15,000 of them make about 50 MB.
"""

from __future__ import annotations

import asyncio
import json
import time

from common import Namespace, Result, drive, parser, run, say, summary, target_of
from wire import Connection, Target


def pod(name: str, padding: int) -> bytes:
    """A pod as a Deployment would make it."""
    container = {
        "name": "web",
        "image": "registry.example.com/team/web:1.2.3",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "PADDING", "value": "x" * padding}] if padding else [],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "web", "tier": "front"}},
            "spec": {"schedulerName": "benchmark-none", "terminationGracePeriodSeconds": 0, "containers": [container]},
        }
    ).encode()


async def listing(target: Target, namespace: str, connection: Connection, count: int, padding: int) -> Result:
    """Fill up to `count` pods, then list them all, a few times."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    fillers = [target.request("POST", path, pod(f"filler-{i}", padding)) for i in range(count)]
    connections = [await Connection.open(target) for _ in range(32)]
    await drive(connections, fillers)
    for each in connections:
        each.close()
    times_s: list[float] = []
    size = 0
    for _ in range(5):
        began = time.perf_counter()
        size = len(await connection.ask(target.request("GET", path)))
        times_s.append(time.perf_counter() - began)
    result = summary(times_s, sum(times_s))
    return {"pods": count, "megabytes": round(size / 1e6, 1), "best_s": round(min(times_s), 3), **result}


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--pods", type=int, default=5000, help="how many to create, get, patch and delete")
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--list-pods", type=int, default=15000, help="how many to list; 0 leaves the list out")
    options.add_argument("--padding", type=int, default=850, help="bytes added to each listed pod")
    chosen = options.parse_args()
    target = target_of(chosen)

    async def bench() -> Result:
        result: Result = {}
        async with Namespace(target) as namespace:
            path = f"/api/v1/namespaces/{namespace.name}/pods"
            names = [f"pod-{i}" for i in range(chosen.pods)]
            patch = b'{"metadata":{"annotations":{"example.com/touched":"yes"}}}'
            merge = "application/merge-patch+json"
            phases = {
                "create": [target.request("POST", path, pod(name, 0)) for name in names],
                "get": [target.request("GET", f"{path}/{name}") for name in names * 4],
                "patch": [target.request("PATCH", f"{path}/{name}", patch, merge) for name in names],
                "delete": [target.request("DELETE", f"{path}/{name}") for name in names],
            }
            connections = await asyncio.gather(*(Connection.open(target) for _ in range(chosen.connections)))
            for name, requests in phases.items():
                say(f"{name}: {len(requests)} requests over {chosen.connections} connections")
                result[name] = await drive(list(connections), requests)
            if chosen.list_pods:
                say(f"list: {chosen.list_pods} pods")
                connection = connections[0]
                result["list"] = await listing(target, namespace.name, connection, chosen.list_pods, chosen.padding)
                await connection.ask(target.request("DELETE", path))
        return result

    run(bench, chosen)


if __name__ == "__main__":
    main()
