"""What is cached per class of pods equals what plugins say when asked afresh, whatever happened before."""

from __future__ import annotations

import random
from typing import Any, cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.meta import Obj
from navarch.scheduler import default_profile
from navarch.scheduler.cache import SchedulerCache
from navarch.scheduler.columns import NodeColumns
from navarch.scheduler.counters import PodCounters
from navarch.scheduler.environment import Environment
from navarch.scheduler.evaluator import Evaluator
from navarch.scheduler.podinfo import PodParser
from tests.scheduler.conftest import World

ZONE = "topology.kubernetes.io/zone"


def _node(name: str, source: random.Random) -> Obj:
    labels = {"kubernetes.io/hostname": name, ZONE: source.choice("ab"), "disk": source.choice(["ssd", "hdd"])}
    taints = source.choice([[], [{"key": "k", "effect": source.choice(["NoSchedule", "PreferNoSchedule"])}]])
    allocatable = {"cpu": source.choice(["1", "4"]), "memory": "4Gi", "pods": source.choice(["2", "110"])}
    spec = {"taints": taints, "unschedulable": source.random() < 0.1}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": allocatable}}


def _pod(uid: str, source: random.Random) -> Obj:
    app = source.choice("xy")
    selector = {"labelSelector": {"matchLabels": {"app": "x"}}}
    spec: Obj = {}
    if source.random() < 0.3:
        spec["nodeSelector"] = {"disk": "ssd"}
    if source.random() < 0.3:
        spec["topologySpreadConstraints"] = [{"topologyKey": ZONE, "maxSkew": 1, **selector}]
    if source.random() < 0.3:
        kind = source.choice(["podAffinity", "podAntiAffinity"])
        term = {"topologyKey": "kubernetes.io/hostname", **selector}
        preferred = [{"weight": 10, "podAffinityTerm": term}]
        required = source.random() < 0.5
        name = ("required" if required else "preferred") + "DuringSchedulingIgnoredDuringExecution"
        spec["affinity"] = {kind: {name: [term] if required else preferred}}
    requests = {"cpu": source.choice(["100m", "1"])}
    spec["containers"] = [{"name": "c", "image": "i", "resources": {"requests": requests}}]
    metadata = {"name": uid, "uid": uid, "namespace": "default", "labels": {"app": app}}
    return {"metadata": metadata, "spec": spec, "status": {}}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_cached_answers_equal_fresh_ones(seed: int) -> None:
    source = random.Random(seed)
    world = World()
    environment = Environment(cast(Any, world), world.informers, lambda event: None)
    columns, parser = NodeColumns(), PodParser()
    cache, counters = SchedulerCache(columns, parser), PodCounters(columns, environment)
    kept = Evaluator(default_profile(), columns, counters, environment)
    probes = [parser.parse(_pod(f"probe-{i}", source)) for i in range(4)]
    placed: dict[str, Obj] = {}
    for step in range(source.randrange(5, 60)):
        action = source.random()
        if action < 0.3:
            cache.set_node(_node(f"n{source.randrange(100)}", source))
        elif action < 0.4 and columns.rows:
            columns.remove_node(source.choice(list(columns.rows)))
        elif action < 0.8:
            pod = _pod(f"p{step}", source)
            pod["spec"]["nodeName"] = source.choice([*columns.rows, "unknown"])
            cache.set_pod(pod)
            placed[f"p{step}"] = pod
        elif placed:
            cache.remove_pod(placed.pop(source.choice(list(placed))))
        probe = source.choice(probes)
        fresh = Evaluator(default_profile(), columns, PodCounters(columns, environment), environment)
        feasible = kept.feasible(probe)
        assert np.array_equal(feasible, fresh.feasible(probe))
        if feasible.any():
            assert np.allclose(kept.totals(probe, feasible)[feasible], fresh.totals(probe, feasible)[feasible])
        else:
            diagnosis = kept.diagnose(probe)
            alive = int(np.count_nonzero(columns.alive))
            assert diagnosis.nodes == alive
            assert sum(diagnosis.reasons.values()) >= alive
    for pod in placed.values():
        cache.remove_pod(pod)
    assert not any(column.any() for column in columns.requested)
    assert not columns.nonzero_memory.any()
    assert not any(columns.term_holders.values())
    assert set(columns.rows) == {columns.names[row] for row in np.flatnonzero(columns.alive)}
