"""Counts in the specs and statuses of what keeps a number of pods, and the conditions beside them.

In: parts of an object that has passed its type check, with their dotted path.  Out: `FieldError`s with Kubernetes'
words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from navarch.api.errors import FieldError, invalid_value
from navarch.api.meta import Obj
from navarch.api.validation import validate_non_negative


def validate_counts(spec: Obj, names: Sequence[str], path: str = "spec") -> Iterator[FieldError]:
    """None of the named fields may be negative."""
    for name in names:
        if (value := spec.get(name)) is not None:
            yield from validate_non_negative(value, f"{path}.{name}")


def validate_status_counts(
    status: Obj,
    names: Sequence[str],
    *,
    at_most: Sequence[str] = (),
    available: str = "cannot be greater than readyReplicas",
) -> Iterator[FieldError]:
    """Counts in a status: not negative, those in `at_most` not above its replicas, available never above ready."""
    yield from validate_counts(status, names, "status")
    replicas = status.get("replicas") or 0
    for name in at_most:
        if (count := status.get(name) or 0) > replicas:
            yield invalid_value(f"status.{name}", count, "cannot be greater than status.replicas")
    if at_most and (count := status.get("availableReplicas") or 0) > (status.get("readyReplicas") or 0):
        yield invalid_value("status.availableReplicas", count, available)


_REPLICA_PARTS: Final = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")


def validate_replica_status(obj: Obj) -> Iterator[FieldError]:
    """The status of what keeps a number of pods and nothing else."""
    names = ("replicas", *_REPLICA_PARTS, "observedGeneration", "terminatingReplicas")
    return validate_status_counts(obj.get("status") or {}, names, at_most=_REPLICA_PARTS)


def validate_collisions(obj: Obj, old: Obj) -> Iterator[FieldError]:
    """`collisionCount` only grows."""
    before = (old.get("status") or {}).get("collisionCount")
    now = (obj.get("status") or {}).get("collisionCount")
    if before is not None and (now is None or now < before):
        yield invalid_value("status.collisionCount", now or 0, "cannot be decremented")


def complete_conditions(obj: Obj, times: Sequence[str] = ("lastTransitionTime",)) -> None:
    """A condition has its times, null where nobody said them."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        for name in times:
            condition.setdefault(name, None)
