"""What it costs the scheduler to find victims: nodes full of lesser pods, and pods that fit nowhere without preemption.

For each number of nodes: CPU time per pod, and the longest turn, during which an event loop does nothing else. Takes no
server: it measures the computation alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from typing import Any, cast

from navarch.client.informer import Informers
from navarch.scheduler import default_profile
from navarch.scheduler.cache import SchedulerCache
from navarch.scheduler.columns import NodeColumns
from navarch.scheduler.counters import PodCounters
from navarch.scheduler.environment import Environment
from navarch.scheduler.evaluator import Evaluator
from navarch.scheduler.nominator import Nominator
from navarch.scheduler.podinfo import PodParser
from navarch.scheduler.preemption import Preemptor

PODS_PER_NODE = 30


def pod(name: str, cpu: int, priority: int, node: str = "") -> dict[str, Any]:
    container = {"name": "main", "resources": {"requests": {"cpu": str(cpu)}}}
    spec: dict[str, Any] = {"containers": [container], "priority": priority, "nodeName": node}
    return {"metadata": {"name": name, "namespace": "default", "uid": name, "labels": {}}, "spec": spec}


async def measure(nodes: int, preemptors: int) -> dict[str, Any]:
    environment = Environment(cast(Any, None), Informers(cast(Any, None)), lambda _: None)
    columns, parser, nominator = NodeColumns(), PodParser(), Nominator()
    cache = SchedulerCache(columns, parser)
    evaluator = Evaluator(default_profile(), columns, PodCounters(columns, environment), environment)
    allocatable = {"cpu": str(PODS_PER_NODE), "memory": "64Gi", "pods": "110"}
    for n in range(nodes):
        cache.set_node({"metadata": {"name": f"n{n}"}, "spec": {}, "status": {"allocatable": allocatable}})
        for p in range(PODS_PER_NODE):
            cache.set_pod(pod(f"p{n}-{p}", 1, p % 3, f"n{n}"))
    preemptor = Preemptor(columns, environment, nominator, random.Random(1))
    longest = 0.0
    began = time.process_time()
    for number in range(preemptors):
        info = parser.parse(pod(f"high-{number}", 2, 10))
        finding = asyncio.ensure_future(preemptor.find(info, evaluator.diagnose(info), evaluator))
        while not finding.done():
            turn = time.process_time()
            await asyncio.sleep(0)
            longest = max(longest, time.process_time() - turn)
        node_name = finding.result().node_name
        assert node_name is not None
        nominator.set(info, node_name)
    per_pod = (time.process_time() - began) / preemptors
    return {"nodes": nodes, "ms_per_pod": round(per_pod * 1e3, 1), "longest_turn_ms": round(longest * 1e3, 1)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--nodes", type=int, nargs="+", default=[100, 1000, 5000])
    options.add_argument("--pods", type=int, default=50)
    options.add_argument("-o", "--output", choices=("text", "json"), default="text")
    chosen = options.parse_args()
    results = [asyncio.run(measure(nodes, chosen.pods)) for nodes in chosen.nodes]
    if chosen.output == "json":
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            print("  ".join(f"{name} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
