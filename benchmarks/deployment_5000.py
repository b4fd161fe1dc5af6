"""Deployments of 5,000 replicas on 1,000 simulated nodes, until all pods are bound, and until all are Ready.

One Deployment flatters: its pods share one template, for which the scheduler and the API server know all answers.
`--templates 50` makes fifty, which differ in what schedulers and validation look at. With `--simulate`, `--events` and
`--leases-every 10` the nodes also write what real ones write.

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


def deployment(index: int, replicas: int) -> bytes:
    """The first is plain; of the others each has something of its own, and something that schedulers must weigh."""
    name = f"web-{index}"
    requests = {"cpu": f"{100 + index}m", "memory": f"{64 + index}Mi"}
    container: dict[str, Any] = {"name": "web", "image": f"web:{index}", "resources": {"requests": requests}}
    pod: dict[str, Any] = {"containers": [container]}
    if index:
        probe = {"httpGet": {"path": f"/ready/{index}", "port": 8080}}
        container |= {"env": [{"name": f"E{i}", "value": f"{index}-{i}"} for i in range(index % 7)]}
        container |= {"ports": [{"containerPort": 8080}], "readinessProbe": probe}
        pod |= _WEIGHED[index % len(_WEIGHED)](name)
    labels = {"app": name, "tier": f"t{index % 3}"}
    template = {"metadata": {"labels": labels, "annotations": {"made-by": f"team-{index}"}}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return json.dumps(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
    ).encode()


def _plain(name: str) -> dict[str, Any]:
    return {}


def _spread(name: str) -> dict[str, Any]:
    constraint = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    return {"topologySpreadConstraints": [{**constraint, "labelSelector": {"matchLabels": {"app": name}}}]}


def _apart(name: str) -> dict[str, Any]:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": name}}}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}


def _selecting(name: str) -> dict[str, Any]:
    return {
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Equal", "value": name, "effect": "NoSchedule"}],
    }


_WEIGHED = (_plain, _spread, _apart, _selecting)


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


async def measure(target: Target, namespace: str, replicas: int, templates: int, timeout_s: float) -> Result:
    connection, watching = await Connection.open(target), await Connection.open(target)
    bound = Bound()
    path = f"/api/v1/namespaces/{namespace}/pods?watch=true&fieldSelector=spec.nodeName!%3D"
    watching.follow(target.request("GET", path), bound.feed)
    began = time.perf_counter()
    apps = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    for index in range(templates):
        share = replicas // templates + (index < replicas % templates)
        await connection.ask(target.request("POST", apps, deployment(index, share)))
    result: Result = {"replicas": replicas, "templates": templates}
    said_s = began
    while "ready_s" not in result:
        await asyncio.sleep(0.05)
        now_s = time.perf_counter()
        if "bound_s" not in result and bound.count >= replicas:
            result["bound_s"] = round(now_s - began, 2)
        listed = json.loads(await connection.ask(target.request("GET", apps)))
        ready = sum(item.get("status", {}).get("readyReplicas", 0) for item in listed["items"])
        if ready >= replicas:
            result.setdefault("bound_s", round(now_s - began, 2))
            result["ready_s"] = round(now_s - began, 2)
        if now_s - said_s > 2:
            say(f"{now_s - began:5.1f} s: {bound.count} bound, {ready} ready")
            said_s = now_s
        if now_s - began > timeout_s:
            result |= {"timed_out": True, "bound": bound.count, "ready": ready}
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
    if options.events:
        arguments.append("--events")
    if options.leases_every is not None:
        arguments += ["--leases-every", str(options.leases_every)]
    return subprocess.Popen(arguments)


async def run_nodes(options: argparse.Namespace) -> Result:
    from navarch.client.base import Client
    from navarch.client.http import HTTPTransport
    from navarch.sim.nodes import SimulatedNodes

    target = target_of(options)
    transport = HTTPTransport(target.server, tls=target.tls, token=(lambda: target.token) if target.token else None)
    nodes = SimulatedNodes(
        Client(transport),
        options.nodes,
        name_prefix="bench-node-",
        first_address=50_000,
        labels={_LABEL: "true"},
        events=options.events or None,
        leases_every_s=options.leases_every,
    )
    await nodes.run()
    return {}


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--replicas", type=int, default=5000)
    options.add_argument("--nodes", type=int, default=1000, help="how many must be ready before it begins")
    options.add_argument("--templates", type=int, default=1, help="over how many Deployments the replicas are spread")
    options.add_argument("--events", action="store_true", help="simulated containers have events, however many nodes")
    options.add_argument("--leases-every", type=float, help="seconds between two renewals of a simulated node's lease")
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
                return {
                    "nodes": ready,
                    **await measure(target, namespace.name, chosen.replicas, chosen.templates, chosen.timeout),
                }
        finally:
            if nodes is not None:
                nodes.terminate()
                nodes.wait()
                ours = target.request("DELETE", f"/api/v1/nodes?labelSelector={_LABEL}")
                await (await Connection.open(target)).ask(ours)

    run(bench, chosen)


if __name__ == "__main__":
    main()
