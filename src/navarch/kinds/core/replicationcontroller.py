"""ReplicationController: the elder of ReplicaSet; its selector is a plain map, defaulted from its template."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj, is_new_generation
from navarch.api.validation import validate_non_negative
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.columns import pod_template_columns
from navarch.kinds.core.pod_defaults import default_pod_template
from navarch.kinds.core.pod_prepare import GATES, prepare_template
from navarch.kinds.core.pod_validation import validate_pod_template_spec
from navarch.kinds.core.pod_warnings import name_warnings, pod_warnings
from navarch.kinds.counts import complete_conditions, validate_replica_status
from navarch.kinds.strategies import strategy


def _desired_cell(obj: Obj, now: datetime) -> int:
    return int(obj["spec"].get("replicas") or 0)


def _status_count(field: str) -> Column:
    def cell(obj: Obj, now: datetime) -> int:
        return int((obj.get("status") or {}).get(field) or 0)

    name = {"replicas": "Current", "readyReplicas": "Ready"}[field]
    return Column(name, cell, type="integer", description=f"How many of status.{field}")


@strategy("", "ReplicationController")
class ReplicationControllerStrategy(Strategy):
    name_rule = "subdomain in bytes"
    columns = (
        NAME,
        Column("Desired", _desired_cell, type="integer", description="How many pods are wanted"),
        _status_count("replicas"),
        _status_count("readyReplicas"),
        AGE,
        *pod_template_columns("spec.template.spec", "spec.selector", selector_is_map=True),
    )
    selectable = ("status.replicas",)
    has_generation = True
    gates = GATES

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        template = spec.get("template")
        if template is not None:
            default_pod_template(template)
            labels = template["metadata"].get("labels")
            if labels:
                if not spec.get("selector"):
                    spec["selector"] = dict(labels)
                if not obj["metadata"].get("labels"):
                    obj["metadata"]["labels"] = dict(labels)
        spec.setdefault("replicas", 1)

    def field_value(self, obj: Obj, path: str) -> str:
        return str((obj.get("status") or {}).get("replicas") or 0)

    def prepare_create(self, obj: Obj) -> None:
        prepare_template(obj["spec"], on=self.on)
        obj["status"] = {"replicas": 0}

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        prepare_template(obj["spec"], old["spec"], self.on)

    def complete(self, obj: Obj) -> None:
        complete_conditions(obj)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from self._validate_spec(obj["spec"])
        if old is not None:
            # Kubernetes looks twice, and says everything twice.
            yield from self._validate_spec(obj["spec"])

    def _validate_spec(self, spec: Obj) -> Iterator[FieldError]:
        yield from validate_non_negative(spec.get("minReadySeconds", 0), "spec.minReadySeconds")
        selector = spec.get("selector") or {}
        if not selector:
            yield required("spec.selector")
        yield from validate_non_negative(spec["replicas"], "spec.replicas")
        template = spec.get("template")
        if template is None:
            yield required("spec.template")
            return
        labels = (template.get("metadata") or {}).get("labels") or {}
        if selector and any(labels.get(key) != value for key, value in selector.items()):
            detail = "`selector` does not match template `labels`"
            yield invalid_value("spec.template.metadata.labels", labels or None, detail)
        yield from validate_pod_template_spec(template, "spec.template")
        policy = (template.get("spec") or {}).get("restartPolicy")
        if policy != "Always":
            yield not_supported("spec.template.spec.restartPolicy", policy, ("Always",))
        if (template.get("spec") or {}).get("activeDeadlineSeconds") is not None:
            detail = "activeDeadlineSeconds in ReplicationController is not Supported"
            yield forbidden_field("spec.template.spec.activeDeadlineSeconds", detail)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return validate_replica_status(obj)

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        if old is None:
            yield from name_warnings(obj)
        if old is None or is_new_generation(obj, old):
            # Of a change Kubernetes looks at the template that was.
            yield from pod_warnings((old or obj)["spec"].get("template") or {}, "spec.template")

    def default_propagation(self) -> str:
        return "Orphan"
