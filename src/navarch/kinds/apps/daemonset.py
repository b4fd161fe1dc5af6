"""DaemonSet: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj, get_path
from navarch.api.validation import validate_immutable, validate_label_selector
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column
from navarch.kinds.core.pod_defaults import default_pod_template
from navarch.kinds.core.pod_prepare import prepare_template
from navarch.kinds.core.pod_validation import validate_pod_template_spec
from navarch.kinds.counts import complete_conditions, validate_collisions, validate_counts
from navarch.kinds.internal import internal
from navarch.kinds.rollout import (
    WorkloadStrategy,
    is_empty_selector,
    is_zero,
    validate_always_runs,
    validate_at_most_all,
    validate_int_or_percent,
    validate_read_only_disks,
    validate_template_labels,
)
from navarch.kinds.strategies import strategy
from navarch.numbers import integer_or

# Counts the template's changes. Kubernetes keeps it in an annotation since the field left the API.
GENERATION = "deprecated.daemonset.template.generation"
_STATUS_COUNTS = (
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
)


@strategy("apps", "DaemonSet")
class DaemonSetStrategy(WorkloadStrategy):
    columns = (
        NAME,
        Column("Desired", columns.count("status.desiredNumberScheduled"), type="integer"),
        Column("Current", columns.count("status.currentNumberScheduled"), type="integer"),
        Column("Ready", columns.count("status.numberReady"), type="integer"),
        Column("Up-to-date", columns.count("status.updatedNumberScheduled"), type="integer"),
        Column("Available", columns.count("status.numberAvailable"), type="integer"),
        Column("Node Selector", lambda obj, now: columns.labels(get_path(obj, "spec.template.spec.nodeSelector"))),
        AGE,
        *columns.pod_template_columns("spec.template.spec", "spec.selector"),
    )
    fields_in_annotations = (GENERATION,)

    def warns_again(self, obj: Obj, old: Obj) -> bool:
        return bool(obj["spec"].get("template") != old["spec"].get("template"))

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        update = spec.setdefault("updateStrategy", {})
        if not update.get("type"):
            update["type"] = "RollingUpdate"
        if update["type"] == "RollingUpdate":
            rolling = update.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
        spec.setdefault("revisionHistoryLimit", 10)
        default_pod_template(spec.setdefault("template", {}))
        # Who writes a DaemonSet owns the count.
        _annotations(obj).setdefault(GENERATION, "0")

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {
            "currentNumberScheduled": 0,
            "numberMisscheduled": 0,
            "desiredNumberScheduled": 0,
            "numberReady": 0,
        }
        prepare_template(obj["spec"], on=self.on)
        _annotations(obj)[GENERATION] = "1"

    def complete(self, obj: Obj) -> None:
        complete_conditions(obj)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        generation = _generation(old)
        if obj["spec"].get("template") != old["spec"].get("template"):
            generation += 1
        _annotations(obj)[GENERATION] = str(generation)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        template = spec.get("template") or {}
        if old is not None:
            yield from validate_immutable(spec.get("selector"), old["spec"].get("selector"), "spec.selector")
        yield from _validate_selector(spec)
        yield from validate_pod_template_spec(template, "spec.template")
        yield from validate_read_only_disks(spec, old and old["spec"])
        yield from validate_always_runs(template, "DaemonSet")
        yield from validate_counts(spec, ("minReadySeconds", "revisionHistoryLimit"))
        update = spec.get("updateStrategy") or {}
        if update.get("type") == "RollingUpdate":
            yield from _validate_rolling(update.get("rollingUpdate"), "spec.updateStrategy.rollingUpdate")
        elif update.get("type") != "OnDelete":
            yield not_supported(
                "spec.updateStrategy", internal(update, "DaemonSetUpdateStrategy"), ["RollingUpdate", "OnDelete"]
            )

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        yield from validate_counts(obj.get("status") or {}, _STATUS_COUNTS, "status")
        yield from validate_collisions(obj, old)


def _validate_selector(spec: Obj) -> Iterator[FieldError]:
    """That there is one is not asked for, but none selects nothing."""
    selector = spec.get("selector")
    if selector is not None:
        yield from validate_label_selector(selector, "spec.selector")
    yield from validate_template_labels(spec)
    if selector is not None and is_empty_selector(selector):
        yield invalid_value("spec.selector", selector, "empty selector is invalid for daemonset")


def _annotations(obj: Obj) -> Obj:
    metadata = obj["metadata"]
    if not metadata.get("annotations"):
        metadata["annotations"] = {}
    annotations: Obj = metadata["annotations"]
    return annotations


def _generation(obj: Obj) -> int:
    text = (obj["metadata"].get("annotations") or {}).get(GENERATION, "1")
    return integer_or(text, 1)


def _validate_rolling(rolling: Obj | None, path: str) -> Iterator[FieldError]:
    if rolling is None:
        yield required(path)
        return
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    yield from validate_int_or_percent(unavailable, f"{path}.maxUnavailable")
    yield from validate_int_or_percent(surge, f"{path}.maxSurge")
    if is_zero(unavailable) and is_zero(surge):
        yield required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0")
    elif not is_zero(unavailable) and not is_zero(surge):
        yield invalid_value(f"{path}.maxSurge", surge, "may not be set when maxUnavailable is non-zero")
    yield from validate_at_most_all(unavailable, f"{path}.maxUnavailable")
    yield from validate_at_most_all(surge, f"{path}.maxSurge")
