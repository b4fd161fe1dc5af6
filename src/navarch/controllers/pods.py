"""What controllers ask about pods besides `kinds.core.pod_state`: since when they are ready, whether that makes them
available (ready for at least `minReadySeconds`), and which one is missed least. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from navarch.api.meta import Obj, annotations_of
from navarch.api.time import parse_time
from navarch.kinds.core.pod_state import condition_of, is_ready, phase_of
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


def restarts_of(pod: Obj) -> int:
    return max((int(c.get("restartCount") or 0) for c in (pod.get("status") or {}).get("containerStatuses") or ()),
               default=0)  # fmt: skip


def created_at(obj: Obj) -> datetime:
    stamp = obj["metadata"].get("creationTimestamp")
    return parse_time(stamp) if stamp else _EPOCH


_PHASE_RANK = {"Pending": 0, "Unknown": 1, "": 1, "Running": 2}


def deletion_order(pods: Iterable[Obj], now: datetime, on_same_node: Callable[[str], int]) -> list[Obj]:
    """Pods in the order in which to give them up: unassigned, pending, not ready, lower deletion cost, on a node with
    more of their kind, ready for a shorter time (in powers of two, so that ages do not decide between near equals),
    more restarts, younger. `on_same_node` counts the related pods on a node."""

    def rank(pod: Obj) -> tuple[Any, ...]:
        node = (pod.get("spec") or {}).get("nodeName") or ""
        since = ready_since(pod)
        ready = since is not None
        return (
            bool(node),
            _PHASE_RANK.get(phase_of(pod), 2),
            ready,
            deletion_cost(pod),
            -on_same_node(node) if ready else 0,
            _logarithmic_age(since, now) if since else 0,
            -restarts_of(pod),
            _logarithmic_age(created_at(pod), now),
            pod["metadata"].get("uid", ""),
        )

    return sorted(pods, key=rank)


def deletion_cost(pod: Obj) -> int:
    return integer_or(annotations_of(pod).get(_DELETION_COST, "0"), 0, 32)


def _logarithmic_age(since: datetime, now: datetime) -> int:
    return int(max((now - since).total_seconds(), 0)).bit_length()


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
