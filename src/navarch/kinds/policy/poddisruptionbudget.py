"""PodDisruptionBudget: validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError, invalid_value, not_supported
from navarch.api.meta import Obj
from navarch.api.validation import validate_label_selector, validate_non_negative
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.conditions import validate_conditions
from navarch.kinds.counts import complete_conditions
from navarch.kinds.internal import internal
from navarch.kinds.rollout import validate_at_most_all, validate_int_or_percent
from navarch.kinds.strategies import strategy

_STATUS_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


@strategy("policy", "PodDisruptionBudget")
class PodDisruptionBudgetStrategy(Strategy):
    # Kubernetes does not look at this kind's metadata.
    name_rule = "path"
    allow_unconditional_update = False
    has_generation = True
    columns = (
        NAME,
        Column("Min Available", columns.text("spec.minAvailable", "N/A")),
        Column("Max Unavailable", columns.text("spec.maxUnavailable", "N/A")),
        Column("Allowed Disruptions", columns.count("status.disruptionsAllowed"), type="integer"),
        AGE,
    )

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}

    def complete(self, obj: Obj) -> None:
        obj.setdefault("spec", {})
        complete_conditions(obj)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
            shown = internal(spec, "PodDisruptionBudgetSpec")
            yield invalid_value("spec", shown, "minAvailable and maxUnavailable cannot be both set")
        for name in ("minAvailable", "maxUnavailable"):
            if (value := spec.get(name)) is not None:
                yield from validate_int_or_percent(value, f"spec.{name}")
                yield from validate_at_most_all(value, f"spec.{name}")
        yield from validate_label_selector(spec.get("selector"), "spec.selector")
        policy = spec.get("unhealthyPodEvictionPolicy")
        if policy is not None and policy not in ("IfHealthyBudget", "AlwaysAllow"):
            yield not_supported("spec.unhealthyPodEvictionPolicy", policy, ["AlwaysAllow", "IfHealthyBudget"])

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status = obj.get("status") or {}
        yield from validate_conditions(status.get("conditions") or (), "status.conditions")
        for name in _STATUS_COUNTS:
            yield from validate_non_negative(status.get(name, 0), f"status.{name}")
