"""PodTemplate: a pod template kept as an object of its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from navarch.api.errors import FieldError
from navarch.api.meta import Obj, is_new_generation
from navarch.kinds.base import NAME, Column, Strategy
from navarch.kinds.columns import container_images, container_names
from navarch.kinds.columns import labels as format_labels
from navarch.kinds.core.pod_defaults import default_pod_template
from navarch.kinds.core.pod_prepare import GATES, prepare_template
from navarch.kinds.core.pod_validation import validate_pod_template_spec
from navarch.kinds.core.pod_warnings import pod_warnings
from navarch.kinds.strategies import strategy


def _spec(obj: Obj) -> Obj:
    return (obj.get("template") or {}).get("spec") or {}


def _labels_cell(obj: Obj, now: datetime) -> str:
    return format_labels(((obj.get("template") or {}).get("metadata") or {}).get("labels"))


@strategy("", "PodTemplate")
class PodTemplateStrategy(Strategy):
    returns_deleted = True
    gates = GATES
    columns = (
        NAME,
        Column("Containers", lambda obj, now: container_names(_spec(obj)), description="Names of the containers"),
        Column("Images", lambda obj, now: container_images(_spec(obj)), description="Images of the containers"),
        Column("Pod Labels", _labels_cell, description="Labels that its pods get"),
    )
    has_generation = True

    def defaults(self, obj: Obj) -> None:
        default_pod_template(obj.setdefault("template", {}))

    def prepare_create(self, obj: Obj) -> None:
        prepare_template(obj, on=self.on)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        prepare_template(obj, old, self.on)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from validate_pod_template_spec(obj.get("template"), "template")

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        if old is None or is_new_generation(obj, old):
            yield from pod_warnings(obj.get("template") or {}, "template")
