"""Preemption: where a pod fits nowhere, find the node from which removing pods of lower priority helps at least cost.

In: the refused pod and its diagnosis.  Out: a node with the fewest and least important victims, or why there is none.
Pure: pods are taken off the columns for trial and put back before anything else runs.
Invariant: every victim has lower priority than the pod, and no victim could stay.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from navarch.api.meta import Obj
from navarch.api.selectors import label_selector_of
from navarch.scheduler.columns import NodeColumns
from navarch.scheduler.environment import Environment
from navarch.scheduler.evaluator import Diagnosis, Evaluator
from navarch.scheduler.nominator import Nominator
from navarch.scheduler.podinfo import PodInfo

_LEAST_CANDIDATES = 100
_CANDIDATES_FRACTION = 0.1

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


@dataclass(slots=True)
class Outcome:
    """`node_name` is None where preemption does not help, and then `message` says why."""

    message: str = ""
    node_name: str | None = None
    victims: list[PodInfo] = field(default_factory=list)
    keeps_nomination: bool = False


@dataclass(slots=True)
class _Candidate:
    row: int
    victims: list[PodInfo]
    violations: int

    def cost(self) -> tuple[int, int, int, int]:
        """Fewer budgets violated, then a less important most important victim, then less importance in all, then
        fewer victims."""
        priorities = [victim.priority for victim in self.victims]
        # Shifted so that many victims of negative priority do not look cheaper than few.
        return self.violations, max(priorities), sum(p + 2**31 for p in priorities), len(self.victims)

    def earliest_start_of_most_important(self) -> str:
        highest = max(victim.priority for victim in self.victims)
        return min(victim.start for victim in self.victims if victim.priority == highest)


class Preemptor:
    """Looks for victims over the columns."""

    def __init__(
        self, columns: NodeColumns, environment: Environment, nominator: Nominator, source: random.Random
    ) -> None:
        self._columns = columns
        self._environment = environment
        self._nominator = nominator
        self._random = source

    def find(self, pod: PodInfo, diagnosis: Diagnosis, evaluator: Evaluator) -> Outcome:
        if pod.obj["spec"].get("preemptionPolicy") == "Never":
            return Outcome("preemption: not eligible due to preemptionPolicy=Never.")
        if self._is_waiting_for_victims(pod, diagnosis):
            return Outcome(
                "preemption: not eligible due to terminating pod on the nominated node.", keeps_nomination=True
            )
        rows = np.flatnonzero(diagnosis.curable[: self._columns.size] & self._columns.alive[: len(diagnosis.curable)])
        wanted = max(_LEAST_CANDIDATES, int(len(rows) * _CANDIDATES_FRACTION))
        offset = self._random.randrange(len(rows)) if len(rows) else 0
        candidates: list[_Candidate] = []
        without_victims = 0
        for row in np.roll(rows, -offset):
            candidate = self._dry_run(pod, int(row), evaluator)
            if candidate is None:
                without_victims += 1
            else:
                candidates.append(candidate)
                if len(candidates) >= wanted:
                    break
        if not candidates:
            return Outcome(_nothing_found(diagnosis.nodes, without_victims))
        best = _cheapest(candidates)
        return Outcome("", self._columns.names[best.row], best.victims)

    def _is_waiting_for_victims(self, pod: PodInfo, diagnosis: Diagnosis) -> bool:
        row = self._columns.rows.get(self._nominator.node_of(pod.uid) or pod.nominated_node, -1)
        if row < 0 or row >= len(diagnosis.curable) or not diagnosis.curable[row]:
            return False
        return any(other.deleting and other.priority < pod.priority for other in self._columns.pods[row].values())

    def _dry_run(self, pod: PodInfo, row: int, evaluator: Evaluator) -> _Candidate | None:
        """The victims that the node would need, None where even removing all would not help."""
        columns = self._columns
        name = columns.names[row]
        lower = [other for other in columns.pods[row].values() if other.priority < pod.priority]
        if not lower:
            return None
        promised = [
            p
            for p in self._nominator.on(name, priority=pod.priority, besides=pod.uid)
            if p.uid not in columns.pods[row]
        ]
        before = dict(columns.pods[row])
        for other in promised:
            columns.add_pod(other, name)
        for other in lower:
            columns.remove_pod(other, name)
        removed = {other.uid: other for other in lower}
        try:
            if not evaluator.fits_row(pod, row):
                return None
            violating, others = self._split_by_budget(sorted(lower, key=_importance))
            victims: list[PodInfo] = []
            violations = 0
            for group, violates in ((violating, True), (others, False)):
                for other in group:
                    columns.add_pod(other, name)
                    if evaluator.fits_row(pod, row):
                        del removed[other.uid]
                        continue
                    columns.remove_pod(other, name)
                    victims.append(other)
                    violations += violates
            return _Candidate(row, victims, violations) if victims else None
        finally:
            for other in promised:
                columns.remove_pod(other, name)
            for other in removed.values():
                columns.add_pod(other, name)
            # Trials must not change the order in which pods are looked at.
            columns.pods[row].clear()
            columns.pods[row].update(before)

    def _split_by_budget(self, pods: list[PodInfo]) -> tuple[list[PodInfo], list[PodInfo]]:
        """Pods whose removal would violate a PodDisruptionBudget, and the others; most important first."""
        allowed: dict[str, int] = {}
        violating: list[PodInfo] = []
        others: list[PodInfo] = []
        for pod in pods:
            violates = False
            for budget in self._environment.budgets.list(pod.key.namespace):
                if not _protects(budget, pod):
                    continue
                uid = budget["metadata"].get("uid", "")
                left = allowed.get(uid, int((budget.get("status") or {}).get("disruptionsAllowed") or 0)) - 1
                allowed[uid] = left
                violates = violates or left < 0
            (violating if violates else others).append(pod)
        return violating, others


def _importance(pod: PodInfo) -> tuple[int, str]:
    return -pod.priority, pod.start


def _protects(budget: Obj, pod: PodInfo) -> bool:
    if pod.key.name in ((budget.get("status") or {}).get("disruptedPods") or {}):
        return False
    if not pod.traits.labels:
        return False
    return label_selector_of((budget.get("spec") or {}).get("selector")).matches(pod.traits.labels)


def _cheapest(candidates: list[_Candidate]) -> _Candidate:
    least = min(candidate.cost() for candidate in candidates)
    equal = [candidate for candidate in candidates if candidate.cost() == least]
    # Of pods equally important, those that started last have least to lose.
    return max(equal, key=lambda candidate: candidate.earliest_start_of_most_important())


def _nothing_found(nodes: int, without_victims: int) -> str:
    parts = []
    if without_victims:
        parts.append(f"{without_victims} {NO_VICTIMS}")
    if nodes - without_victims:
        parts.append(f"{nodes - without_victims} {NOT_HELPFUL}")
    return f"preemption: 0/{nodes} nodes are available: {', '.join(sorted(parts))}."
