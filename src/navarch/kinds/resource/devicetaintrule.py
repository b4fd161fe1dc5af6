"""DeviceTaintRule: a taint on all devices that a selector matches, set by an administrator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, too_many
from navarch.api.meta import Obj
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.columns import since
from navarch.kinds.conditions import validate_conditions
from navarch.kinds.resource.names import (
    driver_problems,
    label_problems,
    pool_problems,
    taint_problems,
)
from navarch.kinds.strategies import strategy

_MOST_CONDITIONS: Final = 8
_SELECTED_BY: Final = (("driver", driver_problems), ("pool", pool_problems), ("device", label_problems))


@strategy("resource.k8s.io", "DeviceTaintRule")
class DeviceTaintRuleStrategy(Strategy):
    has_generation = True
    returns_deleted = True
    stamps = True
    columns = (
        NAME,
        Column("Key", ".spec.taint.key"),
        Column("Value", ".spec.taint.value"),
        Column("Effect", ".spec.taint.effect"),
        Column("TimeAdded", since("spec.taint.timeAdded", "")),
        AGE,
    )
    status_keeps = SETTABLE_METADATA

    def stamp(self, obj: Obj, now: str, old: Obj | None) -> None:
        taint = (obj.get("spec") or {}).get("taint")
        if taint is not None and not taint.get("timeAdded"):
            taint["timeAdded"] = now

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        selector = spec.get("deviceSelector") or {}
        for name, problems in _SELECTED_BY:
            if selector.get(name) is not None:
                yield from problems(selector[name], f"spec.deviceSelector.{name}")
        before = None if old is None else (old.get("spec") or {}).get("taint") or {}
        yield from taint_problems(spec.get("taint") or {}, "spec.taint", before)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        conditions = (obj.get("status") or {}).get("conditions") or ()
        yield from validate_conditions(conditions, "status.conditions")
        if len(conditions) > _MOST_CONDITIONS:
            yield too_many("status.conditions", len(conditions), _MOST_CONDITIONS)
