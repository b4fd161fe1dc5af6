"""ReplicaSet: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError
from navarch.api.meta import Obj
from navarch.api.validation import validate_immutable
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column
from navarch.kinds.core.pod_defaults import default_pod_template
from navarch.kinds.core.pod_prepare import prepare_template
from navarch.kinds.counts import complete_conditions, validate_counts, validate_replica_status
from navarch.kinds.rollout import WorkloadStrategy, validate_read_only_disks, validate_selector, validate_template
from navarch.kinds.strategies import strategy


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
        prepare_template(obj["spec"], on=self.on)

    def complete(self, obj: Obj) -> None:
        complete_conditions(obj)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        yield from validate_counts(spec, ("replicas", "minReadySeconds"))
        yield from validate_selector(spec, "deployment")
        yield from validate_template(spec, "ReplicaSet", mistaken_selector="invalid label selector")
        if spec["replicas"] > 1:
            yield from validate_read_only_disks(spec, old and old["spec"])
        if old is not None:
            yield from validate_immutable(spec.get("selector"), old["spec"].get("selector"), "spec.selector")

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return validate_replica_status(obj)
