"""InterPodAffinity: pods that want to be, or must not be, in one topology domain with certain other pods.

Both sides count: what the pod asks of those that are there, and what those that are there ask of newcomers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from navarch.scheduler.columns import BoolArray, FloatArray, IntArray
from navarch.scheduler.counters import matches_all
from navarch.scheduler.framework import Change, Plugin, Refusal, Scope
from navarch.scheduler.podinfo import PodInfo, Traits
from navarch.scheduler.table import NodeTable
from navarch.scheduler.terms import AffinityTerm

_NO_AFFINITY = "node(s) didn't match pod affinity rules"
_ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
_EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"


class InterPodAffinity(Plugin):
    """Required and preferred affinity and anti-affinity between pods. `hard_weight` is what a required affinity of a
    pod that is there is worth to a newcomer that it wants near."""

    name = "InterPodAffinity"
    scope = Scope.CLUSTER
    normalizes = True
    changes = frozenset(
        {
            Change.NODE_ADDED,
            Change.NODE_UPDATED,
            Change.POD_ADDED,
            Change.POD_UPDATED,
            Change.POD_DELETED,
            Change.NAMESPACE,
        }
    )

    def __init__(self, hard_weight: int = 1, *, ignores_preferences_of_others: bool = False) -> None:
        groups = {"preferred_affinity": 1, "preferred_anti_affinity": -1}
        self._groups = {**groups, "affinity": hard_weight} if hard_weight else groups
        # If so, those of pods that are there do not matter to newcomers that prefer nothing themselves.
        self._to_plain = {} if ignores_preferences_of_others else self._groups

    def _heeded(self, traits: Traits) -> dict[str, int]:
        """The terms of pods that are there that count for a newcomer, and for how much."""
        return self._groups if traits.preferred_affinity or traits.preferred_anti_affinity else self._to_plain

    def depends_on_pods(self, pod: PodInfo, nodes: NodeTable) -> bool:
        traits = pod.traits
        return bool(traits.affinity or traits.anti_affinity or nodes.columns.term_holders["anti_affinity"])

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        if not self.depends_on_pods(pod, nodes):
            return np.ones(len(nodes), np.bool_)
        traits = pod.traits
        whole = nodes.all()
        good = _affine(traits, whole) & ~_repelled(traits, whole) & ~_repelled_by_others(traits, whole)
        return good[nodes.rows]

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        traits = pod.traits
        whole = nodes.all()
        missing = ~_affine(traits, whole)[nodes.rows]
        repelled = _repelled(traits, whole)[nodes.rows] & ~missing
        counts = {
            _NO_AFFINITY: int(np.count_nonzero(missing)),
            _ANTI_AFFINITY: int(np.count_nonzero(repelled)),
            _EXISTING: int(np.count_nonzero(~missing & ~repelled)),
        }
        return Refusal({reason: count for reason, count in counts.items() if count}, ~missing)

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        traits, holders = pod.traits, nodes.columns.term_holders
        return bool(
            traits.preferred_affinity
            or traits.preferred_anti_affinity
            or any(holders[group] for group in self._to_plain)
        )

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        traits = pod.traits
        whole = nodes.all()
        total = np.zeros(len(whole))
        for terms, sign in ((traits.preferred_affinity, 1), (traits.preferred_anti_affinity, -1)):
            for term in terms:
                counts = whole.counters.counts(term.selector)
                total += sign * term.weight * in_domain(term.topology_key, counts, whole)
        for group, sign in self._heeded(traits).items():
            for term, holders in whole.columns.term_holders[group].items():
                if _meant(term, traits, whole):
                    total += sign * max(term.weight, 1) * in_domain(term.topology_key, holders, whole)
        return total[nodes.rows]

    def normalize(self, scores: FloatArray, feasible: BoolArray) -> FloatArray:
        relevant = scores[feasible]
        if not len(relevant):
            return scores
        least, most = float(relevant.min()), float(relevant.max())
        if most == least:
            return np.zeros(len(scores))
        # In this order Kubernetes rounds.
        result: FloatArray = np.floor(100 * ((scores - least) / (most - least)))
        return result


def in_domain(topology_key: str, counts: IntArray, whole: NodeTable) -> IntArray:
    """For each node the sum of `counts` over its topology domain; 0 for nodes without the label."""
    codes = whole.label(topology_key)
    labelled = codes >= 0
    length = len(whole.label_values(topology_key)) + 1
    alive = labelled & whole.columns.alive[: len(whole)]
    sums = np.bincount(codes[alive], weights=counts[: len(whole)][alive], minlength=length).astype(np.int64)
    return np.where(labelled, sums[codes], 0)


def _affine(traits: Traits, whole: NodeTable) -> BoolArray:
    """Nodes whose domains hold pods that meet all of the required affinity terms together."""
    good: BoolArray = np.ones(len(whole), np.bool_)
    if not traits.affinity:
        return good
    selectors = tuple(term.selector for term in traits.affinity)
    counts = whole.counters.counts(*selectors)
    found = False
    labelled: BoolArray = np.ones(len(whole), np.bool_)
    for term in traits.affinity:
        here = in_domain(term.topology_key, counts, whole)
        found = found or bool(here.any())
        labelled &= whole.label(term.topology_key) >= 0
        good &= here > 0
    # The first of a group of pods that want each other must be able to start somewhere.
    if not found and matches_all(selectors, traits, whole.environment):
        return labelled
    return good


def _repelled(traits: Traits, whole: NodeTable) -> BoolArray:
    """Nodes in whose domains are pods that the pod does not want near."""
    bad: BoolArray = np.zeros(len(whole), np.bool_)
    for term in traits.anti_affinity:
        bad |= in_domain(term.topology_key, whole.counters.counts(term.selector), whole) > 0
    return bad


def _repelled_by_others(traits: Traits, whole: NodeTable) -> BoolArray:
    """Nodes in whose domains are pods that do not want this one near."""
    bad: BoolArray = np.zeros(len(whole), np.bool_)
    holders: Iterable[tuple[AffinityTerm, IntArray]] = whole.columns.term_holders["anti_affinity"].items()
    for term, counts in holders:
        if _meant(term, traits, whole):
            bad |= in_domain(term.topology_key, counts, whole) > 0
    return bad


def _meant(term: AffinityTerm, traits: Traits, whole: NodeTable) -> bool:
    return matches_all((term.selector,), traits, whole.environment)
