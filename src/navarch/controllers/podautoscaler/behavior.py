"""From the replicas that metrics ask for to those that there shall be: limits, rates, and windows of stability.

In: the desired and the current number, the autoscaler's spec, its `History`, the time.  Out: an `Outcome` with the
number and the conditions AbleToScale and ScalingLimited that tell why. Without a stated behavior a target at most
doubles (or comes to four) at a time, and shrinks to the highest number that was asked for in five minutes; with one,
policies say how much may change in which period, and windows how long a lower or higher wish has to last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from navarch.api.meta import Obj
from navarch.controllers.podautoscaler.replicas import MOST
from navarch.records import mutable

DOWNSCALE_WINDOW: Final = timedelta(minutes=5)
_FACTOR: Final = 2
_LEAST_LIMIT: Final = 4

_LOWER: Final = "recent recommendations were lower than current one, applying the lowest recent recommendation"
_HIGHER: Final = "recent recommendations were higher than current one, applying the highest recent recommendation"
_SAME: Final = ("ReadyForNewScale", "recommended size matches current size")
_WITHIN: Final = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_MANY: Final = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FEW: Final = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_UP_LIMIT: Final = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_DOWN_LIMIT: Final = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")


class Noted(NamedTuple):
    """A number at a moment: of replicas that were asked for, or by how many the target changed."""

    number: int
    at: datetime


@mutable
class History:
    """What one autoscaler has to remember: wishes as they were before any limit, and changes that were made."""

    wishes: list[Noted] = field(default_factory=list)
    ups: list[Noted] = field(default_factory=list)
    downs: list[Noted] = field(default_factory=list)

    def begin(self, current: int, now: datetime) -> None:
        """At the first look, the number that there is counts as asked for."""
        if not self.wishes:
            self.wishes.append(Noted(current, now))

    def changed(self, behavior: Obj | None, before: int, after: int, now: datetime) -> None:
        """The target has been scaled; what no policy looks back to any more is forgotten."""
        if behavior is None:
            return
        grown = after > before
        noted = self.ups if grown else self.downs
        longest = max((period for rules in behavior.values() for period in _periods(rules)), default=0)
        noted[:] = [each for each in noted if each.at >= now - timedelta(seconds=longest)]
        noted.append(Noted(abs(after - before), now))


class Outcome(NamedTuple):
    """`able` is the condition AbleToScale, whose status is True; `limited` ScalingLimited with `is_limited`: reasons
    and messages."""

    replicas: int
    able: tuple[str, str]
    is_limited: bool
    limited: tuple[str, str]


def settled(spec: Obj, least: int, current: int, desired: int, history: History, now: datetime) -> Outcome:
    """The number of replicas that there shall be."""
    behavior = spec.get("behavior")
    if behavior is None:
        stable = _highest_wish(desired, history, now)
        able = _SAME if stable == desired else ("ScaleDownStabilized", _HIGHER)
        replicas, why = _within_limits(current, stable, least, spec["maxReplicas"])
    else:
        stable = _steady(behavior, current, desired, history, now)
        direction = ("ScaleUpStabilized", _LOWER) if desired >= current else ("ScaleDownStabilized", _HIGHER)
        able = _SAME if stable == desired else direction
        replicas, why = _within_rates(behavior, current, stable, (least, spec["maxReplicas"]), history, now)
    return Outcome(replicas, able, replicas != stable, why)


# Without a stated behavior


def _highest_wish(desired: int, history: History, now: datetime) -> int:
    recent = [wish for wish in history.wishes if wish.at >= now - DOWNSCALE_WINDOW]
    highest = max((wish.number for wish in recent), default=desired)
    history.wishes = [*recent, Noted(desired, now)]
    return max(highest, desired)


def _within_limits(current: int, desired: int, least: int, most: int) -> tuple[int, tuple[str, str]]:
    limit = max(_FACTOR * current, _LEAST_LIMIT)
    allowed, why = (limit, _UP_LIMIT) if most > limit else (most, _TOO_MANY)
    if desired < least:
        return least, _TOO_FEW
    return (allowed, why) if desired > allowed else (desired, _WITHIN)


# With one


def _window(rules: Obj, otherwise: timedelta) -> timedelta:
    stated = rules.get("stabilizationWindowSeconds")
    return otherwise if stated is None else timedelta(seconds=stated)


def _steady(behavior: Obj, current: int, desired: int, history: History, now: datetime) -> int:
    """The number nearest to the current one between the lowest wish of the window for growing and the highest of that
    for shrinking."""
    up_from = now - _window(behavior.get("scaleUp") or {}, timedelta())
    down_from = now - _window(behavior.get("scaleDown") or {}, DOWNSCALE_WINDOW)
    lowest = min([desired, *(wish.number for wish in history.wishes if wish.at > up_from)])
    highest = max([desired, *(wish.number for wish in history.wishes if wish.at > down_from)])
    kept = [wish for wish in history.wishes if wish.at >= min(up_from, down_from)]
    history.wishes = [*kept, Noted(desired, now)]
    return min(max(current, lowest), highest)


def _within_rates(
    behavior: Obj, current: int, desired: int, bounds: tuple[int, int], history: History, now: datetime
) -> tuple[int, tuple[str, str]]:
    least, most = bounds
    if desired > current:
        limit = max(_highest(behavior.get("scaleUp") or {}, current, history, now), current)
        allowed, why = (limit, _UP_LIMIT) if most > limit else (most, _TOO_MANY)
        if desired > allowed:
            return allowed, why
    elif desired < current:
        limit = min(_lowest(behavior.get("scaleDown") or {}, current, history, now), current)
        allowed, why = (limit, _DOWN_LIMIT) if least < limit else (least, _TOO_FEW)
        if desired < allowed:
            return allowed, why
    return desired, _WITHIN


def _highest(rules: Obj, current: int, history: History, now: datetime) -> int:
    """The most that the policies for growing allow."""
    if rules.get("selectPolicy") == "Disabled":
        return current
    select: Callable[[Iterable[int]], int] = min if rules.get("selectPolicy") == "Min" else max
    proposals = []
    for policy, before in _since(rules, current, history, now):
        grown = before + policy["value"] if policy["type"] == "Pods" else before * (1 + policy["value"] / 100)
        # Rounded up: a percentage of few must not stand for no growth at all.
        proposals.append(min(math.ceil(grown), MOST))
    return select(proposals) if proposals else MOST


def _lowest(rules: Obj, current: int, history: History, now: datetime) -> int:
    """The least that the policies for shrinking allow."""
    if rules.get("selectPolicy") == "Disabled":
        return current
    select: Callable[[Iterable[int]], int] = max if rules.get("selectPolicy") == "Min" else min
    proposals = []
    for policy, before in _since(rules, current, history, now):
        shrunk = before - policy["value"] if policy["type"] == "Pods" else before * (1 - policy["value"] / 100)
        proposals.append(int(shrunk))
    return select(proposals) if proposals else 0


def _since(rules: Obj, current: int, history: History, now: datetime) -> Iterator[tuple[Any, int]]:
    """Each policy, with the number of replicas that there was when its period began."""
    for policy in rules.get("policies") or ():
        begin = now - timedelta(seconds=policy["periodSeconds"])
        added = sum(change.number for change in history.ups if change.at > begin)
        taken = sum(change.number for change in history.downs if change.at > begin)
        yield policy, current - added + taken


def _periods(rules: Obj | None) -> Iterator[int]:
    for policy in (rules or {}).get("policies") or ():
        yield int(policy["periodSeconds"])
