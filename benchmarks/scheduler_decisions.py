"""The scheduler's own CPU time per decision: pods of one template, no API server, no network.

A Deployment's pods (with Kubernetes' default spreading) are placed one after the other on simulated nodes of three
zones; each decision sees the one before. Takes no server: it measures the computation alone.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any, cast

from navarch.client import resources
from navarch.client.informer import Informers
from navarch.scheduler import default_profile
from navarch.scheduler.cache import SchedulerCache
from navarch.scheduler.columns import NodeColumns
from navarch.scheduler.counters import PodCounters
from navarch.scheduler.environment import Environment
from navarch.scheduler.evaluator import Evaluator
from navarch.scheduler.nominator import Nominator
from navarch.scheduler.podinfo import PodParser
from navarch.scheduler.selection import choose
from navarch.sim.nodeobjects import DEFAULT_CAPACITY, node_object
from navarch.world import SystemClock


def pod(number: int, controlled: bool) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": f"web-{number}", "uid": f"uid-{number}", "namespace": "default"}
    metadata["labels"] = {"app": "web"}
    if controlled:
        metadata["ownerReferences"] = [{"kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": True}]
    container = {"name": "web", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    return {"metadata": metadata, "spec": {"containers": [container]}}


def measure(nodes: int, pods: int, zones: int, spread: bool) -> dict[str, Any]:
    informers = Informers(cast(Any, None))
    environment = Environment(cast(Any, None), informers, lambda event: None)
    selector = {"selector": {"matchLabels": {"app": "web"}}}
    replica_set = {"metadata": {"name": "web", "namespace": "default", "uid": "rs"}, "spec": selector}
    informers.get(resources.REPLICA_SETS)._store(replica_set)
    columns, parser = NodeColumns(), PodParser()
    cache = SchedulerCache(columns, parser)
    evaluator = Evaluator(default_profile(), columns, PodCounters(columns, environment), environment)
    now = SystemClock().now()
    for i in range(nodes):
        labels = {"topology.kubernetes.io/zone": f"zone-{i % zones}"} if zones else {}
        cache.set_node(node_object(f"node-{i}", ("198.18.0.1",), DEFAULT_CAPACITY, labels, "v1", now))
    source, nominator = random.Random(1), Nominator()
    waiting = [parser.parse(pod(i, spread)) for i in range(pods)]
    began = time.process_time()
    for info in waiting:
        name = choose(info, evaluator, columns, nominator, source)
        assert name is not None
        cache.assume(info, name)
    per_pod = (time.process_time() - began) / pods
    return {"nodes": nodes, "pods": pods, "zones": zones, "spread": spread, "us_per_pod": round(per_pod * 1e6, 1)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--nodes", type=int, nargs="+", default=[100, 1000, 10000, 100000])
    options.add_argument("--pods", type=int, default=5000)
    options.add_argument("-o", "--output", choices=("text", "json"), default="text")
    chosen = options.parse_args()
    results = [
        measure(nodes, min(chosen.pods, 200_000_000 // nodes), zones, spread)
        for nodes in chosen.nodes
        for zones, spread in ((0, False), (0, True), (3, True))
    ]
    if chosen.output == "json":
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            print("  ".join(f"{name} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
