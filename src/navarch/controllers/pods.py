"""What controllers ask about pods besides `kinds.core.pod_state`: since when they are ready, whether that makes them
available (ready for at least `minReadySeconds`), and which one is missed least. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from navarch.api.meta import Obj, annotations_of
from navarch.api.time import parse_time
from navarch.kinds.core.pod_state import condition_of, is_ready, is_sidecar, phase_of
from navarch.numbers import ascii_integer, integer_or, saturated

_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_EPOCH = parse_time("1970-01-01T00:00:00Z")


def ready_since(pod: Obj) -> datetime | None:
    """When a ready pod became ready."""
    condition = condition_of(pod, "Ready")
    if condition is None or condition.get("status") != "True":
        return None
    since = condition.get("lastTransitionTime")
    return parse_time(since) if since else _EPOCH


def is_available(pod: Obj, min_ready_s: int, now: datetime) -> bool:
    if min_ready_s <= 0:
        return is_ready(pod)
    since = ready_since(pod)
    return since is not None and since > _EPOCH and since + timedelta(seconds=min_ready_s) <= now


def next_available_s(pods: Iterable[Obj], min_ready_s: int, now: datetime) -> float | None:
    """Seconds until the next of the ready pods becomes available; None where there is none to wait for."""
    if min_ready_s <= 0:
        return None
    waits = [
        (since + timedelta(seconds=min_ready_s) - now).total_seconds()
        for pod in pods
        if (since := ready_since(pod)) is not None
    ]
    return min((wait for wait in waits if wait > 0), default=None)


def restarts_of(pod: Obj) -> tuple[int, int]:
    """How often the container that did so most often was started again, and the same of the sidecars."""
    status = pod.get("status") or {}
    sidecars = {each["name"] for each in (pod.get("spec") or {}).get("initContainers") or () if is_sidecar(each)}
    regular = [int(each.get("restartCount") or 0) for each in status.get("containerStatuses") or ()]
    beside = [
        int(each.get("restartCount") or 0)
        for each in status.get("initContainerStatuses") or ()
        if each.get("name") in sidecars
    ]
    return max(regular, default=0), max(beside, default=0)


def created_at(obj: Obj) -> datetime:
    stamp = obj["metadata"].get("creationTimestamp")
    return parse_time(stamp) if stamp else _EPOCH


_PHASE_RANK = {"Pending": 0, "": 0, "Unknown": 1, "Running": 2}


class _Rank(NamedTuple):
    """What decides which pod is given up first, the least first; see `deletion_order`."""

    standing: tuple[bool, int, bool]
    cost: int
    alone: int
    ready: datetime | None
    restarts: tuple[int, int]
    created: datetime
    uid: str


def _rank(pod: Obj, on_same_node: Callable[[str], int]) -> _Rank:
    node = (pod.get("spec") or {}).get("nodeName") or ""
    since = ready_since(pod)
    regular, sidecars = restarts_of(pod)
    return _Rank(
        (bool(node), _PHASE_RANK.get(phase_of(pod), 0), since is not None), deletion_cost(pod), -on_same_node(node),
        since, (-regular, -sidecars), created_at(pod), pod["metadata"].get("uid", ""),
    )  # fmt: skip


def deletion_order(pods: Iterable[Obj], now: datetime, on_same_node: Callable[[str], int]) -> list[Obj]:
    """Pods in the order in which to give them up: unassigned, pending, not ready, lower deletion cost, on a node with
    more of their kind, ready for a shorter time (in powers of two: between near equals the uid decides), more restarts,
    younger. `on_same_node` counts the related pods on a node."""

    def compare(left: tuple[_Rank, Obj], right: tuple[_Rank, Obj]) -> int:
        a, b = left[0], right[0]
        if a[:3] != b[:3]:
            return -1 if a[:3] < b[:3] else 1
        if a.ready is not None and b.ready is not None and a.ready != b.ready:
            return _by_age(a, b, a.ready, b.ready, now)
        if a.restarts != b.restarts:
            return -1 if a.restarts < b.restarts else 1
        return _by_age(a, b, a.created, b.created, now) if a.created != b.created else 0

    ranked = [(_rank(pod, on_same_node), pod) for pod in pods]
    return [pod for _, pod in sorted(ranked, key=functools.cmp_to_key(compare))]


def _by_age(a: _Rank, b: _Rank, since: datetime, other: datetime, now: datetime) -> int:
    """The younger comes first, by powers of two, and one that does not say since when before both."""
    if _EPOCH in (since, other):
        return -1 if since == _EPOCH else 1
    younger = _logarithmic_age(since, now) - _logarithmic_age(other, now)
    return younger or (-1 if a.uid < b.uid else 1)


def removal_order(pods: Iterable[Obj]) -> list[Obj]:
    """Pods of a Job in the order in which to give them up: what they cost and where they are does not count there, and
    the exact times do."""

    def key(pod: Obj) -> tuple[Any, ...]:
        rank = _rank(pod, lambda _node: 0)
        ready = -(rank.ready - _EPOCH).total_seconds() if rank.ready not in (None, _EPOCH) else float("-inf")
        return rank.standing, ready, rank.restarts, -(rank.created - _EPOCH).total_seconds()

    return sorted(pods, key=key)


# As Kubernetes reads it: no sign but a minus, no leading zeros.
_COST: Final = re.compile(r"-[0-9]+|0|[1-9][0-9]*")


def deletion_cost(pod: Obj) -> int:
    text = annotations_of(pod).get(_DELETION_COST, "0")
    return integer_or(text, 0, 32) if _COST.fullmatch(text) else 0


def _logarithmic_age(since: datetime, now: datetime) -> int:
    """The power of two below the age in nanoseconds; -1 for what is to come."""
    nanoseconds = (now - since) // timedelta(microseconds=1) * 1000
    return nanoseconds.bit_length() - 1 if nanoseconds > 0 else -1


def same_semantics(left: Any, right: Any) -> bool:
    """Equality in which null, absent and empty are one, as the API reads them."""
    if left is right:
        return True
    if isinstance(left, dict) and isinstance(right, dict):
        return all(same_semantics(left.get(key), right.get(key)) for key in left.keys() | right.keys())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same_semantics(a, b) for a, b in zip(left, right, strict=True))
    if _is_empty(left) and _is_empty(right):
        return True
    return bool(left == right)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (dict, list, str)) and not value)


def int_or_percent(value: Any, total: int, *, round_up: bool) -> int:
    """An IntOrString: a number, or a percentage of `total`."""
    if isinstance(value, str) and value.endswith("%"):
        scaled = total * saturated(value[:-1])
        return -(-scaled // 100) if round_up else scaled // 100
    return ascii_integer(value) if isinstance(value, str) else int(value or 0)
