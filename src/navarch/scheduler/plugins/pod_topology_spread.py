"""PodTopologySpread: keep the numbers of like pods in the domains of a topology (zones, hosts) close to each other.

Hard constraints (DoNotSchedule) filter, soft ones (ScheduleAnyway) score. Pods of services and controllers that state
no constraints are spread over zones and hosts by soft default constraints, as Kubernetes does.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

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

_SYSTEM = tuple(SpreadConstraint(key, skew, False, None, 1, True, False) for key, skew in ((ZONE, 5), (HOSTNAME, 3)))
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

    def __init__(self, defaults: Sequence[SpreadConstraint] | None = None) -> None:
        """`defaults`, whose selectors do not matter, are for pods without constraints; None stands for Kubernetes' own,
        which make do with the labels that nodes have."""
        self._defaults = _SYSTEM if defaults is None else tuple(defaults)
        self._is_system = defaults is None
        self._has_hard = any(constraint.hard for constraint in self._defaults)
        self._made: OrderedDict[int, tuple[int, tuple[SpreadConstraint, ...]]] = OrderedDict()

    # Filter.

    def filters(self, pod: PodInfo) -> bool:
        if not pod.traits.spread:
            return self._has_hard
        return any(constraint.hard for constraint in pod.traits.spread)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        unlabelled, skewed = self._verdicts(pod, nodes)
        return ~(unlabelled | skewed)

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        unlabelled, skewed = self._verdicts(pod, nodes)
        counts = {_UNLABELLED: int(np.count_nonzero(unlabelled)), _SKEWED: int(np.count_nonzero(skewed))}
        return Refusal({reason: count for reason, count in counts.items() if count}, skewed)

    def _verdicts(self, pod: PodInfo, nodes: NodeTable) -> tuple[BoolArray, BoolArray]:
        """For each node whether it lacks a label, or else would become too full of such pods."""
        traits = pod.traits
        whole = nodes.all()
        hard = [constraint for constraint in self._constraints(pod, nodes.environment) if constraint.hard]
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
        counts = _counts(constraint, whole)
        # One more element than there are values, so that the code -1 has one to point at.
        length = len(whole.label_values(constraint.topology_key)) + 1
        return np.bincount(codes[counted], weights=counts[counted], minlength=length).astype(np.int64)

    # Score.

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        return any(not constraint.hard for constraint in self._constraints(pod, nodes.environment))

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        """The weighted number of like pods in each node's domains: fewer is better."""
        traits = pod.traits
        constraints = [c for c in self._constraints(pod, nodes.environment) if not c.hard]
        whole = nodes.all()
        feasible = nodes.feasible if nodes.feasible is not None else whole.columns.alive[: len(whole)]
        must_have_labels = bool(traits.spread) or not self._is_system
        ignored: BoolArray | None = None
        if must_have_labels:
            ignored = np.zeros(len(whole), np.bool_)
            for constraint in constraints:
                ignored |= whole.label(constraint.topology_key) < 0
        considered = feasible if ignored is None else feasible & ~ignored
        total = np.zeros(len(whole))
        for constraint in constraints:
            codes = whole.label(constraint.topology_key)
            labelled = codes >= 0
            if constraint.topology_key == HOSTNAME:
                size = int(np.count_nonzero(considered))
                points = _counts(constraint, whole) * math.log(size + 2) + (constraint.max_skew - 1)
                total += points if labelled.all() else np.where(labelled, points, 0.0)
                continue
            if not labelled.any():
                # The label of zones, where nobody has such.
                continue
            everywhere = bool(labelled.all())
            counted = labelled & _eligible(constraint, traits, whole)
            if ignored is not None:
                counted &= ~ignored
            per_domain = self._domain_counts(constraint, whole, codes, counted)
            size = int(np.count_nonzero(np.bincount(codes[considered & labelled])))
            if not everywhere:
                # All nodes without the label are a domain more, as Kubernetes counts.
                size += bool((considered & ~labelled).any())
            # Weighed domain by domain, of which there are few.
            points = (per_domain * math.log(size + 2) + (constraint.max_skew - 1))[codes]
            total += points if everywhere else np.where(labelled, points, 0.0)
        np.floor(total + 0.5, out=total)
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
            result = np.floor(100 * (most + least - scores) / most)
        result[scores < 0] = 0
        return result

    # Constraints.

    def _constraints(self, pod: PodInfo, environment: Environment) -> tuple[SpreadConstraint, ...]:
        """The pod's own, or else the defaults with what selects pods like it."""
        traits = pod.traits
        if traits.spread or not self._defaults:
            return traits.spread
        known = self._made.get(traits.serial)
        if known is not None and known[0] == environment.version:
            return known[1]
        selector, settled = _default_selector(traits, environment)
        made: tuple[SpreadConstraint, ...] = ()
        if selector is not None:
            made = tuple(replace(constraint, selector=selector) for constraint in self._defaults)
        if settled:
            self._made[traits.serial] = (environment.version, made)
            if len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        return made

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.pod is None or event.change is Change.POD_UPDATED:
            return True
        if not pod.traits.spread:
            # Which pods count for defaults, services and controllers say.
            return True
        return any(
            constraint.selector.matches(event.pod.traits.namespace, event.pod.traits.labels, {})
            for constraint in pod.traits.spread
            if constraint.hard
        )


def _counts(constraint: SpreadConstraint, whole: NodeTable) -> IntArray:
    """Pods on each node that the constraint counts; none where its selector is empty, as Kubernetes has it."""
    if constraint.selector.labels and all(selector.matches_everything for selector in constraint.selector.labels):
        return np.zeros(len(whole), np.int64)
    return whole.counters.counts(constraint.selector, deleting=False)[: len(whole)]


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
