"""Whether a pod may be on a node as far as the two say so themselves: node selector, required node affinity, taints.

Pure, and the same for whoever asks: the kubelet that is to run the pod, the DaemonSet controller, taint eviction. (The
scheduler asks of all nodes at once, and has columns for that.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from navarch.api.meta import Obj, labels_of, name_of
from navarch.numbers import ascii_integer

REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def matches_node(spec: Obj, node: Obj) -> bool:
    """`nodeSelector` and required node affinity."""
    labels = labels_of(node)
    if any(labels.get(name) != value for name, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(REQUIRED)
    if affinity is None:
        return True
    return any(_matches_term(term, node) for term in affinity.get("nodeSelectorTerms") or ())


def _matches_term(term: Obj, node: Obj) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    labels = labels_of(node)
    named = {"metadata.name": name_of(node)}
    return all(_meets(e, labels.get(e["key"])) for e in expressions) and all(
        _meets(f, named.get(f["key"])) for f in fields
    )


def _meets(requirement: Obj, value: str | None) -> bool:
    operator, values = requirement.get("operator"), requirement.get("values") or []
    if operator == "In":
        return value is not None and value in values
    if operator == "NotIn":
        return value is None or value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if value is None or not values:
        return False
    return _compares(operator, value, str(values[0]))


def _compares(operator: str | None, value: str, other: str) -> bool:
    """`Gt` or `Lt` of two numbers; false where one is none."""
    try:
        left, right = ascii_integer(value), ascii_integer(other)
    except ValueError:
        return False
    return left > right if operator == "Gt" else left < right


def tolerates(toleration: Obj, taint: Obj) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    value, other = taint.get("value") or "", toleration.get("value") or ""
    if operator in ("Gt", "Lt"):
        return _compares(operator, value, other)
    return bool(toleration.get("key")) and value == other


def untolerated(taints: Iterable[Obj], tolerations: Iterable[Obj], effects: Iterable[str]) -> Obj | None:
    """The first taint with one of `effects` that no toleration meets."""
    listed = list(tolerations)
    wanted_effects = set(effects)
    for taint in taints:
        if taint.get("effect") in wanted_effects and not any(tolerates(t, taint) for t in listed):
            return taint
    return None
