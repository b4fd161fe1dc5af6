"""Where a DaemonSet's pods go: the nodes that its template fits, and the affinity that ties a pod to its node. Pure.

Resources do not matter here: whether a node has room is the scheduler's question, not whether it should have the pod.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from navarch.api.meta import Obj, is_deleting, name_of
from navarch.controllers.nodes import taints
from navarch.kinds.core.node_match import REQUIRED, matches_node, untolerated
from navarch.kinds.core.pod_state import is_finished

_ADDED_TOLERATIONS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)


class Fit(NamedTuple):
    """Whether a pod should be started on the node, and whether one that runs there may stay."""

    start: bool
    stay: bool


def tolerations_of(spec: Obj) -> list[Obj]:
    """The template's tolerations and those that every daemon has."""
    tolerations = list(spec.get("tolerations") or ())
    added = [{"key": key, "operator": "Exists", "effect": effect} for key, effect in _ADDED_TOLERATIONS]
    if spec.get("hostNetwork"):
        added.append({"key": "node.kubernetes.io/network-unavailable", "operator": "Exists", "effect": "NoSchedule"})
    return tolerations + [toleration for toleration in added if toleration not in tolerations]


def fit(daemon_set: Obj, node: Obj) -> Fit:
    spec = daemon_set["spec"]["template"].get("spec") or {}
    if spec.get("nodeName") and spec["nodeName"] != name_of(node):
        return Fit(False, False)
    if not matches_node(spec, node):
        return Fit(False, False)
    node_taints = taints.of(node)
    if not node_taints:
        return Fit(True, True)
    tolerations = tolerations_of(spec)
    if untolerated(node_taints, tolerations, ("NoSchedule", "NoExecute")) is None:
        return Fit(True, True)
    return Fit(False, untolerated(node_taints, tolerations, ("NoExecute",)) is None)


def tie_to(pod: Obj, node_name: str) -> None:
    """Make the pod go to this node and no other, while the scheduler still has the say on whether it fits."""
    spec = pod["spec"]
    affinity: dict[str, Any] = dict(spec.get("affinity") or {})
    field = {"key": "metadata.name", "operator": "In", "values": [node_name]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        REQUIRED: {"nodeSelectorTerms": [{"matchFields": [field]}]},
    }
    spec["affinity"] = affinity
    spec["tolerations"] = tolerations_of(spec)
    spec.pop("nodeName", None)


def node_of(pod: Obj) -> str:
    """The node that the pod runs on or is tied to."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(REQUIRED) or {}
    for term in affinity.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""


def by_node(pods: Iterable[Obj]) -> dict[str, list[Obj]]:
    """By the node that each is meant for; one that has ended and is only waiting to be gone holds no place there."""
    grouped: dict[str, list[Obj]] = {}
    for pod in pods:
        if (node := node_of(pod)) and not (is_deleting(pod) and is_finished(pod)):
            grouped.setdefault(node, []).append(pod)
    return grouped
