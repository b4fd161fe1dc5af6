"""Zones: how fast nodes may be drained of their pods when some, many or all of a zone's nodes are gone.

One lost node is a lost node; a lost zone is more likely a lost network, where moving everything does harm. Invariant:
while every zone is wholly out of reach nothing is evicted at all.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from navarch.api.meta import Obj, labels_of
from navarch.records import mutable

_RATE_PER_S = 0.1
_SLOW_RATE_PER_S = 0.01
_UNHEALTHY_SHARE = 0.55
_LARGE_ZONE = 50


class ZoneState(enum.StrEnum):
    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


def zone_of(node: Obj) -> str:
    labels = labels_of(node)
    return f"{labels.get('topology.kubernetes.io/region', '')}:{labels.get('topology.kubernetes.io/zone', '')}"


def state_of(readiness: Iterable[bool]) -> ZoneState:
    listed = list(readiness)
    unhealthy = sum(1 for ready in listed if not ready)
    if listed and unhealthy == len(listed):
        return ZoneState.FULL
    if unhealthy > 2 and unhealthy / len(listed) >= _UNHEALTHY_SHARE:
        return ZoneState.PARTIAL
    return ZoneState.NORMAL


@mutable
class _Limit:
    rate_per_s: float = _RATE_PER_S
    next_s: float = 0.0


class EvictionLimits:
    """When the next node of a zone may be tainted NoExecute."""

    def __init__(self) -> None:
        self._limits: dict[str, _Limit] = {}
        self.all_disrupted = False

    def update(self, readiness_by_zone: Mapping[str, list[bool]]) -> None:
        states = {zone: state_of(readiness) for zone, readiness in readiness_by_zone.items()}
        self.all_disrupted = bool(states) and all(state is ZoneState.FULL for state in states.values())
        for zone in [zone for zone in self._limits if zone not in states]:
            del self._limits[zone]
        for zone, state in states.items():
            limit = self._limits.setdefault(zone, _Limit())
            if state is not ZoneState.PARTIAL:
                limit.rate_per_s = _RATE_PER_S
            else:
                limit.rate_per_s = _SLOW_RATE_PER_S if len(readiness_by_zone[zone]) > _LARGE_ZONE else 0.0

    def take(self, zone: str, now_s: float) -> bool:
        """Whether one more node of the zone may be given up now."""
        limit = self._limits.setdefault(zone, _Limit())
        if self.all_disrupted or limit.rate_per_s <= 0 or now_s < limit.next_s:
            return False
        limit.next_s = now_s + 1 / limit.rate_per_s
        return True
