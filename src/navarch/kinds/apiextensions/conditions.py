"""The conditions of a CustomResourceDefinition."""

from __future__ import annotations

from collections.abc import Iterable

from navarch.api.meta import Obj
from navarch.records import frozen


@frozen
class Condition:
    type: str
    status: str
    reason: str
    message: str


def find(crd: Obj, type_: str) -> Obj | None:
    for condition in (crd.get("status") or {}).get("conditions") or ():
        if condition.get("type") == type_:
            found: Obj = condition
            return found
    return None


def is_true(crd: Obj, type_: str) -> bool:
    found = find(crd, type_)
    return found is not None and found.get("status") == "True"


def is_said(crd: Obj, condition: Condition) -> bool:
    found = find(crd, condition.type) or {}
    return (found.get("status"), found.get("reason"), found.get("message")) == (
        condition.status,
        condition.reason,
        condition.message,
    )


def with_conditions(crd: Obj, conditions: Iterable[Condition], now: str, without: Iterable[str] = ()) -> list[Obj]:
    """All conditions, these among them; the time of one that stays true or false is kept."""
    dropped = frozenset(without)
    found = [
        dict(each) for each in (crd.get("status") or {}).get("conditions") or () if each.get("type") not in dropped
    ]
    by_type = {each.get("type"): each for each in found}
    for condition in conditions:
        each = by_type.get(condition.type)
        if each is None:
            each = {"type": condition.type, "status": "", "lastTransitionTime": now}
            found.append(each)
        if each.get("status") != condition.status or not each.get("lastTransitionTime"):
            each["lastTransitionTime"] = now
        each |= {"status": condition.status, "reason": condition.reason, "message": condition.message}
    return found
