"""NodeVolumeLimits: a node takes as many volumes of a CSI driver as the driver says (CSINode), and no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from navarch.scheduler.columns import BoolArray
from navarch.scheduler.environment import Environment
from navarch.scheduler.framework import Change, Plugin, Refusal, Scope
from navarch.scheduler.plugins.volumes import class_of
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable

_TOO_MANY: Final = "node(s) exceed max volume count"


class NodeVolumeLimits(Plugin):
    """Keep a pod off nodes that cannot take its volumes as well. Volumes that are there already count once."""

    name = "NodeVolumeLimits"
    scope = Scope.ROW
    changes = frozenset({Change.NODE_ADDED, Change.POD_DELETED, Change.CLAIMS, Change.CLASSES, Change.VOLUMES})

    def filters(self, pod: PodInfo) -> bool:
        return bool(pod.traits.claims)

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        good: BoolArray = np.ones(len(nodes), np.bool_)
        environment = nodes.environment
        wanted = set(_volumes(pod, environment))
        if not wanted:
            return good
        drivers = {driver for driver, _ in wanted}
        for about in environment.csi_nodes.list():
            limits = {
                one["name"]: int(one["allocatable"]["count"])
                for one in about["spec"].get("drivers") or ()
                if one["name"] in drivers and (one.get("allocatable") or {}).get("count") is not None
            }
            name = about["metadata"]["name"]
            position = nodes.position(name) if limits else -1
            if position < 0:
                continue
            there = {volume for other in nodes.pods(position).values() for volume in _volumes(other, environment)}
            there.update(environment.attached_to(name))
            fresh = wanted - there
            for driver, limit in limits.items():
                more = sum(1 for one, _ in fresh if one == driver)
                if more and more + sum(1 for one, _ in there if one == driver) > limit:
                    good[position] = False
        return good

    def explain(self, pod: PodInfo, nodes: NodeTable) -> Refusal:
        return Refusal.of_all(nodes, _TOO_MANY, curable=True)


def _volumes(pod: PodInfo, environment: Environment) -> Iterator[tuple[str, str]]:
    """Driver and handle of each CSI volume that a pod claims; one that is yet to be made goes by its claim's name."""
    namespace = pod.key.namespace
    for name in pod.traits.claims:
        claim = environment.claims.get(namespace, name)
        if claim is None:
            continue
        volume = environment.volumes.get("", claim["spec"].get("volumeName") or "")
        if volume is not None:
            source = volume["spec"].get("csi")
            if source:
                yield source["driver"], source["volumeHandle"]
            continue
        storage_class = environment.classes.get("", class_of(claim, environment))
        if storage_class is not None:
            yield str(storage_class.get("provisioner") or ""), f"{namespace}/{name}"
