"""Deployment: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_immutable
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column
from navarch.kinds.core.pod_defaults import default_pod_template
from navarch.kinds.core.pod_prepare import prepare_template
from navarch.kinds.counts import complete_conditions, validate_collisions, validate_counts, validate_status_counts
from navarch.kinds.internal import internal
from navarch.kinds.rollout import (
    WorkloadStrategy,
    is_zero,
    validate_at_most_all,
    validate_int_or_percent,
    validate_read_only_disks,
    validate_selector,
    validate_template,
)
from navarch.kinds.strategies import strategy

_STATUS_COUNTS = (
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
    "collisionCount",
)
_PARTS = ("updatedReplicas", "readyReplicas", "availableReplicas")


@strategy("apps", "Deployment")
class DeploymentStrategy(WorkloadStrategy):
    generation_counts_annotations = True
    status_keeps = ("labels",)
    columns = (
        NAME,
        Column(
            "Ready",
            columns.ratio("status.readyReplicas", "spec.replicas", 1),
            description="Number of the pod with ready state",
        ),
        Column("Up-to-date", columns.count("status.updatedReplicas")),
        Column("Available", columns.count("status.availableReplicas")),
        AGE,
        *columns.pod_template_columns("spec.template.spec", "spec.selector"),
    )

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("replicas", 1)
        update = spec.setdefault("strategy", {})
        if not update.get("type"):
            update["type"] = "RollingUpdate"
        if update["type"] == "RollingUpdate":
            rolling = update.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)
        default_pod_template(spec.setdefault("template", {}))

    def prepare_create(self, obj: Obj) -> None:
        # Clients read a status that is there from the start.
        obj["status"] = {}
        prepare_template(obj["spec"], on=self.on)

    def complete(self, obj: Obj) -> None:
        complete_conditions(obj, ("lastUpdateTime", "lastTransitionTime"))

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        yield from validate_counts(spec, ("replicas",))
        yield from validate_selector(spec, "deployment")
        yield from validate_template(spec, "ReplicaSet", mistaken_selector="invalid label selector")
        if spec["replicas"] > 1:
            yield from validate_read_only_disks(spec, old and old["spec"])
        yield from _validate_strategy(spec.get("strategy") or {})
        yield from validate_counts(spec, ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"))
        deadline = spec.get("progressDeadlineSeconds")
        if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
            yield invalid_value("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")
        if old is not None:
            yield from validate_immutable(spec.get("selector"), old["spec"].get("selector"), "spec.selector")

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status = obj.get("status") or {}
        yield from validate_status_counts(status, _STATUS_COUNTS, at_most=_PARTS)
        yield from validate_collisions(obj, old)


def _validate_strategy(update: Obj) -> Iterator[FieldError]:
    rolling = update.get("rollingUpdate")
    if update.get("type") == "Recreate":
        if rolling is not None:
            yield forbidden_field(
                "spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'"
            )
    elif update.get("type") == "RollingUpdate":
        if rolling is None:
            yield required("spec.strategy.rollingUpdate", "this should be defaulted and never be nil")
        else:
            yield from _validate_rolling(rolling, "spec.strategy.rollingUpdate")
    else:
        yield not_supported("spec.strategy", internal(update, "DeploymentStrategy"), ["Recreate", "RollingUpdate"])


def _validate_rolling(rolling: Obj, path: str) -> Iterator[FieldError]:
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    yield from validate_int_or_percent(unavailable, f"{path}.maxUnavailable")
    yield from validate_int_or_percent(surge, f"{path}.maxSurge")
    if is_zero(unavailable) and is_zero(surge):
        yield invalid_value(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0")
    yield from validate_at_most_all(unavailable, f"{path}.maxUnavailable")
