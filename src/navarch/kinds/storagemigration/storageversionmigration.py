"""StorageVersionMigration: all objects of a resource are to be written anew, in the version that is stored now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from navarch.api.errors import FieldError, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import dns_label_1035_problems, dns_subdomain_problems, validate_immutable
from navarch.kinds.base import NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.conditions import validate_conditions
from navarch.kinds.strategies import strategy
from navarch.numbers import integer_or


def _resource_cell(obj: Obj, now: Any) -> str:
    resource = (obj.get("spec") or {}).get("resource") or {}
    group = resource.get("group") or ""
    return f"{resource.get('resource', '')}.{group}" if group else str(resource.get("resource", ""))


@strategy("storagemigration.k8s.io", "StorageVersionMigration")
class StorageVersionMigrationStrategy(Strategy):
    has_generation = True
    status_keeps = SETTABLE_METADATA
    # Kubernetes shows no age of them.
    columns = (NAME, Column("Resource", _resource_cell, description="Fully qualified resource to migrate"))

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        resource = spec.get("resource") or {}
        if not resource.get("resource"):
            yield required("spec.resource.resource", "resource is required to be set")
        elif problems := list(dns_label_1035_problems(resource["resource"])):
            yield invalid_value("spec.resource.resource", resource["resource"], ",".join(problems))
        if resource.get("group") and (problems := list(dns_subdomain_problems(resource["group"]))):
            yield invalid_value("spec.resource.group", resource["group"], ",".join(problems))
        if old is not None:
            yield from validate_immutable(spec, old.get("spec") or {}, "spec")

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        status, before = obj.get("status") or {}, old.get("status") or {}
        version, known = status.get("resourceVersion") or "", before.get("resourceVersion") or ""
        if integer_or(version, -1) < 0:
            detail = "resource version is empty" if not version else "resource version is not well formed: " + version
            yield invalid_value("status.resourceVersion", version, detail)
        yield from validate_conditions(status.get("conditions") or (), "status.conditions")
        if known and version != known:
            yield invalid_value("status.resourceVersion", version, "field is immutable")
        yield from _conditions_together(status.get("conditions") or [], before.get("conditions") or [])


def _conditions_together(conditions: list[Obj], before: list[Obj]) -> Iterator[FieldError]:
    now, earlier = _true(conditions), _true(before)
    path = "status.conditions"
    if {"Succeeded", "Failed"} <= now:
        yield invalid_value(path, conditions, "Both success and failed conditions cannot be true at the same time")
    for kind, word in (("Succeeded", "success"), ("Failed", "failed")):
        if {kind, "Running"} <= now:
            detail = f"Running condition cannot be true when {word} condition is true"
            yield invalid_value(path, conditions, detail)
    for kind, word in (("Succeeded", "Success"), ("Failed", "Failed")):
        if kind in earlier and kind not in now:
            detail = f"{word} condition cannot be set to false once it is true"
            yield invalid_value(path, conditions, detail)


def _true(conditions: list[Obj]) -> set[str]:
    return {str(each.get("type")) for each in conditions if each.get("status") == "True"}
