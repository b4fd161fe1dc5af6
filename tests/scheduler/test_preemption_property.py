"""Victims found by adding up are those that trials on the columns find."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any, cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.meta import Obj
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
from navarch.scheduler.preemption import Preemptor, _Budgets
from tests.growth import TRIES, collector_at_rest
from tests.scheduler.conftest import World


class Cluster:
    """Nodes full of pods, and a preemptor over them."""

    def __init__(self) -> None:
        world = World()
        self.informers = world.informers
        self.environment = Environment(cast(Any, None), cast(Informers, world.informers), lambda _: None)
        self.columns = NodeColumns()
        self.parser = PodParser()
        self.cache = SchedulerCache(self.columns, self.parser)
        counters = PodCounters(self.columns, self.environment)
        self.evaluator = Evaluator(default_profile(), self.columns, counters, self.environment)
        self.nominator = Nominator()
        self.preemptor = Preemptor(self.columns, self.environment, self.nominator, random.Random(1))
        self.world = world

    def node(self, name: str, cpu: int, pods: int = 110) -> None:
        allocatable = {"cpu": str(cpu), "memory": "64Gi", "pods": str(pods)}
        self.cache.set_node({"metadata": {"name": name}, "spec": {}, "status": {"allocatable": allocatable}})

    def pod(self, name: str, cpu: int, priority: int, node: str = "", labels: Obj | None = None) -> Obj:
        requests = {"cpu": str(cpu)} if cpu else {}
        spec: Obj = {"containers": [{"name": "c", "resources": {"requests": requests}}], "priority": priority}
        if node:
            spec["nodeName"] = node
        metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels or {}}
        pod = {"metadata": metadata, "spec": spec}
        if node:
            self.cache.set_pod(pod)
        return pod


def full_cluster(source: random.Random) -> Cluster:
    cluster = Cluster()
    for n in range(source.randint(1, 6)):
        cluster.node(f"n{n}", source.randint(1, 6), source.choice([2, 4, 110]))
        for p in range(source.randint(0, 6)):
            labels = {"app": source.choice("xy")}
            cluster.pod(f"p{n}-{p}", source.randint(0, 2), source.choice([-5, 0, 1, 7]), f"n{n}", labels)
    if source.random() < 0.5:
        budget: Obj = {"metadata": {"name": "x", "namespace": "default", "uid": "x"}}
        budget["spec"] = {"selector": {"matchLabels": {"app": "x"}}}
        budget["status"] = {"disruptionsAllowed": source.randint(0, 2)}
        cluster.world.put(resources.POD_DISRUPTION_BUDGETS, budget)
    if source.random() < 0.5:
        promised = cluster.parser.parse(cluster.pod("promised", source.randint(1, 3), source.choice([0, 9])))
        cluster.nominator.set(promised, "n0")
    return cluster


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150)
def test_adding_up_finds_the_same_victims_as_trials(seed: int) -> None:
    source = random.Random(seed)
    cluster = full_cluster(source)
    pod = cluster.parser.parse(cluster.pod("high", source.randint(0, 4), source.choice([0, 1, 5])))
    preemptor, evaluator, columns = cluster.preemptor, cluster.evaluator, cluster.columns
    budgets = _Budgets(cluster.environment)
    room = preemptor._only_room(pod, evaluator)
    assert room is not None
    helpful = preemptor._may_help(pod, room)
    refused: Counter[str] = Counter()
    lesser = [row for row in range(columns.size) if any(p.priority < pod.priority for p in columns.pods[row].values())]

    for row in range(columns.size):
        before = [np.array(column) for column in columns.requested]
        tried = preemptor._dry_run(pod, row, evaluator, budgets, refused)
        assert all((old == new).all() for old, new in zip(before, columns.requested, strict=True))
        reckoned = preemptor._reckon(pod, row, budgets, room)
        if tried is None:
            assert reckoned is None
            continue
        assert reckoned is not None
        assert helpful[row]
        assert [v.uid for v in reckoned.victims] == [v.uid for v in tried.victims]
        assert reckoned.violations == tried.violations
    if not any(preemptor._reckon(pod, row, budgets, room) for row in lesser):
        # Then people are told what is short, and are told the same.
        short = preemptor._shortages(pod, np.array(lesser, np.int64), room)
        assert {reason: count for reason, count in short.items() if count} == refused


def crowded() -> Cluster:
    cluster = Cluster()
    for n in range(1000):
        cluster.node(f"n{n}", 30)
        for p in range(30):
            cluster.pod(f"p{n}-{p}", 1, p % 3, f"n{n}")
    return cluster


async def make_room_for_a_hundred(cluster: Cluster) -> tuple[float, float]:
    """CPU seconds of the longest turn, and of all."""
    pods = [cluster.parser.parse(cluster.pod(f"high-{n}", 2, 10)) for n in range(100)]
    # The first adds up all pods once.
    cluster.preemptor._lesser.on(10)
    longest_s = 0.0
    began_s = last_s = time.process_time()

    async def find_all() -> None:
        for pod in pods:
            diagnosis = cluster.evaluator.diagnose(pod)
            outcome = await cluster.preemptor.find(pod, diagnosis, cluster.evaluator)
            assert outcome.node_name is not None
            assert [victim.priority for victim in outcome.victims] == [0, 0]
            cluster.nominator.set(pod, outcome.node_name)
            await asyncio.sleep(0)

    task = asyncio.ensure_future(find_all())
    while not task.done():
        await asyncio.sleep(0)
        now_s = time.process_time()
        longest_s = max(longest_s, now_s - last_s)
        last_s = now_s
    await task
    return longest_s, time.process_time() - began_s


def test_a_hundred_preemptors_on_a_thousand_full_nodes_leave_the_loop_its_turns() -> None:
    """By CPU time of the longest turn, in the best of several tries: other work of the machine must not count."""
    found: list[tuple[float, float]] = []
    for _ in range(TRIES):
        cluster = crowded()
        with collector_at_rest():
            found.append(asyncio.run(make_room_for_a_hundred(cluster)))
        if found[-1][0] < 0.1 and found[-1][1] < 8:
            return
    raise AssertionError(f"longest turn and whole, in seconds of CPU: {found}")
