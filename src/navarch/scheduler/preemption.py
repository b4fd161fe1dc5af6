"""Preemption: where a pod fits nowhere, find the node from which removing pods of lower priority helps at least cost.

In: the refused pod and its diagnosis.  Out: a node with the fewest and least important victims, or why there is none.
Nodes are chosen over whole columns: those that have lesser pods and, without them, room. On up to a tenth of them, at
least a hundred, victims are chosen: by adding up where resources are all that matters, else by taking pods off the
columns for trial and putting them back before anything else runs; after some hundred pods the event loop has its turn.
Invariant: every victim has lower priority than the pod, and no victim could stay.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

import numpy as np

from navarch.api.meta import Obj
from navarch.api.selectors import LabelSelector, label_selector_of
from navarch.scheduler.columns import PODS, BoolArray, IntArray, NodeColumns
from navarch.scheduler.environment import Environment
from navarch.scheduler.evaluator import Diagnosis, Evaluator
from navarch.scheduler.lesser_pods import LesserPods
from navarch.scheduler.nominator import Nominator
from navarch.scheduler.plugins.node_resources import NodeResourcesFit
from navarch.scheduler.podinfo import PodInfo

_LEAST_CANDIDATES = 100
_CANDIDATES_FRACTION = 0.1
_TURN = 2000
"""Pods looked at until others have a turn: some milliseconds. Trying one on the columns costs as much as looking at
`_TRIAL_COST`."""
_TRIAL_COST = 40

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
        self._lesser = LesserPods(columns)

    async def find(self, pod: PodInfo, diagnosis: Diagnosis, evaluator: Evaluator) -> Outcome:
        if pod.obj["spec"].get("preemptionPolicy") == "Never":
            return Outcome("preemption: not eligible due to preemptionPolicy=Never.")
        if self._is_waiting_for_victims(pod, diagnosis):
            return Outcome(
                "preemption: not eligible due to terminating pod on the nominated node.", keeps_nomination=True
            )
        columns = self._columns
        rows = np.flatnonzero(diagnosis.curable[: columns.size] & columns.alive[: len(diagnosis.curable)])
        wanted = max(_LEAST_CANDIDATES, int(len(rows) * _CANDIDATES_FRACTION))
        offset = self._random.randrange(len(rows)) if len(rows) else 0
        only_room = self._is_only_room(pod, evaluator)
        promising = np.roll(rows, -offset)
        promising = promising[self._may_help(pod, only_room=only_room)[promising]]
        candidates = await self._candidates(pod, promising, wanted, evaluator, only_room=only_room)
        if not candidates:
            return Outcome(_nothing_found(diagnosis.nodes, len(rows)))
        best = _cheapest(candidates)
        return Outcome("", columns.names[best.row], best.victims)

    async def _candidates(
        self, pod: PodInfo, rows: IntArray, wanted: int, evaluator: Evaluator, *, only_room: bool
    ) -> list[_Candidate]:
        """Up to `wanted` nodes with their victims. Others have their turn in between: what they change of a node that
        was looked at costs at most a victim in vain, as in Kubernetes, which looks at a snapshot."""
        columns = self._columns
        found: list[_Candidate] = []
        names = [columns.names[row] for row in rows]
        budgets = _Budgets(self._environment)
        looked_at = 0
        for row, name in zip(rows.tolist(), names, strict=True):
            if columns.names[row] != name or not columns.alive[row]:
                continue
            looked_at += len(columns.pods[row])
            if only_room:
                candidate = self._reckon(pod, row, budgets)
            else:
                candidate = self._dry_run(pod, row, evaluator, budgets)
                looked_at += _TRIAL_COST * len(columns.pods[row])
            if candidate is not None:
                found.append(candidate)
                if len(found) >= wanted:
                    break
            if looked_at > _TURN:
                looked_at = 0
                await asyncio.sleep(0)
        return [candidate for candidate in found if columns.alive[candidate.row]]

    def _is_waiting_for_victims(self, pod: PodInfo, diagnosis: Diagnosis) -> bool:
        row = self._columns.rows.get(self._nominator.node_of(pod.uid) or pod.nominated_node, -1)
        if row < 0 or row >= len(diagnosis.curable) or not diagnosis.curable[row]:
            return False
        return any(other.deleting and other.priority < pod.priority for other in self._columns.pods[row].values())

    def _is_only_room(self, pod: PodInfo, evaluator: Evaluator) -> bool:
        """Whether of all filters that other pods matter to, only the one of resources has a say about this pod: then
        victims are found by adding up."""
        table = evaluator.table()
        say = [plugin for plugin in evaluator.profile.plugins if plugin.depends_on_pods(pod, table)]
        return all(type(plugin) is NodeResourcesFit for plugin in say)

    def _may_help(self, pod: PodInfo, *, only_room: bool) -> BoolArray:
        """Rows where there are pods of lower priority, and room enough without all of them."""
        columns, lesser = self._columns, self._lesser
        result = lesser.on(pod.priority)
        if only_room:
            for resource, wanted in pod.traits.requests.items():
                index = columns.resources.ids.get(resource)
                if wanted > 0 and index is not None:
                    taken = columns.requested[index] - lesser.below(pod.priority, resource)
                    result &= taken + wanted <= columns.allocatable[index]
        return result

    def _promised(self, pod: PodInfo, row: int) -> list[PodInfo]:
        """Pods on their way to the node that come before this one."""
        columns = self._columns
        promised = self._nominator.on(columns.names[row], priority=pod.priority, besides=pod.uid)
        return [other for other in promised if other.uid not in columns.pods[row]]

    def _reckon(self, pod: PodInfo, row: int, budgets: _Budgets) -> _Candidate | None:
        """The victims that the node would need where only its resources matter: what `_dry_run` finds, added up."""
        columns = self._columns
        lower = [other for other in columns.pods[row].values() if other.priority < pod.priority]
        wanted = {name: amount for name, amount in pod.traits.requests.items() if amount > 0}
        wanted[PODS] = 1
        free = {}
        for name in wanted:
            index = columns.resource(name)
            free[name] = int(columns.allocatable[index][row]) - int(columns.requested[index][row])
        for other, sign in [(p, -1) for p in self._promised(pod, row)] + [(p, 1) for p in lower]:
            for name in wanted:
                free[name] += sign * _takes(other, name)
        if not lower or any(free[name] < amount for name, amount in wanted.items()):
            return None
        victims: list[PodInfo] = []
        violations = 0
        for other, violates in budgets.by_importance(lower):
            if all(free[name] - _takes(other, name) >= amount for name, amount in wanted.items()):
                for name in wanted:
                    free[name] -= _takes(other, name)
            else:
                victims.append(other)
                violations += violates
        return _Candidate(row, victims, violations) if victims else None

    def _dry_run(self, pod: PodInfo, row: int, evaluator: Evaluator, budgets: _Budgets) -> _Candidate | None:
        """The victims that the node would need, None where even removing all would not help."""
        columns = self._columns
        name = columns.names[row]
        lower = [other for other in columns.pods[row].values() if other.priority < pod.priority]
        if not lower:
            return None
        promised = self._promised(pod, row)
        before = dict(columns.pods[row])
        for other in promised:
            columns.add_pod(other, name)
        for other in lower:
            columns.remove_pod(other, name)
        removed = {other.uid: other for other in lower}
        try:
            if not evaluator.fits_row(pod, row):
                return None
            victims: list[PodInfo] = []
            violations = 0
            for other, violates in budgets.by_importance(lower):
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


def _takes(pod: PodInfo, resource: str) -> int:
    return 1 if resource == PODS else pod.traits.requests.get(resource, 0)


class _Budgets:
    """The PodDisruptionBudgets, read once for all nodes that are looked at."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._by_namespace: dict[str, list[_Budget]] = {}

    def by_importance(self, pods: list[PodInfo]) -> Iterator[tuple[PodInfo, bool]]:
        """Pods in the order in which to spare them, with whether losing one would violate a budget: those first, then
        the others, each most important first."""
        allowed: dict[str, int] = {}
        violating: list[PodInfo] = []
        others: list[PodInfo] = []
        for pod in sorted(pods, key=_importance):
            violates = False
            for budget in self._of(pod.key.namespace):
                if budget.protects(pod):
                    left = allowed[budget.uid] = allowed.get(budget.uid, budget.allowed) - 1
                    violates = violates or left < 0
            (violating if violates else others).append(pod)
        for pod in violating:
            yield pod, True
        for pod in others:
            yield pod, False

    def _of(self, namespace: str) -> list[_Budget]:
        known = self._by_namespace.get(namespace)
        if known is None:
            known = [_Budget.read(budget) for budget in self._environment.budgets.list(namespace)]
            self._by_namespace[namespace] = known
        return known


@dataclass(frozen=True, slots=True)
class _Budget:
    uid: str
    selector: LabelSelector
    allowed: int
    disrupted: Container[str]
    """Names of pods whose loss has been counted already."""

    @classmethod
    def read(cls, budget: Obj) -> _Budget:
        status = budget.get("status") or {}
        selector = label_selector_of((budget.get("spec") or {}).get("selector"))
        allowed = int(status.get("disruptionsAllowed") or 0)
        return cls(budget["metadata"].get("uid", ""), selector, allowed, status.get("disruptedPods") or {})

    def protects(self, pod: PodInfo) -> bool:
        labels = pod.traits.labels
        return bool(labels) and pod.key.name not in self.disrupted and self.selector.matches(labels)


def _importance(pod: PodInfo) -> tuple[int, str]:
    return -pod.priority, pod.start


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
