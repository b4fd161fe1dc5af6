"""A Deployment of 5,000 replicas on 1,000 simulated nodes, until all pods are bound, and until all are Ready.

Start the cluster with the nodes (`navarch up --nodes 1000`), or let `--simulate` run them beside the benchmark
against any Kubernetes API server that has a scheduler and a controller manager.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from typing import Any

from common import Namespace, Result, parser, run, say, target_of
from wire import Connection, Target

_LABEL = "benchmark-node"


class Bound:
    """Counts pods that have got a node: the watch selects them, so each shows up as ADDED once."""

    _MARK = b'"type":"ADDED"'

    def __init__(self) -> None:
        self.count = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        joined = self._tail + data
        self.count += joined.count(self._MARK)
        self._tail = joined[-(len(self._MARK) - 1) :]


def deployment(replicas: int) -> bytes:
    container = {"name": "web", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return json.dumps(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    ).encode()


async def wait_for_nodes(target: Target, connection: Connection, wanted: int) -> int:
    while True:
        listed = json.loads(await connection.ask(target.request("GET", "/api/v1/nodes")))
        ready = sum(_is_ready(node) for node in listed["items"])
        if ready >= wanted:
            return ready
        say(f"{ready} of {wanted} nodes are ready")
        await asyncio.sleep(0.5)


def _is_ready(node: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", ()))


async def measure(target: Target, namespace: str, replicas: int, timeout_s: float) -> Result:
    connection, watching = await Connection.open(target), await Connection.open(target)
    bound = Bound()
    path = f"/api/v1/namespaces/{namespace}/pods?watch=true&fieldSelector=spec.nodeName!%3D"
    watching.follow(target.request("GET", path), bound.feed)
    began = time.perf_counter()
    apps = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    await connection.ask(target.request("POST", apps, deployment(replicas)))
    result: Result = {"replicas": replicas}
    said_s = began
    while "ready_s" not in result:
        await asyncio.sleep(0.05)
        now_s = time.perf_counter()
        if "bound_s" not in result and bound.count >= replicas:
            result["bound_s"] = round(now_s - began, 2)
        status = json.loads(await connection.ask(target.request("GET", f"{apps}/web/status"))).get("status", {})
        if status.get("readyReplicas", 0) >= replicas:
            result.setdefault("bound_s", round(now_s - began, 2))
            result["ready_s"] = round(now_s - began, 2)
        if now_s - said_s > 2:
            say(f"{now_s - began:5.1f} s: {bound.count} bound, {status.get('readyReplicas', 0)} ready")
            said_s = now_s
        if now_s - began > timeout_s:
            result |= {"timed_out": True, "bound": bound.count, "ready": status.get("readyReplicas", 0)}
            break
    if "bound_s" in result:
        result["bound_per_second"] = round(replicas / result["bound_s"], 1)
    return result


def simulator(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Simulated nodes in a process of their own."""
    arguments = [sys.executable, __file__, "--only-nodes", "--nodes", str(options.nodes)]
    for name in ("server", "token", "kubeconfig", "context"):
        if value := getattr(options, name):
            arguments += [f"--{name}", str(value)]
    if options.insecure:
        arguments.append("--insecure")
    return subprocess.Popen(arguments)


async def run_nodes(options: argparse.Namespace) -> Result:
    from navarch.client.base import Client
    from navarch.client.http import HTTPTransport
    from navarch.sim.nodes import SimulatedNodes

    target = target_of(options)
    transport = HTTPTransport(target.server, tls=target.tls, token=(lambda: target.token) if target.token else None)
    nodes = SimulatedNodes(
        Client(transport), options.nodes, name_prefix="bench-node-", first_address=50_000, labels={_LABEL: "true"}
    )
    await nodes.run()
    return {}


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--replicas", type=int, default=5000)
    options.add_argument("--nodes", type=int, default=1000, help="how many must be ready before it begins")
    options.add_argument("--simulate", action="store_true", help="run the nodes, too")
    options.add_argument("--only-nodes", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--timeout", type=float, default=600)
    chosen = options.parse_args()
    if chosen.only_nodes:
        run(lambda: run_nodes(chosen), chosen)
        return
    target = target_of(chosen)

    async def bench() -> Result:
        nodes = simulator(chosen) if chosen.simulate else None
        try:
            connection = await Connection.open(target)
            ready = await wait_for_nodes(target, connection, chosen.nodes)
            async with Namespace(target) as namespace:
                say(f"{ready} nodes ready; creating {chosen.replicas} replicas")
                return {"nodes": ready, **await measure(target, namespace.name, chosen.replicas, chosen.timeout)}
        finally:
            if nodes is not None:
                nodes.terminate()
                nodes.wait()
                ours = target.request("DELETE", f"/api/v1/nodes?labelSelector={_LABEL}")
                await (await Connection.open(target)).ask(ours)

    run(bench, chosen)


if __name__ == "__main__":
    main()
