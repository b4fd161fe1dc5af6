"""PodTopologySpread: keep the numbers of like pods in the domains of a topology (zones, hosts) close to each other.

Hard constraints (DoNotSchedule) filter, soft ones (ScheduleAnyway) score. Pods of services and controllers that state
no constraints are spread over zones and hosts by soft default constraints, as Kubernetes does.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np

from navarch.api.meta import Obj
from navarch.scheduler.columns import BoolArray, FloatArray, IntArray
from navarch.scheduler.counters import matches_all
from navarch.scheduler.environment import Environment
from navarch.scheduler.framework import Change, ClusterEvent, Plugin, Refusal, Scope
from navarch.scheduler.plugins.node_affinity import selected
from navarch.scheduler.plugins.taint_toleration import first_untolerated
from navarch.scheduler.podinfo import PodInfo, SpreadConstraint, Traits
from navarch.scheduler.table import NodeTable
from navarch.scheduler.terms import PodSelector, pod_selector

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"

_DEFAULTS = ((ZONE, 5), (HOSTNAME, 3))
_REMEMBERED = 1024
_IGNORED = -1.0

_SKEWED = "node(s) didn't match pod topology spread constraints"
_UNLABELLED = "node(s) didn't match pod topology spread constraints (missing required label)"


class PodTopologySpread(Plugin):
    """Spread pods over topology domains."""

    name = "PodTopologySpread"
    scope = Scope.CLUSTER
    normalizes = True
    changes = frozenset(
        {Change.NODE_ADDED, Change.NODE_UPDATED, Change.POD_ADDED, Change.POD_UPDATED, Change.POD_DELETED}
    )

    def __init__(self) -> None:
        self._soft: OrderedDict[int, tuple[int, tuple[SpreadConstraint, ...]]] = OrderedDict()

    # Filter.

    def filters(self, pod: PodInfo) -> bool:
        return any(constraint.hard for constraint in pod.traits.spread)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        unlabelled, skewed = self._verdicts(pod.traits, nodes)
        return ~(unlabelled | skewed)

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        unlabelled, skewed = self._verdicts(pod.traits, nodes)
        counts = {_UNLABELLED: int(np.count_nonzero(unlabelled)), _SKEWED: int(np.count_nonzero(skewed))}
        return Refusal({reason: count for reason, count in counts.items() if count}, skewed)

    def _verdicts(self, traits: Traits, nodes: NodeTable) -> tuple[BoolArray, BoolArray]:
        """For each node whether it lacks a label, or else would become too full of such pods."""
        whole = nodes.all()
        hard = [constraint for constraint in traits.spread if constraint.hard]
        labelled = whole.columns.alive[: len(whole)]
        for constraint in hard:
            labelled = labelled & (whole.label(constraint.topology_key) >= 0)
        unlabelled: BoolArray = np.zeros(len(whole), np.bool_)
        skewed: BoolArray = np.zeros(len(whole), np.bool_)
        for constraint in hard:
            codes = whole.label(constraint.topology_key)
            missing = codes < 0
            counted = labelled & _eligible(constraint, traits, whole)
            per_domain = self._domain_counts(constraint, whole, codes, counted)
            present = np.bincount(codes[counted], minlength=len(per_domain)) > 0
            least = int(per_domain[present].min()) if present.any() else 0
            if np.count_nonzero(present) < constraint.min_domains:
                least = 0
            own = int(_selects(constraint.selector, traits, whole.environment))
            too_many = ~missing & (per_domain[codes] + own - least > constraint.max_skew)
            unlabelled |= missing & ~skewed
            skewed |= too_many & ~unlabelled
        return unlabelled[nodes.rows], skewed[nodes.rows]

    @staticmethod
    def _domain_counts(constraint: SpreadConstraint, whole: NodeTable, codes: IntArray, counted: BoolArray) -> IntArray:
        counts = whole.counters.counts(constraint.selector, deleting=False)[: len(whole)]
        # One more element than there are values, so that the code -1 has one to point at.
        length = len(whole.label_values(constraint.topology_key)) + 1
        return np.bincount(codes[counted], weights=counts[counted], minlength=length).astype(np.int64)

    # Score.

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        return bool(self._soft_constraints(pod, nodes.environment))

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        """The weighted number of like pods in each node's domains: fewer is better."""
        traits = pod.traits
        constraints = self._soft_constraints(pod, nodes.environment)
        whole = nodes.all()
        feasible = nodes.feasible if nodes.feasible is not None else whole.columns.alive[: len(whole)]
        # Default constraints make do with the labels that there are.
        must_have_labels = bool(traits.spread)
        ignored: BoolArray | None = None
        if must_have_labels:
            ignored = np.zeros(len(whole), np.bool_)
            for constraint in constraints:
                ignored |= whole.label(constraint.topology_key) < 0
        considered = feasible if ignored is None else feasible & ~ignored
        total = np.zeros(len(whole))
        for constraint in constraints:
            codes = whole.label(constraint.topology_key)
            if constraint.topology_key == HOSTNAME:
                counts = whole.counters.counts(constraint.selector, deleting=False)[: len(whole)]
                size = int(np.count_nonzero(considered))
                total += counts * math.log(size + 2) + (constraint.max_skew - 1)
                continue
            labelled = codes >= 0
            if not labelled.any():
                continue
            counted = labelled & _eligible(constraint, traits, whole)
            per_domain = self._domain_counts(constraint, whole, codes, counted)
            size = int(np.count_nonzero(np.bincount(codes[considered & labelled])))
            points = per_domain[codes] * math.log(size + 2) + (constraint.max_skew - 1)
            total += np.where(labelled, points, 0.0)
        total = np.rint(total)
        if ignored is not None:
            total[ignored] = _IGNORED
        return total[nodes.rows]

    def normalize(self, scores: FloatArray, feasible: BoolArray) -> FloatArray:
        relevant = scores[feasible & (scores >= 0)]
        if not len(relevant):
            return np.zeros(len(scores))
        most, least = float(relevant.max()), float(relevant.min())
        result: FloatArray
        if most == 0:
            result = np.full(len(scores), 100.0)
        else:
            result = np.floor((most + least - scores) * (100 / most))
        result[scores < 0] = 0
        return result

    # Constraints.

    def _soft_constraints(self, pod: PodInfo, environment: Environment) -> tuple[SpreadConstraint, ...]:
        traits = pod.traits
        if traits.spread:
            return tuple(constraint for constraint in traits.spread if not constraint.hard)
        known = self._soft.get(traits.serial)
        if known is not None and known[0] == environment.version:
            return known[1]
        selector, settled = _default_selector(traits, environment)
        made: tuple[SpreadConstraint, ...] = ()
        if selector is not None:
            made = tuple(SpreadConstraint(key, skew, False, selector, 1, True, False) for key, skew in _DEFAULTS)
        if settled:
            self._soft[traits.serial] = (environment.version, made)
            if len(self._soft) > _REMEMBERED:
                self._soft.popitem(last=False)
        return made

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.pod is None or event.change is Change.POD_UPDATED:
            return True
        return any(
            constraint.selector.matches(event.pod.traits.namespace, event.pod.traits.labels, {})
            for constraint in pod.traits.spread
            if constraint.hard
        )


