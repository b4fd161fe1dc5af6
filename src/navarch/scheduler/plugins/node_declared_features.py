"""NodeDeclaredFeatures: a pod goes only where its node declares every feature that the pod needs."""

from __future__ import annotations

import numpy as np

from navarch.api.features import Features
from navarch.kinds.core.declared_features import are_looked_at
from navarch.scheduler.columns import BoolArray
from navarch.scheduler.framework import Change, ClusterEvent, Plugin, Refusal
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable


class NodeDeclaredFeatures(Plugin):
    """Refuse nodes that do not declare what the pod needs; says nothing where the gates have it off."""

    name = "NodeDeclaredFeatures"
    changes = frozenset({Change.NODE_ADDED, Change.NODE_UPDATED})

    def __init__(self, features: Features) -> None:
        self._on = are_looked_at(features)

    def filters(self, pod: PodInfo) -> bool:
        return self._on and bool(pod.traits.features)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        fits = np.array([pod.traits.features <= declared for declared in nodes.feature_sets], np.bool_)
        matching: BoolArray = fits[nodes.feature_set]
        return matching

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        return Refusal.of_all(nodes, "node(s) didn't match Pod's required features", curable=False)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.new is None or event.old is None:
            return True
        old, new = ((one.get("status") or {}).get("declaredFeatures") or [] for one in (event.old, event.new))
        return bool(old != new)
