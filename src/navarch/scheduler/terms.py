"""Selectors as the scheduler needs them: "pods in these namespaces with these labels", hashable, so that pods counted
for one constraint are counted once for all pods that carry the same constraint.

In: label selectors and pod affinity terms as written in pods.  Out: `PodSelector` and `AffinityTerm`, equal exactly
when they select the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

import orjson

from navarch.api.meta import Obj, labels_of, name_of
from navarch.api.selectors import LabelSelector, label_selector_of
from navarch.numbers import integer_or
from navarch.records import frozen


def canonical(value: object) -> bytes:
    """A byte string that is equal for equal JSON."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@frozen
class PodSelector:
    """Pods in `namespaces`, or in namespaces that `namespace_selector` selects, whose labels match all of `labels`."""

    identity: bytes
    namespaces: frozenset[str] = field(compare=False)
    labels: tuple[LabelSelector, ...] = field(compare=False)
    namespace_selector: LabelSelector | None = field(compare=False, default=None)

    def matches(self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> bool:
        """Whether a pod of `namespace` (which has `namespace_labels`) with `labels` is meant."""
        if namespace not in self.namespaces:
            if self.namespace_selector is None or not self.namespace_selector.matches(namespace_labels):
                return False
        return all(selector.matches(labels) for selector in self.labels)


@frozen
class AffinityTerm:
    """One term of pod (anti-)affinity: the pods it looks at and the topology in which it looks; `weight` is 0 for
    required terms."""

    selector: PodSelector
    topology_key: str
    weight: int = 0


def pod_selector(
    namespaces: Iterable[str], selectors: Iterable[Obj | None], namespace_selector: Obj | None = None
) -> PodSelector:
    """A PodSelector from `metav1.LabelSelector`s, all of which must match."""
    chosen = frozenset(namespaces)
    listed = list(selectors)
    # An empty namespace selector means every namespace, a missing one none; both must stay apart.
    identity = canonical([sorted(chosen), listed, namespace_selector])
    return PodSelector(
        identity,
        chosen,
        tuple(label_selector_of(selector) for selector in listed),
        label_selector_of(namespace_selector) if namespace_selector is not None else None,
    )


def affinity_term(term: Obj, namespace: str, labels: Mapping[str, str], weight: int = 0) -> AffinityTerm:
    """A `PodAffinityTerm` of a pod that lives in `namespace` and has `labels`."""
    namespaces = term.get("namespaces") or []
    namespace_selector = term.get("namespaceSelector")
    if not namespaces and namespace_selector is None:
        namespaces = [namespace]
    selector = with_label_keys(
        term.get("labelSelector"), labels, term.get("matchLabelKeys") or (), term.get("mismatchLabelKeys") or ()
    )
    return AffinityTerm(pod_selector(namespaces, [selector], namespace_selector), term.get("topologyKey", ""), weight)


def with_label_keys(
    selector: Obj | None, labels: Mapping[str, str], same: Iterable[str], different: Iterable[str] = ()
) -> Obj | None:
    """The selector narrowed to pods that share (`same`) or do not share (`different`) the values of these keys."""
    if selector is None:
        return None
    added = [{"key": key, "operator": "In", "values": [labels[key]]} for key in same if key in labels]
    added += [{"key": key, "operator": "NotIn", "values": [labels[key]]} for key in different if key in labels]
    known = selector.get("matchExpressions") or []
    # The API server merges the keys too; a requirement that is already there is not repeated.
    missing = [requirement for requirement in added if requirement not in known]
    return {**selector, "matchExpressions": [*known, *missing]} if missing else selector


def node_selector_matches(selector: Obj, node: Obj) -> bool:
    """Whether a `core/v1.NodeSelector` selects one node; an empty term selects none."""
    return any(_term_selects(term, node) for term in selector.get("nodeSelectorTerms") or ())


def _term_selects(term: Obj, node: Obj) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels = labels_of(node)
    if not all(meets(requirement, labels.get(requirement["key"])) for requirement in expressions):
        return False
    return all(field.get("key") == "metadata.name" and meets(field, name_of(node)) for field in fields)


def meets(requirement: Obj, value: str | None) -> bool:
    """Whether the value of a label, None where a node lacks it, meets a node selector's requirement."""
    operator: str = requirement.get("operator") or ""
    wanted: list[str] = requirement.get("values") or []
    if operator in ("Exists", "DoesNotExist"):
        return (value is not None) == (operator == "Exists")
    if value is None:
        return operator == "NotIn"
    if operator in ("In", "NotIn"):
        return (value in wanted) == (operator == "In")
    have, bound = integer_or(value, None), integer_or(wanted[0] if wanted else "", None)
    if have is None or bound is None:
        return False
    return have > bound if operator == "Gt" else have < bound if operator == "Lt" else False
