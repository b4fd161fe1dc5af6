"""ResourceClaimTemplate: what claims are made of, one for each pod that names it."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError
from navarch.api.meta import Obj
from navarch.api.validation import validate_annotations, validate_labels
from navarch.kinds.base import Strategy
from navarch.kinds.internal import immutable_internal
from navarch.kinds.resource.requests import default_devices, devices_problems
from navarch.kinds.strategies import strategy


@strategy("resource.k8s.io", "ResourceClaimTemplate")
class ResourceClaimTemplateStrategy(Strategy):
    returns_deleted = True
    nulls = ("spec.spec.devices.requests",)

    def defaults(self, obj: Obj) -> None:
        default_devices(((obj.get("spec") or {}).get("spec") or {}).get("devices") or {})

    def complete(self, obj: Obj) -> None:
        super().complete(obj)
        obj["spec"].setdefault("metadata", {})

    def prepare_create(self, obj: Obj) -> None:
        self.complete(obj)

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        self.complete(obj)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        if old is not None:
            yield from immutable_internal(spec, old.get("spec") or {}, "spec", "ResourceClaimTemplateSpec")
            return
        metadata = spec.get("metadata") or {}
        yield from validate_annotations(metadata.get("annotations") or {}, "spec.metadata.annotations")
        yield from validate_labels(metadata.get("labels") or {}, "spec.metadata.labels")
        yield from devices_problems((spec.get("spec") or {}).get("devices") or {}, "spec.spec.devices")
