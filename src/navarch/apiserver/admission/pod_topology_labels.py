"""PodTopologyLabels: a pod has the zone and the region of its node among its labels.

In: a pod that is made on a node, or the Binding by which it comes to one.  Out: the same, with those labels of the node
that it has not itself; the labels of a Binding become its pod's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from navarch.apiserver.admission.base import Attributes, Plugin

_LABELS: Final = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
# A node's labels by its name; None where there is no such node.
LabelsOf = Callable[[str], Mapping[str, str] | None]


class PodTopologyLabels(Plugin):
    name = "PodTopologyLabels"
    leaves_whole = True
    resources = frozenset({("", "pods"), ("", "bindings")})
    operations = frozenset({"CREATE"})
    subresources = frozenset({"", "binding"})

    def __init__(self, labels_of: LabelsOf) -> None:
        self._labels_of = labels_of

    async def mutate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None:
            return
        if attributes.subresource or attributes.kind.resource.plural == "bindings":
            target = obj.get("target")
            if not isinstance(target, dict) or target.get("kind") != "Node":
                return
            node = target.get("name")
        else:
            node = (obj.get("spec") or {}).get("nodeName")
        labels = self._labels_of(node) if isinstance(node, str) and node else None
        if not labels:
            return
        if found := {name: labels[name] for name in _LABELS if name in labels}:
            metadata = obj.setdefault("metadata", {})
            metadata["labels"] = {**found, **(metadata.get("labels") or {})}
