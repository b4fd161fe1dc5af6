"""NodeAffinity: `nodeSelector`, required and preferred node affinity, evaluated on columns of label values.

Each requirement is judged once per distinct value of its label, however many nodes there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from navarch.api.meta import Obj
from navarch.numbers import integer_or
from navarch.scheduler.columns import BoolArray, FloatArray
from navarch.scheduler.environment import Environment
from navarch.scheduler.framework import Change, Plugin, Refusal
from navarch.scheduler.podinfo import PodInfo, Traits
from navarch.scheduler.table import NodeTable

_NO_MATCH: Final = "node(s) didn't match Pod's node affinity/selector"
_ENFORCED: Final = "node(s) didn't match scheduler-enforced node affinity"


class NodeAffinity(Plugin):
    """Hold pods to the nodes that they select, and prefer those that they prefer; `required` terms and `preferred` ones
    are what the scheduler's configuration adds to those of every pod."""

    name = "NodeAffinity"
    normalizes = True
    changes = frozenset({Change.NODE_ADDED, Change.NODE_UPDATED})

    def __init__(self, required: Sequence[Obj] | None = None, preferred: Sequence[Obj] = ()) -> None:
        self._required = required
        self._preferred = tuple(preferred)

    def reject(self, pod: PodInfo, environment: Environment) -> str | None:
        return "pod affinity terms conflict" if self.only(pod) == set() else None

    def only(self, pod: PodInfo) -> set[str] | None:
        return _names(pod.traits)

    def filters(self, pod: PodInfo) -> bool:
        traits = pod.traits
        return bool(traits.node_selector) or traits.node_affinity is not None or self._required is not None

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        good = selected(pod.traits, nodes)
        return good if self._required is None else good & any_term_matches(self._required, nodes)

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        if self._required is None:
            return Refusal.of_all(nodes, _NO_MATCH, curable=False)
        unselected = int(np.count_nonzero(any_term_matches(self._required, nodes)))
        counts = {_ENFORCED: len(nodes) - unselected, _NO_MATCH: unselected}
        return Refusal({reason: count for reason, count in counts.items() if count}, np.zeros(len(nodes), np.bool_))

    def scores(self, pod: PodInfo, nodes: NodeTable) -> bool:
        return bool(pod.traits.preferred_node_affinity or self._preferred)

    def score(self, pod: PodInfo, nodes: NodeTable) -> FloatArray:
        total = np.zeros(len(nodes))
        for preference in (*self._preferred, *pod.traits.preferred_node_affinity):
            term = preference.get("preference") or {}
            if _is_empty(term):
                continue
            total += np.where(term_matches(term, nodes), float(preference.get("weight", 0)), 0.0)
        return total


def selected(traits: Traits, nodes: NodeTable) -> BoolArray:
    """Nodes that both the node selector and the required affinity allow."""
    good: BoolArray = np.ones(len(nodes), np.bool_)
    for key, value in traits.node_selector.items():
        code = nodes.label_ids(key).get(value)
        good &= nodes.label(key) == (code if code is not None else -2)
    if traits.node_affinity is not None:
        good &= any_term_matches(traits.node_affinity, nodes)
    return good


def any_term_matches(terms: Iterable[Obj], nodes: NodeTable) -> BoolArray:
    """Nodes that at least one node selector term selects; an empty term selects none."""
    matching: BoolArray = np.zeros(len(nodes), np.bool_)
    for term in terms:
        if not _is_empty(term):
            matching |= term_matches(term, nodes)
    return matching


def term_matches(term: Obj, nodes: NodeTable) -> BoolArray:
    """Nodes that meet all requirements of one node selector term."""
    good: BoolArray = np.ones(len(nodes), np.bool_)
    for requirement in term.get("matchExpressions") or ():
        good &= _requirement(requirement, nodes)
    for requirement in term.get("matchFields") or ():
        named: BoolArray = np.zeros(len(nodes), np.bool_)
        for name in requirement.get("values") or ():
            position = nodes.position(name) if requirement.get("key") == "metadata.name" else -1
            if position >= 0:
                named[position] = True
        good &= ~named if requirement.get("operator") == "NotIn" else named
    return good


def _requirement(requirement: Obj, nodes: NodeTable) -> BoolArray:
    key = requirement["key"]
    operator = requirement.get("operator")
    codes = nodes.label(key)
    if operator == "Exists":
        return codes >= 0
    if operator == "DoesNotExist":
        return codes < 0
    wanted = requirement.get("values") or ()
    verdicts = [_value_matches(operator, value, wanted) for value in nodes.label_values(key)]
    # The last element answers for -1, the missing label, which only NotIn accepts.
    verdicts.append(operator == "NotIn")
    return np.array(verdicts, np.bool_)[codes]


def _value_matches(operator: str | None, value: str, wanted: Sequence[str]) -> bool:
    if operator == "In":
        return value in wanted
    if operator == "NotIn":
        return value not in wanted
    have, bound = integer_or(value, None), integer_or(wanted[0] if wanted else "", None)
    if have is None or bound is None:
        return False
    return have > bound if operator == "Gt" else have < bound if operator == "Lt" else False


def _is_empty(term: Mapping[str, object]) -> bool:
    return not term.get("matchExpressions") and not term.get("matchFields")


def _names(traits: Traits) -> set[str] | None:
    """The only nodes that the pod may go to by name, if every term of its affinity names them (a DaemonSet's pod)."""
    if not traits.node_affinity:
        return None
    names: set[str] = set()
    for term in traits.node_affinity:
        listed = [
            set(field.get("values") or ())
            for field in term.get("matchFields") or ()
            if field.get("key") == "metadata.name" and field.get("operator") == "In"
        ]
        if not listed:
            return None
        names |= set.intersection(*listed)
    return names
