"""VolumeRestrictions: a claim of access mode ReadWriteOncePod is for one pod at a time, wherever that is."""

from __future__ import annotations

import numpy as np

from navarch.scheduler.columns import BoolArray
from navarch.scheduler.environment import Environment
from navarch.scheduler.framework import Change, ClusterEvent, Plugin, Refusal, Scope
from navarch.scheduler.plugins.volumes import is_claim_of
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

_TAKEN = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"


class VolumeRestrictions(Plugin):
    """Keep a pod waiting while another one uses a claim that only one pod may use."""

    name = "VolumeRestrictions"
    scope = Scope.CLUSTER
    changes = frozenset({Change.POD_DELETED, Change.CLAIMS})

    def filters(self, pod: PodInfo) -> bool:
        return bool(pod.traits.claims)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        in_use = nodes.columns.claims
        namespace = pod.traits.namespace
        for name in pod.traits.claims:
            if in_use.get((namespace, name)) and _for_one_pod(namespace, name, nodes.environment):
                return np.zeros(len(nodes), np.bool_)
        return np.ones(len(nodes), np.bool_)

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        return Refusal.of_all(nodes, _TAKEN, curable=True)

    def wakes(self, pod: PodInfo, event: ClusterEvent) -> bool:
        if event.pod is None:
            return is_claim_of(pod, event)
        return event.pod.traits.namespace == pod.traits.namespace and not set(pod.traits.claims).isdisjoint(
            event.pod.traits.claims
        )


def _for_one_pod(namespace: str, name: str, environment: Environment) -> bool:
    claim = environment.claims.get(namespace, name)
    return claim is not None and "ReadWriteOncePod" in (claim["spec"].get("accessModes") or ())
