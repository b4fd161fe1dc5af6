"""What a structural schema allows of values: types, bounds, formats, patterns, and the logic that combines them.

In: the schema of a place, a value and the path to it.  Out: the errors, in Kubernetes' order and words, and how much of
the schema the value satisfied: where none of several alternatives fits, the errors of the one that fits best are told.
A schema is compiled place by place, each when a value is first compared with it: schemas know hundreds of places that
no object has.

An update is judged part by part: what is wrong with a part that is as it was, is no error. Lists whose items have keys
are compared by these, other lists as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from navarch.api.errors import FieldError, required
from navarch.api.meta import Obj
from navarch.api.structural_scalars import (
    Found,
    composite,
    enum_rule,
    expect,
    format_of,
    invalid,
    number_rules,
    text_rules,
    type_error,
    types_of,
)

# Value, path, what is found, the value as it was: returns how many checks the value has passed.
Check = Callable[[Any, str, Found, Any], int]

UNKNOWN: Final = object()
"""In the place of an old value: there is none to compare with."""

_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_GO_FORMATS: Final = {int: "int64", float: "float64"}


class Values:
    """One place of a schema."""

    __slots__ = ("_schema", "check")

    check: Check

    def __init__(self, schema: Obj) -> None:
        self._schema = schema
        self.check = self._first

    def _first(self, value: Any, path: str, found: Found, old: Any) -> int:
        schema = self._schema
        expect(sum([len(schema.get(name) or ()) for name in ("enum", "properties", "required")]))
        self.check = _compile(schema)
        return self.check(value, path, found, old)

    def errors(self, value: Any, old: Any = UNKNOWN, *, path: str = "") -> Found:
        """All that is wrong; where `old` is known, with what is not as it was."""
        found: Found = []
        self.check(value, path, found, UNKNOWN)
        if found and old is not UNKNOWN:
            found = []
            self.check(value, path, found, old)
        return list({str(error): error for error in found}.values())


def _compile(schema: Obj) -> Check:
    type_check = _type_check(schema)
    logic = _logic(schema)
    text = text_rules(schema)
    number = number_rules(schema)
    enum = enum_rule(schema)
    array = _array_check(schema)
    object_ = _object_check(schema)
    nullable, types = bool(schema.get("nullable")), types_of(schema)

    def check(value: Any, path: str, found: Found, old: Any) -> int:
        if value is None:
            if types and not nullable:
                found.append(type_error(path, ",".join(types), "null"))
            if enum is not None:
                enum(value, path, found)
            return 0
        kind = type(value)
        passed = 2
        if type_check is not None:
            passed += 1 + type_check(value, path, found)
        if logic is not None:
            passed += logic(value, path, found, old)
        if kind is str:
            for rule in text:
                rule(value, path, found)
            passed += 1 + len(text)
        elif kind is dict:
            if object_ is not None:
                passed += 1 + object_(value, path, found, old)
        elif kind is list:
            if array is not None:
                passed += 2 + array(value, path, found, old)
        elif kind is not bool:
            if number is not None:
                number(value, path, found)
            passed += 2
        if enum is not None:
            enum(value, path, found)
        return passed + 1

    return check


# Types


_INT64_MAX: Final = 2**63 - 1
# Up to here every whole number is a fraction of its own.
_EXACT: Final = 2**53 - 1


def _type_check(schema: Obj) -> Callable[[Any, str, Found], int] | None:
    types, form = types_of(schema), format_of(schema)
    if not types and not form:
        return None
    wanted = ",".join(types)
    numeric = "integer" in types or "number" in types
    whole = "integer" in types

    def check(value: Any, path: str, found: Found) -> int:
        kind = type(value)
        shown = _TYPES.get(kind, "")
        if kind is int and value > _INT64_MAX:
            # Go reads it as a fraction.
            shown = "number"
        fits = shown in types or (kind is int and "number" in types)
        if not fits and kind is float and whole:
            fits = value.is_integer() and abs(value) <= _EXACT
        if kind is str or kind is list:
            if form and not numeric:
                # What the format says comes later, and of texts alone.
                return 1
        elif form and not fits:
            found.append(type_error(path, form, _GO_FORMATS.get(kind, "")))
            return 0
        if not fits:
            found.append(type_error(path, wanted, shown))
            return 0
        return 1

    return check


# Logic


def _logic(schema: Obj) -> Check | None:
    steps: list[Check] = []
    for name, make in (("anyOf", _any_of), ("oneOf", _one_of), ("allOf", _all_of)):
        if parts := schema.get(name):
            steps.append(make([Values(part) for part in parts]))
    if (refused := schema.get("not")) is not None:
        steps.append(_not(Values(refused)))
    if not steps:
        return None

    def check(value: Any, path: str, found: Found, old: Any) -> int:
        return sum(step(value, path, found, old) for step in steps) + 1

    return check


def _any_of(parts: Sequence[Values]) -> Check:
    def check(value: Any, path: str, found: Found, old: Any) -> int:
        best, passed_most = None, -1
        for part in parts:
            wrong: Found = []
            passed = part.check(value, path, wrong, old)
            if not wrong:
                return passed
            if passed > passed_most:
                best, passed_most = wrong, passed
        found.append(composite(f'"{path}" must validate at least one schema (anyOf)'))
        found.extend(best or ())
        return max(passed_most, 0)

    return check


def _one_of(parts: Sequence[Values]) -> Check:
    def check(value: Any, path: str, found: Found, old: Any) -> int:
        best, passed_most, first, valid = None, -1, 0, 0
        for part in parts:
            wrong: Found = []
            passed = part.check(value, path, wrong, old)
            if not wrong:
                valid += 1
                best, first = None, first or passed
            elif not valid and passed > passed_most:
                best, passed_most = wrong, passed
        if valid == 1:
            return first
        why = f"Found {valid} valid alternatives" if valid else "Found none valid"
        found.append(composite(f'"{path}" must validate one and only one schema (oneOf). {why}'))
        found.extend(best or ())
        return max(passed_most, 0) if best else 0

    return check


def _all_of(parts: Sequence[Values]) -> Check:
    def check(value: Any, path: str, found: Found, old: Any) -> int:
        passed, valid = 0, 0
        for part in parts:
            before = len(found)
            passed += part.check(value, path, found, old)
            valid += len(found) == before
        if valid != len(parts):
            none = "" if valid else ". None validated"
            found.append(composite(f'"{path}" must validate all the schemas (allOf){none}'))
        return passed

    return check


def _not(part: Values) -> Check:
    def check(value: Any, path: str, found: Found, old: Any) -> int:
        wrong: Found = []
        part.check(value, path, wrong, old)
        if not wrong:
            found.append(composite(f'"{path}" must not validate the schema (not)'))
        return 0

    return check


# Lists and objects


def too_many(path: str, actual: int, most: int) -> FieldError:
    unit = "item" if most == 1 else "items"
    return FieldError("FieldValueTooMany", path.removeprefix("."), f"must have at most {most} {unit}", actual)


def _array_check(schema: Obj) -> Check | None:
    items = Values(schema["items"]) if isinstance(schema.get("items"), dict) else None
    fewest, most = schema.get("minItems"), schema.get("maxItems")
    if items is None and fewest is None and most is None:
        return None
    keys = schema.get("x-kubernetes-list-map-keys") if schema.get("x-kubernetes-list-type") == "map" else None

    def check(value: Any, path: str, found: Found, old: Any) -> int:
        passed = 0
        if items is not None:
            before = _by_keys(old, keys) if keys and type(old) is list else None
            for index, item in enumerate(value):
                was = before.get(_key_of(item, keys), UNKNOWN) if before is not None and keys else UNKNOWN
                passed += _judge(items, item, f"{path}[{index}]", found, was)
        size = len(value)
        if fewest is not None and size < fewest:
            found.append(invalid(path, size, f"{path} in body should have at least {fewest} items"))
        if most is not None and size > most:
            found.append(too_many(path, size, most))
        return passed

    return check


def _key_of(item: Any, keys: Sequence[str]) -> str:
    return json.dumps([item.get(key) for key in keys]) if type(item) is dict else ""


def _by_keys(items: list[Any], keys: Sequence[str]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        found.setdefault(_key_of(item, keys), item)
    return found


def _judge(place: Values, value: Any, path: str, found: Found, old: Any) -> int:
    before = len(found)
    passed = place.check(value, path, found, old)
    if len(found) > before and old is not UNKNOWN and value == old:
        del found[before:]
    return passed


def _object_check(schema: Obj) -> Check | None:
    places = {name: Values(inner) for name, inner in (schema.get("properties") or {}).items()}
    values = schema.get("additionalProperties")
    others = Values(values) if isinstance(values, dict) else None
    closed = values is False
    needed = dict.fromkeys(schema.get("required") or ())
    fewest, most = schema.get("minProperties"), schema.get("maxProperties")
    if not places and others is None and not closed and not needed and fewest is None and most is None:
        return None

    def check(value: Any, path: str, found: Found, old: Any) -> int:
        size, passed = len(value), 0
        if fewest is not None and size < fewest:
            found.append(invalid(path, size, f"{path} in body should have at least {fewest} properties"))
            return 0
        if most is not None and size > most:
            found.append(too_many(path, size, most))
            return 0
        known = type(old) is dict
        for name, inner in value.items():
            place = places.get(name, others)
            if place is not None:
                below = f"{path}.{name}" if path or place is others else name
                passed += _judge(place, inner, below, found, old.get(name, UNKNOWN) if known else UNKNOWN)
            elif closed:
                found.append(invalid(path, name, f"{path}.{name} in body is a forbidden property"))
        if not needed.keys() <= value.keys():
            expect(len(needed))
            found += [required(f"{path}.{name}".removeprefix(".")) for name in needed if name not in value]
        return passed

    return check
