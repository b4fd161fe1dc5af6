"""Whether a schema is structural: every place has a type, and what combines schemas only restricts values.

In: a schema as a definition states it, and the path to it.  Out: the errors, in Kubernetes' words and order (sorted by
their text). Why it cannot even be looked at so (`unsupported`) is told only where nothing else is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.patterns import problem_of

_EITHER: Final = [{"type": "integer"}, {"type": "string"}]
_ROOT, _ITEM, _FIELD = "at the root", "for specified array items", "for specified object fields"
_UNSUPPORTED: Final = (
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
)
_MUST_BE_EMPTY: Final = (
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
)


# What a field of a scalar or an object says that nothing here is ever wrong with, if it has a type.
PLAIN: Final = frozenset(
    {
        "description",
        "enum",
        "example",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "externalDocs",
        "format",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "nullable",
        "required",
        "title",
        "type",
    }
)
_ONE: Final = ("items", "additionalProperties", "not")
_SEVERAL: Final = ("allOf", "oneOf", "anyOf")
_INNER: Final = frozenset({"properties", *_ONE, *_SEVERAL})


def inner_of(schema: Obj) -> Sequence[Obj]:
    """Every schema directly inside."""
    if _INNER.isdisjoint(schema):
        return ()
    found = list((schema.get("properties") or {}).values())
    found += [inner for name in _ONE if isinstance(inner := schema.get(name), dict)]
    for name in _SEVERAL:
        found += schema.get(name) or ()
    return found


def places(schema: Obj) -> Iterator[Obj]:
    """A schema and every schema in it."""
    pending = [schema]
    while pending:
        place = pending.pop()
        yield place
        pending += inner_of(place)


def unsupported(schema: Obj) -> str:
    """Why a schema has no structural form at all; empty where it may have one."""
    for place in places(schema):
        if PLAIN.issuperset(place):
            continue
        for name, shown in _UNSUPPORTED:
            if place.get(name):
                return f"OpenAPIV3Schema '{shown}' is not supported"
        if isinstance(place.get("items"), list):
            return "OpenAPIV3Schema 'items' must be a schema, but is an array"
        if place.get("x-kubernetes-preserve-unknown-fields") is False:
            return "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined"
    return ""


def structural_errors(schema: Obj, path: str) -> list[FieldError]:
    """What keeps it from being structural."""
    found = [*_invariants(schema, _ROOT, path), *_incomplete(schema, schema, path, path)]
    return sorted(found, key=str)


def _invariants(schema: Obj, level: str, path: str) -> Iterator[FieldError]:
    type_ = schema.get("type", "")
    if type_ and type_ != "array" and level != _ROOT and PLAIN.issuperset(schema):
        return
    items, values = schema.get("items"), schema.get("additionalProperties")
    if type_ == "array" and not isinstance(items, dict):
        yield required(f"{path}.items", "must be specified")
    if isinstance(items, dict):
        yield from _invariants(items, _ITEM, f"{path}.items")
    for name, inner in (schema.get("properties") or {}).items():
        yield from _invariants(inner, _FIELD, f"{path}.properties[{name}]")
    if values is not None:
        if level == _ROOT:
            yield forbidden_field(f"{path}.additionalProperties", "must not be used at the root")
        if isinstance(values, dict):
            yield from _invariants(values, _FIELD, f"{path}.additionalProperties")
    yield from _extensions(schema, path)
    either_any, either_all = schema.get("anyOf") == _EITHER, _first_all_of(schema) == _EITHER
    yield from _value_rules(schema, path, skip_any=either_any, skip_first=either_all)
    yield from _types(schema, level, path)
    yield from _own_fields(schema, level, path)


def _first_all_of(schema: Obj) -> Any:
    first = (schema.get("allOf") or [{}])[0]
    return first.get("anyOf")


def _extensions(schema: Obj, path: str) -> Iterator[FieldError]:
    if schema.get("x-kubernetes-int-or-string"):
        for name in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
            if schema.get(name):
                why = "must be false if x-kubernetes-int-or-string is true"
                yield invalid_value(f"{path}.{name}", True, why)


def _types(schema: Obj, level: str, path: str) -> Iterator[FieldError]:
    type_, embedded = schema.get("type", ""), bool(schema.get("x-kubernetes-embedded-resource"))
    free = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if embedded and type_ != "object":
        why = "must be object if x-kubernetes-embedded-resource is true"
        yield invalid_value(f"{path}.type", type_, why) if type_ else required(f"{path}.type", why)
    elif not type_ and not schema.get("x-kubernetes-int-or-string") and not free:
        yield required(f"{path}.type", f"must not be empty {level}")
    if embedded and schema.get("additionalProperties") is not None:
        why = "must not be used if x-kubernetes-embedded-resource is set"
        yield forbidden_field(f"{path}.additionalProperties", why)
    if level == _ROOT and type_ and type_ != "object":
        yield invalid_value(f"{path}.type", type_, "must be object at the root")
    if embedded and not free and not schema.get("properties"):
        why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        yield required(f"{path}.properties", why)


def _own_fields(schema: Obj, level: str, path: str) -> Iterator[FieldError]:
    """What a resource may say of its own type and metadata."""
    properties = schema.get("properties") or {}
    resource = level == _ROOT or bool(schema.get("x-kubernetes-embedded-resource"))
    if resource:
        for name in ("kind", "apiVersion"):
            type_ = properties.get(name, {}).get("type", "")
            if name in properties and type_ != "string":
                yield invalid_value(f"{path}.properties[{name}].type", type_, "must be string")
    metadata = properties.get("metadata")
    if metadata is None:
        return
    at = f"{path}.properties[metadata]"
    if resource and metadata.get("type", "") != "object":
        yield invalid_value(f"{at}.type", metadata.get("type", ""), "must be object")
    if level == _ROOT:
        fields = (metadata.get("properties") or {}).keys()
        said = {name for name, value in metadata.items() if value and name not in ("type", "properties", "default")}
        if said - {"required"} or not fields <= {"name", "generateName"}:
            why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            yield forbidden_field(at, why)


def _value_rules(schema: Obj, path: str, *, skip_any: bool = False, skip_first: bool = False) -> Iterator[FieldError]:
    if not skip_any:
        for index, inner in enumerate(schema.get("anyOf") or ()):
            yield from _nested(inner, f"{path}.anyOf[{index}]")
    for index, inner in enumerate(schema.get("allOf") or ()):
        yield from _nested(inner, f"{path}.allOf[{index}]", skip_any=skip_first and not index)
    for index, inner in enumerate(schema.get("oneOf") or ()):
        yield from _nested(inner, f"{path}.oneOf[{index}]")
    if isinstance(refused := schema.get("not"), dict):
        yield from _nested(refused, f"{path}.not")
    pattern = schema.get("pattern")
    if pattern and (problem := problem_of(pattern)):
        yield invalid_value(f"{path}.pattern", pattern, f"must be a valid regular expression, but isn't: {problem}")


def _nested(schema: Obj, path: str, *, skip_any: bool = False) -> Iterator[FieldError]:
    yield from _value_rules(schema, path, skip_any=skip_any)
    if isinstance(items := schema.get("items"), dict):
        yield from _nested(items, f"{path}.items")
    properties = schema.get("properties") or {}
    for name, inner in properties.items():
        yield from _nested(inner, f"{path}.properties[{name}]")
    for name, why in _MUST_BE_EMPTY:
        stated = schema.get(name)
        if stated or (stated is not None and name in ("additionalProperties", "default")):
            yield forbidden_field(f"{path}.{name}", why)
    if "metadata" in properties:
        # Or a definition could restrict the metadata after all.
        yield forbidden_field(f"{path}.properties[metadata]", "must not be specified in a nested context")


def _incomplete(rules: Obj, schema: Obj | None, path: str, said_at: str) -> Iterator[FieldError]:
    """What the root restricts must be a place of the schema; further down, Kubernetes does not ask."""
    for name in ("allOf", "anyOf", "oneOf"):
        for index, inner in enumerate(rules.get(name) or ()):
            yield from _nested_incomplete(inner, schema, path, f"{said_at}.{name}[{index}]")
    if isinstance(refused := rules.get("not"), dict):
        yield from _nested_incomplete(refused, schema, path, f"{said_at}.not")


def _nested_incomplete(rules: Obj, schema: Obj | None, path: str, said_at: str) -> Iterator[FieldError]:
    if schema is None:
        yield required(path, f"because it is defined in {said_at}")
        return
    yield from _incomplete(rules, schema, path, said_at)
    if isinstance(items := rules.get("items"), dict):
        of_schema = schema.get("items")
        place = of_schema if isinstance(of_schema, dict) else None
        yield from _nested_incomplete(items, place, f"{path}.items", f"{said_at}.items")
    known = schema.get("properties") or {}
    for name, inner in (rules.get("properties") or {}).items():
        at = f"{path}.properties[{name}]"
        yield from _nested_incomplete(inner, known.get(name), at, f"{said_at}.properties[{name}]")
