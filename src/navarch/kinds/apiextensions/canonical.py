"""A definition as Kubernetes writes it: what has its type's zero value is left out, but for what is always said.

In: a definition, changed in place.  Invariant: what a schema states as a default, an example or an enum is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.kinds.apiextensions.structurality import inner_of

_SCHEMA: Final = frozenset(
    {
        "$schema",
        "allOf",
        "anyOf",
        "definitions",
        "dependencies",
        "description",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "id",
        "not",
        "nullable",
        "oneOf",
        "pattern",
        "patternProperties",
        "properties",
        "required",
        "title",
        "type",
        "uniqueItems",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
    }
)
_RULE: Final = ("message", "messageExpression", "fieldPath")
_NAMES: Final = ("shortNames", "categories", "singular", "listKind")
_VERSION: Final = ("deprecated", "additionalPrinterColumns", "selectableFields")
_COLUMN: Final = ("format", "description", "priority")
_NUMBERS: Final = ("maximum", "minimum", "multipleOf")


def canonicalize(crd: Obj) -> None:
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return
    _drop(spec, ("preserveUnknownFields",))
    _drop(spec.get("names"), _NAMES)
    for version in spec.get("versions") or ():
        _drop(version, _VERSION)
        for name in ("served", "storage"):
            if version.get(name) is None:
                version[name] = False
        for column in version.get("additionalPrinterColumns") or ():
            _drop(column, _COLUMN)
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if isinstance(schema, dict):
            _canonical_schema(schema)


def _drop(value: Any, names: Iterable[str]) -> None:
    if isinstance(value, dict):
        for name in names:
            if name in value and not value[name]:
                del value[name]


def _canonical_schema(schema: Obj) -> None:
    pending = [schema]
    while pending:
        place = pending.pop()
        if not all(place.values()):
            for name in [name for name, value in place.items() if not value and name in _SCHEMA and value != {}]:
                del place[name]
            for name in ("properties", "patternProperties", "definitions", "dependencies"):
                if place.get(name) == {}:
                    del place[name]
        if "items" in place and not isinstance(place["items"], (dict, list)):
            # Neither a schema nor several: Go reads it as nothing.
            del place["items"]
        for name in _NUMBERS:
            value = place.get(name)
            if type(value) is float and value.is_integer():
                place[name] = int(value)
        for rule in place.get("x-kubernetes-validations") or ():
            _drop(rule, _RULE)
        pending += inner_of(place)
