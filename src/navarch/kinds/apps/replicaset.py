"""ReplicaSet: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError
from navarch.api.meta import Obj
from navarch.api.validation import validate_immutable
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column
from navarch.kinds.core.pod_defaults import default_pod_template
from navarch.kinds.rollout import (
    WorkloadStrategy,
    validate_counts,
    validate_selector,
    validate_status_counts,
    validate_template,
)
from navarch.kinds.strategies import strategy

_PARTS = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")


@strategy("apps", "ReplicaSet")
class ReplicaSetStrategy(WorkloadStrategy):
    columns = (
        NAME,
        Column("Desired", columns.count("spec.replicas"), type="integer", description="Number of desired pods."),
        Column("Current", columns.count("status.replicas"), type="integer"),
        Column("Ready", columns.count("status.readyReplicas"), type="integer"),
        AGE,
        *columns.pod_template_columns("spec.template.spec", "spec.selector"),
    )

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("replicas", 1)
        default_pod_template(spec.setdefault("template", {}))

    def prepare_create(self, obj: Obj) -> None:
        # The count is served even where no controller has written a status yet.
        obj["status"] = {"replicas": 0}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        yield from validate_counts(spec, ("replicas", "minReadySeconds"))
        yield from validate_selector(spec, "deployment")
        yield from validate_template(spec, "ReplicaSet")
        if old is not None:
            yield from validate_immutable(spec.get("selector"), old["spec"].get("selector"), "spec.selector")

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        names = ("replicas", *_PARTS, "observedGeneration", "terminatingReplicas")
        yield from validate_status_counts(obj.get("status") or {}, names, at_most=("replicas", _PARTS))
