"""Which plugins act at which extension point, and with what weight: a profile's `plugins` merged with the defaults, and
`multiPoint` spread out over the points.

In: a profile as it is written.  Out: `Enabled`, or a PluginsError in Kubernetes' words. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from navarch.api.meta import Obj
from navarch.scheduler.config import DEFAULT_WEIGHTS
from navarch.scheduler.configuration.shape import POINTS

_FILTERS: Final = ("preFilter", "filter")
_SCORES: Final = ("preScore", "score")
IMPLEMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "SchedulingGates": ("preEnqueue",),
    "PrioritySort": ("queueSort",),
    "NodeUnschedulable": ("filter",),
    "NodeName": ("filter",),
    "TaintToleration": ("filter", *_SCORES),
    "NodeAffinity": (*_FILTERS, *_SCORES),
    "NodePorts": _FILTERS,
    "NodeResourcesFit": (*_FILTERS, *_SCORES),
    "VolumeRestrictions": _FILTERS,
    "NodeVolumeLimits": _FILTERS,
    "VolumeBinding": (*_FILTERS, *_SCORES, "reserve", "preBind"),
    "VolumeZone": _FILTERS,
    "PodTopologySpread": (*_FILTERS, *_SCORES),
    "InterPodAffinity": (*_FILTERS, *_SCORES),
    "DynamicResources": ("preEnqueue", *_FILTERS, "postFilter", "score", "reserve", "preBind"),
    "DefaultPreemption": ("preEnqueue", "postFilter"),
    "NodeResourcesBalancedAllocation": _SCORES,
    "ImageLocality": ("score",),
    "DefaultBinder": ("bind",),
    "NodeDeclaredFeatures": _FILTERS,
}
"""Kubernetes' default plugins in its order, with the points that each has something to say at."""


class PluginsError(ValueError):
    """The plugins cannot be put together so; the message says why."""


@dataclass(slots=True)
class _Set:
    """What is enabled, by name with weight, in order, and what is disabled."""

    enabled: list[tuple[str, int]] = field(default_factory=list)
    disabled: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Enabled:
    """The names of a profile's plugins by extension point, each in order, and the weights of those that score."""

    points: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, int]


def enabled(stated: Mapping[str, Obj]) -> Enabled:
    """From a profile's `plugins`.  Raises PluginsError."""
    defaults = _Set([(name, DEFAULT_WEIGHTS.get(name, 0)) for name in IMPLEMENTS])
    everywhere = _merged(defaults, stated.get("multiPoint") or {})
    own = {point: _merged(_Set(), stated.get(point) or {}) for point in POINTS}
    for point in POINTS:
        _check(point, [name for name, _ in own[point].enabled])
    points = {point: tuple(_spread(point, own[point], everywhere)) for point in POINTS}
    weights: dict[str, int] = {}
    for name, weight in [*own["score"].enabled, *everywhere.enabled]:
        # Kubernetes has 1 for what is not said, and for 0.
        weights.setdefault(name, weight or 1)
    return Enabled(points, weights)


def _merged(defaults: _Set, stated: Obj) -> _Set:
    """Defaults that are named anew keep their place; others follow."""
    disabled = {one.get("name") or "" for one in stated.get("disabled") or ()}
    custom = [(one.get("name") or "", one.get("weight") or 0) for one in stated.get("enabled") or ()]
    anew = dict(custom)
    kept: list[tuple[str, int]] = []
    if "*" not in disabled:
        kept = [(name, anew.get(name, weight)) for name, weight in defaults.enabled if name not in disabled]
    replaced = {name for name, _ in kept if name in anew}
    return _Set([*kept, *(one for one in custom if one[0] not in replaced)], disabled)


def _check(point: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name not in IMPLEMENTS:
            raise PluginsError(f'{_type(point)} "{name}" does not exist')
        if point not in IMPLEMENTS[name]:
            raise PluginsError(f'plugin "{name}" does not extend {_type(point)} plugin')
        if name in seen:
            raise PluginsError(f'plugin "{name}" already registered as "{_type(point)}"')
        seen.add(name)


def _spread(point: str, own: _Set, everywhere: _Set) -> list[str]:
    """First what overrides `multiPoint` here, then the rest of that, then what is enabled here alone."""
    named = [name for name, _ in own.enabled]
    if "*" in own.disabled:
        return named
    overriding: set[str] = set()
    spread: list[str] = []
    for name, _ in everywhere.enabled:
        if name not in IMPLEMENTS:
            raise PluginsError(f'{_type(point)} "{name}" does not exist')
        if point not in IMPLEMENTS[name] or name in own.disabled:
            continue
        if name in named:
            overriding.add(name)
        elif name in spread:
            raise PluginsError(f'plugin "{name}" already registered as "{_type(point)}"')
        else:
            spread.append(name)
    first = [name for name in named if name in overriding]
    return [*first, *spread, *(name for name in named if name not in overriding)]


def _type(point: str) -> str:
    """As Go names it: PreFilterPlugin."""
    return f"{point[0].upper()}{point[1:]}Plugin"
