"""Pod start: from the request that creates a pod until its status is Running and Ready, and the runtime's share of it.

At 1, 10 and 100 pods at once, on a node with real containers and an image that is there. The runtime's share is what
the kubelet's metrics say of the three calls that start a pod (sandbox, create, start), on average per pod; many pods at
once wait for each other in the runtime, which is in its share as well.
"""

from __future__ import annotations

import asyncio
import json
import re
import time

from common import Namespace, Result, parser, run, say, summary, target_of
from wire import Connection, Target

_STARTING = ("run_podsandbox", "create_container", "start_container")
_SUM = re.compile(r'kubelet_runtime_operations_duration_seconds_sum\{operation_type="(\w+)"\} (\S+)')


class Pods:
    """Follows the pods of a namespace; when each was first seen running and ready, by name."""

    def __init__(self) -> None:
        self.running: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self._rest = b""

    def feed(self, data: bytes) -> None:
        now = time.perf_counter()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            # Between the events are the lengths of the pieces that they come in.
            if not line.startswith(b"{"):
                continue
            pod = json.loads(line)["object"]
            name, status = pod["metadata"]["name"], pod.get("status") or {}
            if status.get("phase") == "Running":
                self.running.setdefault(name, now)
            conditions = status.get("conditions") or ()
            if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
                self.ready.setdefault(name, now)


def pod(name: str, image: str) -> bytes:
    """A pod that sleeps."""
    container = {"name": "c", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1d"]}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).encode()


async def runtime_s(target: Target, connection: Connection, node: str) -> dict[str, float]:
    """Seconds spent in each of the runtime's calls so far."""
    text = await connection.ask(target.request("GET", f"/api/v1/nodes/{node}/proxy/metrics"))
    return {name: float(value) for name, value in _SUM.findall(text.decode())}


async def start(target: Target, connection: Connection, node: str, image: str, count: int) -> Result:
    """Start `count` pods at once, and take them away again."""
    pods = Pods()
    async with Namespace(target, wait_until_gone=True) as namespace:
        path = f"/api/v1/namespaces/{namespace.name}/pods"
        watcher = await Connection.open(target)
        following = watcher.follow(target.request("GET", f"{path}?watch=true"), pods.feed)
        before = await runtime_s(target, connection, node)
        creators = [await Connection.open(target) for _ in range(min(count, 16))]
        queue = iter(range(count))
        created: dict[str, float] = {}

        async def create(creator: Connection) -> None:
            for number in queue:
                name = f"pod-{number}"
                created[name] = time.perf_counter()
                await creator.ask(target.request("POST", path, pod(name, image)))

        await asyncio.gather(*(create(creator) for creator in creators))
        while len(pods.ready) < count:
            await asyncio.sleep(0.01)
        after = await runtime_s(target, connection, node)
        following.cancel()
        for each in (watcher, *creators):
            each.close()
        elapsed_s = max(pods.ready.values()) - min(created.values())
        spent = {name: (after.get(name, 0.0) - before.get(name, 0.0)) / count for name in _STARTING}
        running = summary([pods.running[name] - created[name] for name in created], elapsed_s)
        ready = summary([pods.ready[name] - created[name] for name in created], elapsed_s)
        return {
            "running_p50_ms": running["p50_ms"],
            "running_p99_ms": running["p99_ms"],
            "ready_p50_ms": ready["p50_ms"],
            "ready_p99_ms": ready["p99_ms"],
            "runtime_ms": round(sum(spent.values()) * 1000, 1),
            "per_second": ready["per_second"],
        }


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--image", default="localhost/busybox:1", help="an image with `sleep` that is on the node")
    options.add_argument("--at-once", type=int, nargs="+", default=[1, 10, 100])
    options.add_argument("--rounds", type=int, default=10, help="how often a single pod is started")
    chosen = options.parse_args()
    target = target_of(chosen)

    async def bench() -> Result:
        connection = await Connection.open(target)
        nodes = json.loads(await connection.ask(target.request("GET", "/api/v1/nodes")))["items"]
        node = nodes[0]["metadata"]["name"]
        result: Result = {}
        for count in chosen.at_once:
            rounds = chosen.rounds if count == 1 else 1
            found = []
            for number in range(rounds):
                say(f"{count} at once, {number + 1} of {rounds}")
                found.append(await start(target, connection, node, chosen.image, count))
            middle = sorted(found, key=lambda one: one["ready_p50_ms"])[len(found) // 2]
            middle["overhead_ms"] = round(middle["ready_p50_ms"] - middle["runtime_ms"], 1)
            result[f"{count} at once"] = middle
        connection.close()
        return result

    run(bench, chosen)


if __name__ == "__main__":
    main()
