"""A Job's conditions. Pure: each function gives a new list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from navarch.api.meta import Obj
from navarch.api.time import format_time


def make(type: str, status: str, reason: str, message: str, now: datetime) -> Obj:
    stamp = format_time(now)
    return {
        "type": type,
        "status": status,
        "lastProbeTime": stamp,
        "lastTransitionTime": stamp,
        "reason": reason,
        "message": message,
    }


def of_type(conditions: Iterable[Obj], type: str) -> Obj | None:
    """The condition, if it is there and True."""
    return next((c for c in conditions if c.get("type") == type and c.get("status") == "True"), None)


def set_condition(conditions: Sequence[Obj], new: Obj) -> list[Obj]:
    """Replace the one of the same type where its status or reason differ; one that was never True is not added as
    False."""
    current = next((c for c in conditions if c.get("type") == new["type"]), None)
    if current is None:
        return [*conditions, new] if new["status"] != "False" else list(conditions)
    if current.get("status") == new["status"] and current.get("reason") == new["reason"]:
        return list(conditions)
    return [new if c is current else c for c in conditions]


def is_finished(job: Obj) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return of_type(conditions, "Complete") is not None or of_type(conditions, "Failed") is not None
