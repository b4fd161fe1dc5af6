"""TaintToleration: nodes with taints that the pod does not tolerate are refused (NoSchedule, NoExecute) or less liked
(PreferNoSchedule). Nodes share few distinct sets of taints, so each set is judged once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from navarch.api.meta import Obj
from navarch.numbers import integer_or
from navarch.scheduler.columns import BoolArray, FloatArray, Taint
from navarch.scheduler.framework import Change, Plugin, Refusal, scaled
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable


class TaintToleration(Plugin):
    """Keep pods off nodes with taints that they do not tolerate."""

    name = "TaintToleration"
    normalizes = True
    changes = frozenset({Change.NODE_ADDED, Change.NODE_UPDATED})

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        if nodes.alone >= 0:
            taints = nodes.taint_sets[nodes.columns.taint_set[nodes.alone]]
            return np.array((first_untolerated(taints, pod.traits.tolerations) is None,))
        good = [first_untolerated(taints, pod.traits.tolerations) is None for taints in nodes.taint_sets]
        return np.array(good, np.bool_)[nodes.taint_set]

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        reasons: Counter[str] = Counter()
        for index, count in zip(*np.unique(nodes.taint_set, return_counts=True), strict=True):
            taint = first_untolerated(nodes.taint_sets[index], pod.traits.tolerations)
            if taint is not None:
                reasons["node(s) had untolerated taint(s)"] += int(count)
        return Refusal(dict(reasons), np.zeros(len(nodes), np.bool_))

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        return any(taint.effect == "PreferNoSchedule" for taints in nodes.taint_sets for taint in taints)

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        """The number of soft taints that the pod does not tolerate."""
        bearable = [t for t in pod.traits.tolerations if (t.get("effect") or "PreferNoSchedule") == "PreferNoSchedule"]
        counts = [
            sum(1 for taint in taints if taint.effect == "PreferNoSchedule" and not tolerates(bearable, taint))
            for taints in nodes.taint_sets
        ]
        return np.array(counts, np.float64)[nodes.taint_set]

    def normalize(self, scores: FloatArray, feasible: BoolArray) -> FloatArray:
        return scaled(scores, feasible, reverse=True)


def first_untolerated(taints: Iterable[Taint], tolerations: Iterable[Obj]) -> Taint | None:
    """The first taint that keeps the pod away."""
    for taint in taints:
        if taint.effect != "PreferNoSchedule" and not tolerates(tolerations, taint):
            return taint
    return None


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Taint) -> bool:
    """Whether any of the tolerations covers the taint."""
    return any(_covers(toleration, taint) for toleration in tolerations)


def _covers(toleration: Mapping[str, Any], taint: Taint) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.effect:
        return False
    if toleration.get("key") and toleration["key"] != taint.key:
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    wanted = toleration.get("value") or ""
    if operator in ("Gt", "Lt"):
        have, bound = integer_or(taint.value, None), integer_or(wanted, None)
        if have is None or bound is None:
            return False
        return have > bound if operator == "Gt" else have < bound
    return bool(wanted == taint.value)
