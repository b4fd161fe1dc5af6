"""PriorityClass: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, not_supported
from navarch.api.meta import Obj
from navarch.api.validation import validate_immutable
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.columns import count, text
from navarch.kinds.strategies import strategy

_MAX_USER_VALUE: Final = 1_000_000_000
# The classes that the system itself may have, with their values.
SYSTEM_CLASSES: Final = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}


@strategy("scheduling.k8s.io", "PriorityClass")
class PriorityClassStrategy(Strategy):
    columns = (
        NAME,
        Column("Value", count("value"), type="integer"),
        Column("Global-Default", lambda obj, now: bool(obj.get("globalDefault")), type="boolean"),
        AGE,
        Column("PreemptionPolicy", text("preemptionPolicy", "")),
    )

    def defaults(self, obj: Obj) -> None:
        obj.setdefault("value", 0)
        obj.setdefault("preemptionPolicy", "PreemptLowerPriority")

    def prepare_create(self, obj: Obj) -> None:
        # For good: what a change may touch does not count as one.
        obj["metadata"]["generation"] = 1

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        """There is no status to keep."""

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        name, value = obj["metadata"].get("name") or "", obj.get("value", 0)
        if name.startswith("system-"):
            if SYSTEM_CLASSES.get(name) != value or obj.get("globalDefault"):
                yield forbidden_field(
                    "metadata.name",
                    "priority class names with 'system-' prefix are reserved for system use only. "
                    f"error: {_system_problem(name, value)}",
                )
        elif value > _MAX_USER_VALUE:
            detail = f"maximum allowed value of a user defined priority is {_MAX_USER_VALUE}"
            yield forbidden_field("value", detail)
        policy = obj.get("preemptionPolicy")
        if policy not in ("PreemptLowerPriority", "Never"):
            yield not_supported("preemptionPolicy", policy or "", ["PreemptLowerPriority", "Never"])
        if old is not None:
            if value != old.get("value", 0):
                yield forbidden_field("value", "may not be changed in an update.")
            yield from validate_immutable(policy, old.get("preemptionPolicy"), "preemptionPolicy")

    def refuse_deletion(self, obj: Obj) -> str:
        is_system = obj["metadata"]["name"] in SYSTEM_CLASSES
        return "this is a system priority class and cannot be deleted" if is_system else ""


def _system_problem(name: str, value: int) -> str:
    if name not in SYSTEM_CLASSES:
        return f"{name} is not a known system priority class"
    if value != SYSTEM_CLASSES[name]:
        return f"value of {name} PriorityClass must be {SYSTEM_CLASSES[name]}"
    return f"globalDefault of {name} PriorityClass must be false"
