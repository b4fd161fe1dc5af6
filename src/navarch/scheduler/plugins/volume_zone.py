"""VolumeZone: a volume whose labels name a zone or region is used from nodes there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from navarch.api.meta import labels_of
from navarch.scheduler.columns import BoolArray
from navarch.scheduler.environment import Environment
from navarch.scheduler.framework import Change, ClusterEvent, Plugin, Refusal
from navarch.scheduler.plugins.volumes import is_claim_of
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

_KEYS: Final = (
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
)
_CONFLICT: Final = "node(s) had no available volume zone"


class VolumeZone(Plugin):
    """Nodes that say nothing of zones and regions are taken to be anywhere."""

    name = "VolumeZone"
    changes = frozenset({Change.NODE_ADDED, Change.NODE_UPDATED, Change.CLAIMS, Change.VOLUMES})

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        return event.change is not Change.CLAIMS or is_claim_of(pod, event)

    def filters(self, pod: PodInfo) -> bool:
        return bool(pod.traits.claims)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        good: BoolArray = np.ones(len(nodes), np.bool_)
        wanted = list(_zones(pod, nodes.environment))
        if not wanted:
            return good
        anywhere: BoolArray = np.ones(len(nodes), np.bool_)
        for key in _KEYS:
            anywhere &= nodes.label(key) < 0
        for key, zones in wanted:
            ids = nodes.label_ids(key)
            good &= np.isin(nodes.label(key), [ids[zone] for zone in zones if zone in ids])
        return good | anywhere

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        return Refusal.of_all(nodes, _CONFLICT, curable=False)


def _zones(pod: PodInfo, environment: Environment) -> Iterator[tuple[str, list[str]]]:
    """The labels of the pod's volumes that name a place; several places are joined by two underscores."""
    for name in pod.traits.claims:
        claim = environment.claims.get(pod.key.namespace, name)
        volume = environment.volumes.get("", (claim or {"spec": {}})["spec"].get("volumeName") or "")
        for key in _KEYS:
            if volume is not None and (value := labels_of(volume).get(key)):
                yield key, value.split("__")
