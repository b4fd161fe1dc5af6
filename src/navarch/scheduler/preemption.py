"""Preemption: where a pod fits nowhere, find the node from which removing pods of lower priority helps at least cost.

In: the refused pod and its diagnosis.  Out: a node with the fewest and least important victims, or why there is none,
in Kubernetes' words.
Nodes are chosen over whole columns: those that have lesser pods and, without them, room. On up to a tenth of them, at
least a hundred, victims are chosen: by adding up where resources are all that matters, else by taking pods off the
columns for trial and putting them back before anything else runs; after some hundred pods the event loop has its turn.
Invariant: every victim has lower priority than the pod, and no victim could stay.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import field

import numpy as np

from navarch.api.meta import Obj
from navarch.api.selectors import LabelSelector, label_selector_of
from navarch.records import frozen, mutable
from navarch.scheduler.columns import PODS, BoolArray, IntArray, NodeColumns
from navarch.scheduler.environment import Environment
from navarch.scheduler.evaluator import Diagnosis, Evaluator
from navarch.scheduler.framework import Plugin, Victims
from navarch.scheduler.lesser_pods import LesserPods
from navarch.scheduler.nominator import Nominator
from navarch.scheduler.plugins.node_resources import NodeResourcesFit
from navarch.scheduler.podinfo import PodInfo

_TURN = 2000
"""Pods looked at until others have a turn: some milliseconds. Trying one on the columns costs as much as looking at
`_TRIAL_COST`."""
_TRIAL_COST = 40

PREEMPTED = "PreemptionByScheduler"
NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


@mutable
class Outcome:
    """`node_name` is None where preemption does not help, and then `message` says why."""

    message: str = ""
    node_name: str | None = None
    victims: list[PodInfo] = field(default_factory=list)
    keeps_nomination: bool = False


@mutable
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
                "preemption: not eligible due to a terminating pod on the nominated node.", keeps_nomination=True
            )
        columns = self._columns
        rows = np.flatnonzero(diagnosis.curable[: columns.size] & columns.alive[: len(diagnosis.curable)])
        profile = evaluator.profile
        wanted = min(max(profile.candidates_least, len(rows) * profile.candidates_percent // 100), len(rows))
        offset = self._random.randrange(len(rows)) if len(rows) else 0
        room = self._only_room(pod, evaluator)
        lesser = rows[self._lesser.on(pod.priority)[rows]]
        promising = np.roll(rows, -offset)
        promising = promising[self._may_help(pod, room)[promising]]
        refused: Counter[str] = Counter()
        candidates = await self._candidates(pod, promising, wanted, evaluator, room, refused)
        if not candidates:
            if room is not None:
                refused.update(self._shortages(pod, lesser, room))
            refused[NO_VICTIMS] += len(rows) - len(lesser)
            refused[NOT_HELPFUL] += diagnosis.nodes - len(rows)
            return Outcome(
                f"preemption: {Diagnosis(diagnosis.nodes, +refused, frozenset(), diagnosis.curable).message()}"
            )
        candidates = await self._sifted(pod, candidates, evaluator)
        if not candidates:
            return Outcome("preemption: no candidate node for preemption", keeps_nomination=True)
        best = _cheapest(candidates)
        return Outcome("", columns.names[best.row], best.victims)

    async def _candidates(
        self,
        pod: PodInfo,
        rows: IntArray,
        wanted: int,
        evaluator: Evaluator,
        room: Mapping[str, int] | None,
        refused: Counter[str],
    ) -> list[_Candidate]:
        """`wanted` nodes with their victims, or more until there is one that violates no budget. Others have their turn
        in between: what they change of a node that was looked at costs at most a victim in vain, as in Kubernetes,
        which looks at a snapshot. `refused` learns what trials on the columns say of nodes that do not come into
        question."""
        columns = self._columns
        found: list[_Candidate] = []
        names = [columns.names[row] for row in rows]
        budgets = _Budgets(self._environment)
        looked_at = 0
        harmless = False
        for row, name in zip(rows.tolist(), names, strict=True):
            if columns.names[row] != name or not columns.alive[row]:
                continue
            looked_at += len(columns.pods[row])
            if room is not None:
                candidate = self._reckon(pod, row, budgets, room)
            else:
                candidate = self._dry_run(pod, row, evaluator, budgets, refused)
                looked_at += _TRIAL_COST * len(columns.pods[row])
            if candidate is not None:
                found.append(candidate)
                harmless = harmless or not candidate.violations
                if harmless and len(found) >= wanted:
                    break
            if looked_at > _TURN:
                looked_at = 0
                await asyncio.sleep(0)
        return [candidate for candidate in found if columns.alive[candidate.row]]

    async def _sifted(self, pod: PodInfo, candidates: list[_Candidate], evaluator: Evaluator) -> list[_Candidate]:
        """What plugins leave of the candidates."""
        sifting = [plugin for plugin in evaluator.profile.plugins if type(plugin).sift is not Plugin.sift]
        if not sifting:
            return candidates
        columns = self._columns
        victims: Mapping[str, Victims] = {
            columns.names[one.row]: Victims(one.victims, one.violations, dict(columns.pods[one.row]))
            for one in candidates
        }
        for plugin in sifting:
            victims = await plugin.sift(pod, victims)
        return [
            _Candidate(columns.rows[name], list(found.pods), found.violations)
            for name, found in victims.items()
            if name in columns.rows
        ]

    def _is_waiting_for_victims(self, pod: PodInfo, diagnosis: Diagnosis) -> bool:
        row = self._columns.rows.get(self._nominator.node_of(pod.uid) or pod.nominated_node, -1)
        if row < 0 or row >= len(diagnosis.curable) or not diagnosis.curable[row]:
            return False
        lesser = (other for other in self._columns.pods[row].values() if other.priority < pod.priority)
        return any(other.deleting and _is_preempted(other) for other in lesser)

    def _only_room(self, pod: PodInfo, evaluator: Evaluator) -> Mapping[str, int] | None:
        """What the pod needs, where of all filters that other pods matter to, only the one of resources has a say about
        it: then victims are found by adding up."""
        table = evaluator.table()
        say = [plugin for plugin in evaluator.profile.plugins if plugin.depends_on_pods(pod, table)]
        if not say or type(say[0]) is not NodeResourcesFit or len(say) > 1:
            return None
        return {PODS: 1, **say[0].needs(pod)}

    def _may_help(self, pod: PodInfo, room: Mapping[str, int] | None) -> BoolArray:
        """Rows where there are pods of lower priority, and room enough without all of them."""
        result = self._lesser.on(pod.priority)
        for resource, wanted in (room or {}).items():
            result &= ~self._is_short(pod, resource, wanted)
        return result

    def _is_short(self, pod: PodInfo, resource: str, wanted: int) -> BoolArray:
        """Rows with too little of the resource even without all pods of lower priority."""
        columns = self._columns
        index = columns.resource(resource)
        taken = columns.requested[index] - self._lesser.below(pod.priority, resource)
        short: BoolArray = taken + wanted > columns.allocatable[index]
        return short

    def _shortages(self, pod: PodInfo, rows: IntArray, room: Mapping[str, int]) -> dict[str, int]:
        """Why the pod would not fit on these rows without the pods of lower priority: how many lack what."""
        columns = self._columns
        promised = {
            columns.rows[name]: self._promised(pod, columns.rows[name])
            for name in self._nominator.nodes()
            if name in columns.rows
        }
        counts = {}
        for resource, wanted in room.items():
            short = self._is_short(pod, resource, wanted)
            for row, others in promised.items():
                index = columns.resource(resource)
                free = (
                    columns.allocatable[index][row]
                    - columns.requested[index][row]
                    + self._lesser.below(pod.priority, resource)[row]
                )
                short[row] = free < wanted + sum(_takes(other, resource) for other in others)
            counts["Too many pods" if resource == PODS else f"Insufficient {resource}"] = int(
                np.count_nonzero(short[rows])
            )
        return counts

    def _promised(self, pod: PodInfo, row: int) -> list[PodInfo]:
        """Pods on their way to the node that come before this one."""
        columns = self._columns
        promised = self._nominator.on(columns.names[row], priority=pod.priority, besides=pod.uid)
        return [other for other in promised if other.uid not in columns.pods[row]]

    def _reckon(self, pod: PodInfo, row: int, budgets: _Budgets, wanted: Mapping[str, int]) -> _Candidate | None:
        """The victims that the node would need where only its resources matter: what `_dry_run` finds, added up."""
        columns = self._columns
        lower = [other for other in columns.pods[row].values() if other.priority < pod.priority]
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

    def _dry_run(
        self, pod: PodInfo, row: int, evaluator: Evaluator, budgets: _Budgets, refused: Counter[str]
    ) -> _Candidate | None:
        """The victims that the node would need, None where even removing all would not help: why, `refused` learns."""
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
                refused.update(evaluator.explain_row(pod, row))
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


def _is_preempted(pod: PodInfo) -> bool:
    """Whether a scheduler has taken its place away."""
    conditions = (pod.obj.get("status") or {}).get("conditions") or ()
    found: Obj = next((c for c in conditions if c.get("type") == "DisruptionTarget"), {})
    return bool(found.get("status") == "True" and found.get("reason") == PREEMPTED)


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


@frozen
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
        # As in Kubernetes, a budget whose selector is empty protects nothing from the scheduler.
        if not labels or self.selector.matches_everything or pod.key.name in self.disrupted:
            return False
        return self.selector.matches(labels)


def _importance(pod: PodInfo) -> tuple[int, str]:
    return -pod.priority, pod.start


def _cheapest(candidates: list[_Candidate]) -> _Candidate:
    least = min(candidate.cost() for candidate in candidates)
    equal = [candidate for candidate in candidates if candidate.cost() == least]
    # Of pods equally important, those that started last have least to lose.
    return max(equal, key=lambda candidate: candidate.earliest_start_of_most_important())
