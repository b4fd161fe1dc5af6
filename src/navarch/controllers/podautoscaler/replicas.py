"""How many replicas a metric asks for: Kubernetes' arithmetic, with its care for pods of which too little is known.

In: readings by pod name in thousandths, the pods, the target, the time.  Out: a `Proposal`, or `NoProposalError` in
Kubernetes' words. Pure. Pods without a reading count as if they used nothing where the others ask for more, and as if
they used all that they may where the others ask for fewer; pods that are not ready count as idle where the others ask
for more. Invariant: what is assumed of such pods never turns a proposal to grow into one to shrink, or the other way
round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from navarch.api import quantity
from navarch.api.meta import Obj, is_deleting, name_of
from navarch.api.time import parse_time
from navarch.kinds.core.pod_state import condition_of, is_ready, is_sidecar, phase_of
from navarch.kinds.core.resource_lists import pod_amounts, pod_level_resource
from navarch.records import frozen

MOST: Final = 2**31 - 1
"""The largest count of replicas that there is."""
_LARGEST: Final = 2**63 - 1


class NoProposalError(Exception):
    """Nothing can be said of the replicas; the message is for people."""


class Reading(NamedTuple):
    """What a pod used, in thousandths, on average over a window that ended at a moment."""

    milli: int
    at: datetime
    window: timedelta


class Proposal(NamedTuple):
    """`average` is what a pod uses on average, in thousandths; `percent` the same of what it requests, where the
    target is one of requests."""

    replicas: int
    average: int
    percent: int | None = None


@frozen
class Tolerances:
    """How far a metric may be above and below its target without consequences, as fractions of it."""

    up: float = 0.1
    down: float = 0.1

    def within(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@frozen
class Patience:
    """For how long after its start a pod's CPU says little, and a pod that is not ready may never have been ready."""

    cpu_initialization: timedelta = timedelta(minutes=5)
    initial_readiness: timedelta = timedelta(seconds=30)


@frozen
class Grouped:
    """Pods by what they count for. `counted` is a number; the others are names."""

    counted: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


@frozen
class Situation:
    """What every metric of an autoscaler is looked at with."""

    pods: tuple[Obj, ...]
    now: datetime
    tolerances: Tolerances = Tolerances()
    patience: Patience = Patience()


