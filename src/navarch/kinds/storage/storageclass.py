"""StorageClass and VolumeAttributesClass: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required, too_long
from navarch.api.meta import Obj
from navarch.api.validation import qualified_name_problems, validate_immutable, validate_qualified_name
from navarch.kinds import columns
from navarch.kinds.base import AGE, Column, Strategy
from navarch.kinds.strategies import strategy

_DEFAULT_MARKS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_MAX_PARAMETERS: Final = 512
_MAX_PARAMETERS_BYTES: Final = 256 * 1024


def _name_cell(obj: Obj, now: datetime) -> str:
    annotations = obj["metadata"].get("annotations") or {}
    marked = any(annotations.get(mark) == "true" for mark in _DEFAULT_MARKS)
    return f"{obj['metadata']['name']} (default)" if marked else str(obj["metadata"]["name"])


def _validate_provisioner(value: str, path: str) -> Iterator[FieldError]:
    if not value:
        yield required(path)
        return
    for problem in qualified_name_problems(value.lower()):
        yield invalid_value(path, value, problem)


def _validate_parameters(parameters: Obj, path: str) -> Iterator[FieldError]:
    if len(parameters) > _MAX_PARAMETERS:
        yield too_long(path, _MAX_PARAMETERS)
        return
    if "" in parameters:
        yield invalid_value(path, "", "field can not be empty.")
    if sum(len(name) + len(str(value)) for name, value in parameters.items()) > _MAX_PARAMETERS_BYTES:
        yield too_long(path, _MAX_PARAMETERS_BYTES)


@strategy("storage.k8s.io", "StorageClass")
class StorageClassStrategy(Strategy):
    returns_deleted = True
    columns = (
        Column("Name", _name_cell, format="name"),
        Column("Provisioner", ".provisioner"),
        Column("ReclaimPolicy", columns.text("reclaimPolicy", "Delete")),
        Column("VolumeBindingMode", columns.text("volumeBindingMode", "<unset>")),
        Column("AllowVolumeExpansion", lambda obj, now: bool(obj.get("allowVolumeExpansion")), type="string"),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        obj.setdefault("reclaimPolicy", "Delete")
        obj.setdefault("volumeBindingMode", "Immediate")

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from _validate_provisioner(obj.get("provisioner") or "", "provisioner")
        yield from _validate_parameters(obj.get("parameters") or {}, "parameters")
        if (policy := obj.get("reclaimPolicy")) not in ("Delete", "Retain"):
            yield not_supported("reclaimPolicy", policy or "", ["Delete", "Retain"])
        mode = obj.get("volumeBindingMode")
        if mode not in ("Immediate", "WaitForFirstConsumer"):
            yield not_supported("volumeBindingMode", mode or "", ["Immediate", "WaitForFirstConsumer"])
        yield from _validate_topologies(obj.get("allowedTopologies") or [])
        if old is None:
            return
        parameters = dict(sorted((obj.get("parameters") or {}).items()))
        yield from validate_immutable(parameters or None, old.get("parameters") or None, "parameters")
        for name in ("provisioner", "reclaimPolicy", "volumeBindingMode"):
            yield from validate_immutable(obj.get(name) or "", old.get(name) or "", name)


def _validate_topologies(topologies: list[Obj]) -> Iterator[FieldError]:
    # Kubernetes compares each term with as many empty ones, too.
    terms: list[dict[str, set[str]]] = [{} for _ in topologies]
    for index, term in enumerate(topologies):
        at, found = f"allowedTopologies[{index}].matchLabelExpressions", {}
        for number, expression in enumerate(term.get("matchLabelExpressions") or ()):
            key, values = expression.get("key", ""), expression.get("values") or []
            path = f"{at}[{number}]"
            if not values:
                yield required(f"{path}.values")
            for place, value in enumerate(values):
                if value in values[:place]:
                    yield duplicate(f"{path}.values[{place}]", value)
            yield from validate_qualified_name(key, f"{path}.key")
            if key in found:
                yield duplicate(f"{path}.key", key)
            found[key] = set(values)
        yield from (duplicate(at, "") for other in terms if other == found)
        terms.append(found)


@strategy("storage.k8s.io", "VolumeAttributesClass")
class VolumeAttributesClassStrategy(Strategy):
    returns_deleted = True
    columns = (Column("Name", ".metadata.name", format="name"), Column("DriverName", ".driverName"), AGE)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from _validate_provisioner(obj.get("driverName") or "", "driverName")
        if not obj.get("parameters"):
            yield required("parameters", "must contain at least one key/value pair")
        yield from _validate_parameters(obj.get("parameters") or {}, "parameters")
        if old is not None:
            for name in ("driverName", "parameters"):
                if obj.get(name) != old.get(name):
                    yield forbidden_field(name, f"updates to {name} are forbidden.")
