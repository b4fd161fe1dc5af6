"""PersistentVolumeClaim: what a pod asks of storage; its spec is fixed but for growth and attributes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field
from navarch.api.meta import Obj
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.cells import STORAGE_CLASSES, VOLUME_MODE, access_modes, storage_phase
from navarch.kinds.core.pod_defaults import default_claim_spec
from navarch.kinds.core.pod_validation_resources import read_amount
from navarch.kinds.core.pod_validation_volumes import validate_claim_spec
from navarch.kinds.strategies import strategy

_FIXED: Final = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)


def _bound(obj: Obj) -> bool:
    return bool(obj["spec"].get("volumeName"))


def _capacity_cell(obj: Obj, now: datetime) -> str:
    return str(((obj.get("status") or {}).get("capacity") or {}).get("storage") or "") if _bound(obj) else ""


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

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {"phase": "Pending"}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from validate_claim_spec(obj["spec"], "spec")
        if old is not None:
            yield from _validate_update(obj, old)


def _validate_update(obj: Obj, old: Obj) -> Iterator[FieldError]:
    spec, was = obj["spec"], old["spec"]
    expected: dict[str, Any] = dict(was)
    if not was.get("volumeName") and spec.get("volumeName"):
        expected["volumeName"] = spec["volumeName"]  # the binder binds it
    if was.get("storageClassName") is None and spec.get("storageClassName"):
        expected["storageClassName"] = spec["storageClassName"]  # a default class came later
    bound = (old.get("status") or {}).get("phase") == "Bound"
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if bound and storage is not None:
        resources = dict(was.get("resources") or {})
        resources["requests"] = {**(resources.get("requests") or {}), "storage": storage}
        expected["resources"] = resources
    if bound:
        if "volumeAttributesClassName" in spec:
            expected["volumeAttributesClassName"] = spec["volumeAttributesClassName"]
        else:
            expected.pop("volumeAttributesClassName", None)
    if expected != spec:
        yield forbidden_field("spec", f"{_FIXED}\n{_difference(was, spec)}")
        return
    before = ((was.get("resources") or {}).get("requests") or {}).get("storage")
    new_amount, old_amount = read_amount(storage), read_amount(before)
    capacity = read_amount(((old.get("status") or {}).get("capacity") or {}).get("storage"))
    if new_amount is not None and old_amount is not None and new_amount < old_amount:
        if capacity is None or new_amount <= capacity:
            yield forbidden_field("spec.resources.requests.storage", "field can not be less than status.capacity")


def _difference(old: Obj, new: Obj) -> str:
    lines = []
    for field in sorted({*old, *new}):
        if old.get(field) != new.get(field):
            if field in old:
                lines.append(f"- \t{field}: {json.dumps(old[field])}")
            if field in new:
                lines.append(f"+ \t{field}: {json.dumps(new[field])}")
    return "\n".join(lines)