def utilization_replicas(
    current: int, target_percent: int, readings: Mapping[str, Reading], resource: str, container: str, of: Situation
) -> Proposal:
    """For a target in percent of what the pods (or one `container` of each) request.  Raises NoProposalError."""
    groups, known = _known(readings, resource, of)
    requests = requests_by_pod(of.pods, resource, container)
    ratio, percent, average = _utilization(known, requests, target_percent)
    if not (groups.unready and ratio > 1.0) and not groups.missing:
        return Proposal(_in_proportion(current, ratio, groups.counted, of.tolerances), average, percent)
    # With a target above 100 % a missing pod is taken to be at it.
    full = max(100, target_percent)
    assumed = _assumed(groups, known, ratio, {name: requests.get(name, 0) * full // 100 for name in groups.missing})
    again, _, _ = _utilization(assumed, requests, target_percent)
    return Proposal(_cautious(current, ratio, again, len(assumed), of.tolerances), average, percent)


def average_replicas(
    current: int, target_milli: int, readings: Mapping[str, Reading], resource: str, of: Situation
) -> Proposal:
    """For a target per pod; `resource` is empty for what is no resource.  Raises NoProposalError."""
    groups, known = _known(readings, resource, of)
    ratio, average = _usage(known, target_milli)
    if not (groups.unready and ratio > 1.0) and not groups.missing:
        return Proposal(_in_proportion(current, ratio, groups.counted, of.tolerances), average)
    assumed = _assumed(groups, known, ratio, dict.fromkeys(groups.missing, target_milli))
    again, _ = _usage(assumed, target_milli)
    return Proposal(_cautious(current, ratio, again, len(assumed), of.tolerances), average)


def value_replicas(current: int, target_milli: int, value_milli: int, of: Situation) -> int:
    """For a value that belongs to no pod, in proportion to the pods that are ready; from none at all, as many as the
    value has targets in it.  Raises NoProposalError."""
    ratio = value_milli / target_milli
    if current == 0:
        return _whole(ratio)
    if of.tolerances.within(ratio):
        return current
    if not of.pods:
        why = "no pods returned by selector while calculating replica count"
        raise NoProposalError(f"unable to calculate ready pods: {why}")
    return _whole(ratio * sum(phase_of(pod) == "Running" and is_ready(pod) for pod in of.pods))


def shared_replicas(existing: int, target_milli: int, value_milli: int, tolerances: Tolerances) -> Proposal:
    """For a value that the replicas have to share, each having its target's worth; `existing` is how many there are."""
    # Of none, each has all of it.
    average = math.ceil(value_milli / existing) if existing else value_milli
    ratio = value_milli / (target_milli * existing) if existing else math.inf
    within = tolerances.within(ratio)
    return Proposal(existing if within else _whole(value_milli / target_milli), min(average, _LARGEST))


# What is known of pods


def grouped(pods: Iterable[Obj], readings: Mapping[str, Reading], resource: str, of: Situation) -> Grouped:
    """Which pods count, and which only as a guess."""
    counted = 0
    unready, missing, ignored = set(), set(), set()
    for pod in pods:
        name = name_of(pod)
        if is_deleting(pod) or phase_of(pod) == "Failed":
            ignored.add(name)
        elif phase_of(pod) == "Pending":
            unready.add(name)
        elif name not in readings:
            missing.add(name)
        elif resource == "cpu" and _is_unready(pod, readings[name], of):
            unready.add(name)
        else:
            counted += 1
    return Grouped(counted, frozenset(unready), frozenset(missing), frozenset(ignored))


def _is_unready(pod: Obj, reading: Reading, of: Situation) -> bool:
    """Whether what its CPU does is its start rather than its work."""
    ready = condition_of(pod, "Ready")
    started_text = (pod.get("status") or {}).get("startTime")
    if ready is None or not started_text:
        return True
    started, no = parse_time(started_text), ready.get("status") == "False"
    changed_text = ready.get("lastTransitionTime")
    changed = parse_time(changed_text) if changed_text else started
    if started + of.patience.cpu_initialization > of.now:
        # One whole window has to be of the time since it became ready.
        return no or reading.at < changed + reading.window
    return no and started + of.patience.initial_readiness > changed


def requests_by_pod(pods: Iterable[Obj], resource: str, container: str) -> dict[str, int]:
    """What each pod, or one container of each, requests, in thousandths.  Raises NoProposalError."""
    return {name_of(pod): _request_of(pod, resource, container) for pod in pods}


def _request_of(pod: Obj, resource: str, container: str) -> int:
    spec, name = pod["spec"], name_of(pod)
    stated = (spec.get("resources") or {}).get("requests") or {}
    if not container and any(pod_level_resource(each) for each in stated):
        amount = pod_amounts(spec).get(resource)
        if amount is None:
            raise NoProposalError(f"missing pod-level request for {resource} in Pod {name}")
        return quantity.milli(amount)
    sidecars = [each for each in spec.get("initContainers") or () if is_sidecar(each)]
    total, found = 0, not container
    for each in (*spec["containers"], *sidecars):
        if container and each["name"] != container:
            continue
        found = True
        request = ((each.get("resources") or {}).get("requests") or {}).get(resource)
        if request is None:
            raise NoProposalError(f"missing request for {resource} in container {each['name']} of Pod {name}")
        total += quantity.milli(request)
    if not found:
        raise NoProposalError(f"container {container} not found in Pod {name}")
    return total


def _known(readings: Mapping[str, Reading], resource: str, of: Situation) -> tuple[Grouped, dict[str, int]]:
    """The pods grouped, and what those that count have used."""
    if not of.pods:
        raise NoProposalError("no pods returned by selector while calculating replica count")
    groups = grouped(of.pods, readings, resource, of)
    left_out = groups.ignored | groups.unready
    known = {name: reading.milli for name, reading in readings.items() if name not in left_out}
    if not known:
        raise NoProposalError("did not receive metrics for targeted pods (pods might be unready)")
    return groups, known


# Arithmetic


def _utilization(used: Mapping[str, int], requests: Mapping[str, int], target: int) -> tuple[float, int, int]:
    """What is used to what should be, the percentage, and the average, of the pods that are known to both."""
    both = [name for name in used if name in requests]
    requested, total = sum(requests[name] for name in both), sum(used[name] for name in both)
    if requested == 0:
        raise NoProposalError("no metrics returned matched known pods")
    percent = _divided(total * 100, requested)
    return percent / target, percent, _divided(total, len(both))


def _usage(used: Mapping[str, int], target_milli: int) -> tuple[float, int]:
    average = _divided(sum(used.values()), len(used))
    return average / target_milli, average


def _assumed(groups: Grouped, known: Mapping[str, int], ratio: float, full: Mapping[str, int]) -> dict[str, int]:
    """What is known, and beside it what is taken to be so: in doubt against the change that the rest asks for."""
    assumed = dict(known)
    if ratio < 1.0:
        assumed.update(full)
    elif ratio > 1.0:
        assumed.update(dict.fromkeys(groups.missing, 0))
        assumed.update(dict.fromkeys(groups.unready, 0))
    return assumed


def _in_proportion(current: int, ratio: float, counted: int, tolerances: Tolerances) -> int:
    return current if tolerances.within(ratio) else _whole(ratio * counted)


def _cautious(current: int, ratio: float, again: float, count: int, tolerances: Tolerances) -> int:
    """As many as the second look asks for, unless it is too little of a change or in the other direction."""
    turned = (ratio < 1.0 < again) or (again < 1.0 < ratio)
    if tolerances.within(again) or turned:
        return current
    proposed = _whole(again * count)
    if (again < 1.0 and proposed > current) or (again > 1.0 and proposed < current):
        return current
    return proposed


def _divided(total: int, by: int) -> int:
    """Towards zero."""
    return total // by if total >= 0 else -(-total // by)


def _whole(replicas: float) -> int:
    return MOST if replicas > MOST else math.ceil(replicas)