def _eligible(constraint: SpreadConstraint, traits: Traits, whole: NodeTable) -> BoolArray:
    """Nodes whose pods count: those that the pod could go to as far as the constraint honours that."""
    eligible: BoolArray = whole.columns.alive[: len(whole)]
    if constraint.honor_affinity and (traits.node_selector or traits.node_affinity is not None):
        eligible = eligible & selected(traits, whole)
    if constraint.honor_taints:
        good = [first_untolerated(taints, traits.tolerations) is None for taints in whole.taint_sets]
        eligible = eligible & np.array(good, np.bool_)[whole.taint_set]
    return eligible


def _selects(selector: PodSelector, traits: Traits, environment: Environment) -> bool:
    return matches_all((selector,), traits, environment)


def _default_selector(traits: Traits, environment: Environment) -> tuple[PodSelector | None, bool]:
    """What selects "pods like this one": its services and its controller together. The second value is False while
    the controller is not known here yet."""
    selectors: list[Obj] = []
    for service in environment.services(traits.namespace):
        chosen = (service.get("spec") or {}).get("selector")
        if chosen and all(traits.labels.get(key) == value for key, value in chosen.items()):
            selectors.append({"matchLabels": chosen})
    settled = True
    if traits.owner is not None and environment.spreads(traits.owner[0]):
        kind, name, _ = traits.owner
        owner = environment.spread_owner(kind, traits.namespace, name)
        settled = owner is not None
        selector = ((owner or {}).get("spec") or {}).get("selector")
        if selector:
            selectors.append({"matchLabels": selector} if kind == "ReplicationController" else selector)
    if not selectors:
        return None, settled
    return pod_selector([traits.namespace], selectors), settled
