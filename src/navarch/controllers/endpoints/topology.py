"""Topology mode `Auto`: endpoints are shared out among zones, to each as many as its part of the cluster's CPUs.

In: what nodes have by zone (`Zones`, kept change by change), and the ready endpoints of a Service in one address
family. Out: for each endpoint the zone that it is for, or why there is none: then no endpoint has a hint, as proxies
would send too much to some. Pure. Invariant: no zone gets so few endpoints that each of them has a fifth more to do
than its share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from navarch.api.meta import Obj, annotations_of, labels_of
from navarch.api.quantity import milli
from navarch.kinds.core.pod_state import is_ready

ZONE: Final = "topology.kubernetes.io/zone"
ENABLED: Final = "Topology Aware Hints has been enabled"
DISABLED: Final = "Topology Aware Hints has been disabled"
NO_ZONE: Final = "One or more endpoints do not have a zone specified"
_NO_NODES: Final = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
_FEW: Final = "Insufficient number of endpoints"
_OVERLOAD: Final = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
_MODES: Final = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
_LEFT_OUT: Final = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_THRESHOLD: Final = 0.2


def is_automatic(service: Obj) -> bool:
    annotations = annotations_of(service)
    stated = next((annotations[name] for name in _MODES if name in annotations), "")
    return stated in ("Auto", "auto")


class Zones:
    """The CPUs of ready nodes by zone. A node without a zone or without CPUs makes all of it unusable."""

    def __init__(self) -> None:
        self._of_node: dict[str, tuple[str, int]] = {}
        self._unknown = 0
        self._milli_cpu: Counter[str] = Counter()

    def put(self, node: Obj) -> bool:
        """Whether something is different now."""
        return self._replace(node["metadata"]["name"], _share(node))

    def remove(self, node: Obj) -> bool:
        return self._replace(node["metadata"]["name"], None)

    def _replace(self, name: str, new: tuple[str, int] | None) -> bool:
        old = self._of_node.get(name)
        if old == new:
            return False
        if old is not None:
            self._count(old, -1)
            del self._of_node[name]
        if new is not None:
            self._count(new, 1)
            self._of_node[name] = new
        return True

    def _count(self, share: tuple[str, int], sign: int) -> None:
        zone, milli_cpu = share
        if not zone or not milli_cpu:
            self._unknown += sign
            return
        self._milli_cpu[zone] += sign * milli_cpu
        if not self._milli_cpu[zone]:
            del self._milli_cpu[zone]

    def ratios(self) -> Mapping[str, float]:
        """Each zone's part; empty where it is not known or there is but one zone."""
        total = sum(self._milli_cpu.values())
        if self._unknown or len(self._milli_cpu) < 2:
            return {}
        return {zone: milli_cpu / total for zone, milli_cpu in sorted(self._milli_cpu.items())}


def _share(node: Obj) -> tuple[str, int] | None:
    """A node's zone and CPUs; None for one that takes no part."""
    labels = labels_of(node)
    if any(label in labels for label in _LEFT_OUT) or not is_ready(node):
        return None
    try:
        milli_cpu = milli(((node.get("status") or {}).get("allocatable") or {}).get("cpu") or 0)
    except ValueError:
        milli_cpu = 0
    return labels.get(ZONE) or "", milli_cpu


class Shares(NamedTuple):
    """`zones` by endpoint; empty with the reason `why` in Kubernetes' words."""

    zones: Mapping[str, str]
    why: str


def share_out(zones: Mapping[str, str], ratios: Mapping[str, float]) -> Shares:
    """For whom each endpoint is: for its own zone, but for those that a zone has too many of and another too few.
    `zones` has the zone of each ready endpoint by its identity."""
    count = len(zones)
    if not ratios:
        return Shares({}, _NO_NODES)
    if len(ratios) > count:
        return Shares({}, f"{_FEW} ({count} endpoints, {len(ratios)} zones)")
    desired: dict[str, float] = {}
    left = count
    for zone, ratio in ratios.items():
        least = math.ceil(ratio * count / (1 + _THRESHOLD))
        desired[zone] = max(ratio * count, float(least))
        left -= least
    if left < 0:
        return Shares({}, f"{_OVERLOAD} ({count} endpoints, {len(ratios)} zones)")
    if not all(zones.values()):
        return Shares({}, NO_ZONE)
    giving, receiving = _moves(desired, Counter(zones.values()))
    shared = dict(zones)
    for identity in sorted(zones):
        if not receiving:
            break
        if giving[zones[identity]]:
            giving[zones[identity]] -= 1
            shared[identity] = receiving.pop()
    return Shares(shared, "")


def _moves(desired: Mapping[str, float], have: Mapping[str, int]) -> tuple[Counter[str], list[str]]:
    """How many endpoints zones give away, and the zones that get one each."""
    much = {zone: have.get(zone, 0) - wanted for zone, wanted in desired.items()}
    giving: Counter[str] = Counter()
    receiving: list[str] = []
    while True:
        giver, taker = max(much, key=much.__getitem__), min(much, key=much.__getitem__)
        gives, takes = much[giver], -much[taker]
        if gives < 0.5 or takes < 0.5 or (gives < 1 and takes < 1):
            return giving, receiving[::-1]
        giving[giver] += 1
        receiving.append(taker)
        much[giver] -= 1
        much[taker] += 1
