"""What filters and scores say of all nodes at once equals what is found by looking at every node and every pod, one
after the other, as Kubernetes' plugins do."""

from __future__ import annotations

import math
import random
from typing import Any, cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.scheduler import default_profile
from navarch.scheduler.cache import SchedulerCache
from navarch.scheduler.columns import NodeColumns
from navarch.scheduler.counters import PodCounters
from navarch.scheduler.environment import Environment
from navarch.scheduler.evaluator import Evaluator
from navarch.scheduler.podinfo import PodParser
from tests.scheduler.conftest import World

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
KEYS = (ZONE, HOST)


def _node(name: str, source: random.Random) -> Obj:
    labels = {HOST: name, "disk": source.choice(["ssd", "hdd"])}
    if source.random() < 0.8:
        labels[ZONE] = source.choice("abc")
    taints = [{"key": "k", "value": "v", "effect": source.choice(["NoSchedule", "PreferNoSchedule"])}]
    allocatable = {"cpu": source.choice(["1", "3"]), "memory": source.choice(["1Gi", "4Gi"]), "pods": "6"}
    spec = {"taints": taints if source.random() < 0.3 else []}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": allocatable}}


def _term(source: random.Random) -> Obj:
    return {"topologyKey": source.choice(KEYS), "labelSelector": {"matchLabels": {"app": source.choice("xy")}}}


