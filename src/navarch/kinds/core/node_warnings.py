"""Warnings about nodes, and about what selects nodes: labels that have newer names, fields that nobody reads.

In: a Node, or one alternative of a node selector.  Out: texts for `Warning` headers, in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.meta import Obj
from navarch.api.validation import label_value_problems
from navarch.kinds.core.address_warnings import cidr_warnings

RENAMED_NODE_LABELS: Final = {
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}
_SINCE: Final = {"beta.kubernetes.io/arch": "v1.14", "beta.kubernetes.io/os": "v1.14"}
DEPRECATED_NODE_LABELS: Final = {
    label: f'deprecated since {_SINCE.get(label, "v1.17")}; use "{newer}" instead'
    for label, newer in RENAMED_NODE_LABELS.items()
}


def node_warnings(node: Obj) -> Iterator[str]:
    spec = node["spec"]
    if spec.get("configSource") is not None:
        yield "spec.configSource: the feature is removed"
    if spec.get("externalID"):
        yield "spec.externalID: this field is deprecated, and is unused by Kubernetes"
    for index, text in enumerate(spec.get("podCIDRs") or ()):
        yield from cidr_warnings(text, f"spec.podCIDRs[{index}]")


def node_term_warnings(term: Obj, path: str, *, soft: bool = False) -> Iterator[str]:
    """One alternative of a node selector, of pods and of persistent volumes."""
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        at, key = f"{path}.matchExpressions[{index}]", expression.get("key") or ""
        if key in DEPRECATED_NODE_LABELS:
            yield f"{at}.key: {key} is {DEPRECATED_NODE_LABELS[key]}"
        for number, value in enumerate(expression.get("values") or ()):
            for problem in label_value_problems(value) if soft else ():
                yield f'{at}.values[{number}]: Invalid value: "{value}": {problem}'
