"""PersistentVolumeClaim: what a pod asks of storage; its spec is fixed but for growth and attributes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported
from navarch.api.meta import Obj
from navarch.api.validation import qualified_name_problems, validate_immutable
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.cells import STORAGE_CLASSES, VOLUME_MODE, access_modes, storage_phase
from navarch.kinds.core.pod_defaults import default_claim_spec
from navarch.kinds.core.pod_prepare import prepare_claim_spec
from navarch.kinds.core.pod_validation_resources import is_native_resource, read_amount, whole
from navarch.kinds.core.pod_validation_volumes import validate_claim_spec
from navarch.kinds.core.storage_warnings import CLASS_ANNOTATION, claim_warnings, class_annotation_warning
from navarch.kinds.internal import difference
from navarch.kinds.strategies import strategy

_ATTRIBUTES: Final = "volumeAttributesClassName"
_CURRENT: Final = "currentVolumeAttributesClassName"
_RESIZE_STATES: Final = (
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
)
_FIXED: Final = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)


def _bound(obj: Obj) -> bool:
    return bool(obj["spec"].get("volumeName"))


def _capacity_cell(obj: Obj, now: datetime) -> str:
    return str(((obj.get("status") or {}).get("capacity") or {}).get("storage") or "0") if _bound(obj) else ""


def _modes_cell(obj: Obj, now: datetime) -> str:
    return access_modes((obj.get("status") or {}).get("accessModes") or ()) if _bound(obj) else ""


@strategy("", "PersistentVolumeClaim")
class PersistentVolumeClaimStrategy(Strategy):
    returns_deleted = True
    columns = (
        NAME,
        Column("Status", storage_phase, description="Where it is in its life"),
        Column("Volume", ".spec.volumeName", description="The volume that it is bound to"),
        Column("Capacity", _capacity_cell, description="How much it got"),
        Column("Access Modes", _modes_cell, description="How it can be mounted"),
        *STORAGE_CLASSES,
        AGE,
        VOLUME_MODE,
    )

    def defaults(self, obj: Obj) -> None:
        default_claim_spec(obj.setdefault("spec", {}))

    def complete(self, obj: Obj) -> None:
        for name in ("dataSource", "dataSourceRef"):
            if (source := obj["spec"].get(name)) is not None:
                source.setdefault("apiGroup", None)
        for condition in (obj.get("status") or {}).get("conditions") or ():
            condition.setdefault("lastProbeTime", None)
            condition.setdefault("lastTransitionTime", None)

    def prepare_create(self, obj: Obj) -> None:
        prepare_claim_spec(obj["spec"])
        obj["status"] = {"phase": "Pending"}

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        super().prepare_update(obj, old)
        prepare_claim_spec(obj["spec"], old["spec"])

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from validate_claim_spec(obj["spec"], "spec")
        if old is not None:
            yield from _validate_update(obj, old)

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        if CLASS_ANNOTATION in (obj["metadata"].get("annotations") or ()):
            yield class_annotation_warning()
        yield from claim_warnings(obj["spec"])

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status = obj.get("status") or {}
        for name, value in (status.get("capacity") or {}).items():
            yield from _validate_amount(value, f"status.capacity[{name}]")
        at = "status.allocatedResourceStatuses"
        for name, state in (status.get("allocatedResourceStatuses") or {}).items():
            yield from _validate_resource_key(name, at)
            if state not in _RESIZE_STATES:
                yield not_supported(at, name, _RESIZE_STATES)
        for name, value in (status.get("allocatedResources") or {}).items():
            wrong = [*_validate_resource_key(name, "status.allocatedResources")]
            wrong = wrong or [*_validate_amount(value, f"status.allocatedResources[{name}]")]
            yield from wrong


def _validate_amount(value: Any, path: str) -> Iterator[FieldError]:
    amount = read_amount(value)
    if amount is not None and amount < 0:
        yield invalid_value(path, whole(amount), "must be a valid resource quantity")


def _validate_resource_key(name: str, path: str) -> Iterator[FieldError]:
    problems = qualified_name_problems(name)
    for problem in problems:
        yield invalid_value(path, name, problem)
    if not problems and is_native_resource(name) and name != "storage":
        yield not_supported(path, name, ("storage",))


def _validate_update(obj: Obj, old: Obj) -> Iterator[FieldError]:
    spec, was = obj["spec"], old["spec"]
    new_marks, old_marks = obj["metadata"].get("annotations") or {}, old["metadata"].get("annotations") or {}
    before, after = dict(was), dict(spec)
    if not was.get("volumeName"):
        _take(before, spec, "volumeName")  # the binder binds it
    upgraded = _class_from_annotation(spec, was, new_marks, old_marks)
    if not upgraded:
        yield from _validate_annotation(new_marks.get(CLASS_ANNOTATION), old_marks.get(CLASS_ANNOTATION))
    if upgraded or _class_from_nothing(spec, was, old_marks):
        _take(after, was, "storageClassName")
    bound = (obj.get("status") or {}).get("phase") == "Bound"
    old_size, new_size = (((each.get("resources") or {}).get("requests") or {}).get("storage") for each in (was, spec))
    if bound and (spec.get("resources") or {}).get("requests") is not None:
        requests = {**spec["resources"]["requests"], "storage": old_size}
        after["resources"] = {**spec["resources"], "requests": requests}
    if bound:
        _take(after, was, _ATTRIBUTES)
    if before != after:
        yield forbidden_field("spec", f"{_FIXED}\n{difference(before, after, 'PersistentVolumeClaimSpec')}")
    new_amount, old_amount = read_amount(new_size), read_amount(old_size)
    capacity = read_amount(((old.get("status") or {}).get("capacity") or {}).get("storage", "0"))
    if new_amount is not None and old_amount is not None and new_amount < old_amount:
        if capacity is None or new_amount <= capacity:
            yield forbidden_field("spec.resources.requests.storage", "field can not be less than status.capacity")
    yield from validate_immutable(spec.get("volumeMode"), was.get("volumeMode"), "volumeMode")
    attributes = spec.get(_ATTRIBUTES)
    # Attributes that a volume has can be changed, but not taken away.
    if attributes != was.get(_ATTRIBUTES) and not attributes and (old.get("status") or {}).get(_CURRENT) is not None:
        to = "nil" if attributes is None else "empty string"
        yield forbidden_field(f"spec.{_ATTRIBUTES}", f"update to {to} is forbidden when status.{_CURRENT} is not nil")


def _take(into: Obj, source: Obj, field: str) -> None:
    if field in source:
        into[field] = source[field]
    else:
        into.pop(field, None)


def _class_from_annotation(spec: Obj, was: Obj, marks: Obj, old_marks: Obj) -> bool:
    """The class that an annotation named is now named by the field."""
    named = old_marks.get(CLASS_ANNOTATION)
    return (
        named is not None
        and was.get("storageClassName") is None
        and spec.get("storageClassName") == named
        and marks.get(CLASS_ANNOTATION, named) == named
    )


def _class_from_nothing(spec: Obj, was: Obj, old_marks: Obj) -> bool:
    """A claim that waited for a class gets one."""
    name = spec.get("storageClassName")
    return name is not None and was.get("storageClassName") is None and old_marks.get(CLASS_ANNOTATION, name) == name


def _validate_annotation(mark: str | None, old_mark: str | None) -> Iterator[FieldError]:
    if (mark or "") != (old_mark or ""):
        yield invalid_value(f"metadata.annotations.{CLASS_ANNOTATION}", mark or "", "field is immutable")