def _pod(name: str, source: random.Random) -> Obj:
    spec: Obj = {}
    if source.random() < 0.2:
        spec["tolerations"] = [{"key": "k", "operator": "Exists"}]
    if source.random() < 0.2:
        spec["nodeSelector"] = {"disk": "ssd"}
    for group in ("podAffinity", "podAntiAffinity"):
        stated: Obj = {}
        if source.random() < 0.2:
            stated["requiredDuringSchedulingIgnoredDuringExecution"] = [_term(source)]
        if source.random() < 0.3:
            preferred = [{"weight": source.randint(1, 100), "podAffinityTerm": _term(source)}]
            stated["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
        if stated:
            spec.setdefault("affinity", {})[group] = stated
    if source.random() < 0.5:
        spec["topologySpreadConstraints"] = [
            {
                "topologyKey": key,
                "maxSkew": source.randint(1, 2),
                "whenUnsatisfiable": source.choice(["DoNotSchedule", "ScheduleAnyway"]),
                "labelSelector": {"matchLabels": {"app": source.choice("xy")}},
                "nodeTaintsPolicy": source.choice(["Honor", "Ignore"]),
            }
            for key in source.sample(KEYS, source.randint(1, 2))
        ]
    requests = {"cpu": source.choice(["100m", "1"]), "memory": source.choice(["64Mi", "1Gi"])}
    container: Obj = {"name": "c", "image": "i", "resources": {"requests": requests if source.random() < 0.8 else {}}}
    if source.random() < 0.2:
        container["ports"] = [{"containerPort": 80, "hostPort": source.choice([80, 81])}]
    spec["containers"] = [container]
    metadata = {"name": name, "uid": name, "namespace": "default", "labels": {"app": source.choice("xy")}}
    return {"metadata": metadata, "spec": spec, "status": {}}


class Oracle:
    """Nodes with their pods, looked at one by one."""

    def __init__(self, nodes: list[Obj], pods: list[Obj]) -> None:
        self.nodes = nodes
        self.on: dict[str, list[Obj]] = {node["metadata"]["name"]: [] for node in nodes}
        for pod in pods:
            self.on[pod["spec"]["nodeName"]].append(pod)

    # Parts.

    @staticmethod
    def amount(pod: Obj, resource: str, default: int = 0) -> int:
        stated = pod["spec"]["containers"][0]["resources"]["requests"].get(resource)
        if stated is None:
            return default
        return math.ceil(quantity.parse(stated) * 1000) if resource == "cpu" else int(quantity.value(stated))

    @staticmethod
    def has(node: Obj, resource: str) -> int:
        stated = node["status"]["allocatable"][resource]
        return int(quantity.parse(stated) * 1000) if resource == "cpu" else int(quantity.value(stated))

    def used(self, node: Obj, resource: str, default: int = 0) -> int:
        return sum(self.amount(pod, resource, default) for pod in self.on[node["metadata"]["name"]])

    @staticmethod
    def tolerates(pod: Obj, node: Obj, effect: str) -> bool:
        return not any(t["effect"] == effect for t in node["spec"]["taints"]) or bool(pod["spec"].get("tolerations"))

    @staticmethod
    def selects(term: Obj, pod: Obj) -> bool:
        return bool(term["labelSelector"]["matchLabels"]["app"] == pod["metadata"]["labels"]["app"])

    @staticmethod
    def terms(pod: Obj, group: str, when: str) -> list[Obj]:
        affinity = (pod["spec"].get("affinity") or {}).get(group) or {}
        return list(affinity.get(f"{when}DuringSchedulingIgnoredDuringExecution") or ())

    @staticmethod
    def selected(pod: Obj, node: Obj) -> bool:
        return all(node["metadata"]["labels"].get(k) == v for k, v in pod["spec"].get("nodeSelector", {}).items())

    def together(self, node: Obj, key: str) -> list[Obj]:
        """The pods in the node's domain; none where it has none."""
        value = node["metadata"]["labels"].get(key)
        if value is None:
            return []
        inside = [other for other in self.nodes if other["metadata"]["labels"].get(key) == value]
        return [pod for other in inside for pod in self.on[other["metadata"]["name"]]]

    # Filters.

    def fits(self, pod: Obj, node: Obj) -> bool:
        checks = (self.has_room, self.has_ports, self.is_affine, self.is_apart, self.is_even)
        if not self.tolerates(pod, node, "NoSchedule") or not self.selected(pod, node):
            return False
        return all(check(pod, node) for check in checks)

    def has_room(self, pod: Obj, node: Obj) -> bool:
        if len(self.on[node["metadata"]["name"]]) >= self.has(node, "pods"):
            return False
        wanted = {resource: self.amount(pod, resource) for resource in ("cpu", "memory")}
        return all(self.used(node, r) + w <= self.has(node, r) for r, w in wanted.items() if w)

    def has_ports(self, pod: Obj, node: Obj) -> bool:
        def ports(one: Obj) -> set[int]:
            return {port["hostPort"] for port in one["spec"]["containers"][0].get("ports", ())}

        return all(ports(pod).isdisjoint(ports(other)) for other in self.on[node["metadata"]["name"]])

    def is_affine(self, pod: Obj, node: Obj) -> bool:
        for term in self.terms(pod, "podAffinity", "required"):
            if term["topologyKey"] not in node["metadata"]["labels"]:
                return False
            if any(self.selects(term, other) for other in self.together(node, term["topologyKey"])):
                continue
            labelled = [n for n in self.nodes if term["topologyKey"] in n["metadata"]["labels"]]
            anybody = any(self.selects(term, p) for n in labelled for p in self.on[n["metadata"]["name"]])
            if anybody or not self.selects(term, pod):
                return False
        return True

    def is_apart(self, pod: Obj, node: Obj) -> bool:
        for term in self.terms(pod, "podAntiAffinity", "required"):
            if any(self.selects(term, other) for other in self.together(node, term["topologyKey"])):
                return False
        for key in KEYS:
            for other in self.together(node, key):
                for term in self.terms(other, "podAntiAffinity", "required"):
                    if term["topologyKey"] == key and self.selects(term, pod):
                        return False
        return True

    def domains(self, pod: Obj, constraint: Obj, all_of: list[str]) -> dict[str, int]:
        """How many pods count in each domain, over nodes that have all of the labels and that the pod could go to."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            if any(key not in node["metadata"]["labels"] for key in all_of) or not self.selected(pod, node):
                continue
            if constraint["nodeTaintsPolicy"] == "Honor" and not self.tolerates(pod, node, "NoSchedule"):
                continue
            value = node["metadata"]["labels"][constraint["topologyKey"]]
            here = sum(self.selects(constraint, other) for other in self.on[node["metadata"]["name"]])
            counts[value] = counts.get(value, 0) + here
        return counts

    def constraints(self, pod: Obj, when: str) -> tuple[list[Obj], list[str]]:
        stated = pod["spec"].get("topologySpreadConstraints", ())
        chosen = [constraint for constraint in stated if constraint["whenUnsatisfiable"] == when]
        return chosen, [constraint["topologyKey"] for constraint in chosen]

    def is_even(self, pod: Obj, node: Obj) -> bool:
        chosen, keys = self.constraints(pod, "DoNotSchedule")
        for constraint in chosen:
            value = node["metadata"]["labels"].get(constraint["topologyKey"])
            if value is None:
                return False
            counts = self.domains(pod, constraint, keys)
            own = int(self.selects(constraint, pod))
            if counts.get(value, 0) + own - min(counts.values(), default=0) > constraint["maxSkew"]:
                return False
        return True

    # Scores.

    def totals(self, pod: Obj, feasible: list[Obj]) -> list[float]:
        parts = {
            "TaintToleration": (3, self.bearable(pod, feasible)),
            "NodeResourcesFit": (1, [self.free(pod, node) for node in feasible]),
            "NodeResourcesBalancedAllocation": (1, [self.balance(pod, node) for node in feasible]),
            "PodTopologySpread": (2, self.evenness(pod, feasible)),
            "InterPodAffinity": (2, self.company(pod, feasible)),
        }
        return [sum(weight * scores[index] for weight, scores in parts.values()) for index in range(len(feasible))]

    def bearable(self, pod: Obj, feasible: list[Obj]) -> list[int]:
        counts = [int(not self.tolerates(pod, node, "PreferNoSchedule")) for node in feasible]
        most = max(counts)
        return [100 - count * 100 // most if most else 100 for count in counts]

    def free(self, pod: Obj, node: Obj) -> int:
        total = 0
        for resource, default in (("cpu", 100), ("memory", 200 * 1024 * 1024)):
            used = self.used(node, resource, default) + self.amount(pod, resource, default)
            total += max(self.has(node, resource) - used, 0) * 100 // self.has(node, resource)
        return total // 2

    def balance(self, pod: Obj, node: Obj) -> int:
        if not self.amount(pod, "cpu") and not self.amount(pod, "memory"):
            return 0

        def score(more: bool) -> int:
            shares = [
                min((self.used(node, r) + (self.amount(pod, r) if more else 0)) / self.has(node, r), 1.0)
                for r in ("cpu", "memory")
            ]
            return int((1 - abs((shares[0] - shares[1]) / 2)) * 100)

        return 50 + (50 + score(True) - score(False)) // 2

    def evenness(self, pod: Obj, feasible: list[Obj]) -> list[int]:
        chosen, keys = self.constraints(pod, "ScheduleAnyway")
        if not chosen:
            return [0] * len(feasible)
        heard = [node for node in feasible if all(key in node["metadata"]["labels"] for key in keys)]
        raw: dict[str, int] = {}
        for node in heard:
            score = 0.0
            for constraint in chosen:
                key = constraint["topologyKey"]
                value = node["metadata"]["labels"][key]
                if key == HOST:
                    size, count = (
                        len(heard),
                        sum(self.selects(constraint, p) for p in self.on[node["metadata"]["name"]]),
                    )
                else:
                    size = len({one["metadata"]["labels"][key] for one in heard})
                    count = self.domains(pod, constraint, keys).get(value, 0)
                score += count * math.log(size + 2) + constraint["maxSkew"] - 1
            raw[node["metadata"]["name"]] = math.floor(score + 0.5)
        most, least = max(raw.values(), default=0), min(raw.values(), default=0)
        scores = {name: 100 * (most + least - value) // most if most else 100 for name, value in raw.items()}
        return [scores.get(node["metadata"]["name"], 0) for node in feasible]

    def company(self, pod: Obj, feasible: list[Obj]) -> list[int]:
        raw = [self.liking(pod, node) for node in feasible]
        least, most = min(raw), max(raw)
        return [int(100 * ((one - least) / (most - least))) if most > least else 0 for one in raw]

    def liking(self, pod: Obj, node: Obj) -> int:
        total = 0
        for group, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
            for stated in self.terms(pod, group, "preferred"):
                term = stated["podAffinityTerm"]
                there = self.together(node, term["topologyKey"])
                total += sign * stated["weight"] * sum(self.selects(term, other) for other in there)
            for key in KEYS:
                for other in self.together(node, key):
                    for stated in self.terms(other, group, "preferred"):
                        term = stated["podAffinityTerm"]
                        if term["topologyKey"] == key and self.selects(term, pod):
                            total += sign * stated["weight"]
                    for term in self.terms(other, group, "required") if sign > 0 else ():
                        if term["topologyKey"] == key and self.selects(term, pod):
                            total += 1
        return total


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_all_nodes_at_once_equal_every_node_by_itself(seed: int) -> None:
    source = random.Random(seed)
    nodes = [_node(f"n{i}", source) for i in range(source.randint(1, 6))]
    placed = [_pod(f"p{i}", source) for i in range(source.randint(0, 10))]
    world = World()
    environment = Environment(cast(Any, world), world.informers, lambda event: None)
    columns, parser = NodeColumns(), PodParser()
    cache = SchedulerCache(columns, parser)
    evaluator = Evaluator(default_profile(), columns, PodCounters(columns, environment), environment)
    for node in nodes:
        cache.set_node(node)
    probe = _pod("probe", source)
    info = parser.parse(probe)
    for count, pod in enumerate(placed):
        pod["spec"]["nodeName"] = source.choice(nodes)["metadata"]["name"]
        cache.set_pod(pod)
        oracle = Oracle(nodes, placed[: count + 1])
        found = evaluator.feasible(info)

        assert [bool(fits) for fits in found] == [oracle.fits(probe, node) for node in nodes]

        rows = np.flatnonzero(found)
        if len(rows):
            totals = evaluator.totals(info, found)[rows]
            expected = np.array(oracle.totals(probe, [nodes[row] for row in rows]))
            # What a plugin would give to all alike it need not give.
            assert (totals - totals[0]).tolist() == (expected - expected[0]).tolist()
