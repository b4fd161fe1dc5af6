"""What a structural schema says of one text or number: length, pattern, format, bounds, multiples, enumerations.

In: the schema of a place.  Out: its rules, compiled, each of which adds what is wrong with a value to what was found,
in Kubernetes' words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from navarch.api.errors import FieldError, too_long
from navarch.api.formats import is_recognized, test_of
from navarch.api.go_text import go_float
from navarch.api.meta import Obj
from navarch.api.patience import TooLongError, waited_for
from navarch.api.patterns import search_of

Found = list[FieldError]
_INT32: Final = 1 << 31
_INT64: Final = 1 << 63
_FLOAT32_MAX: Final = 3.4028235677973366e38
NO_PATH: Final = "<nil>"


def composite(text: str) -> FieldError:
    """An error that Kubernetes tells without a path of its own."""
    return FieldError("FieldValueInvalid", NO_PATH, text, "")


def invalid(path: str, value: Any, text: str) -> FieldError:
    return FieldError("FieldValueInvalid", path.removeprefix(".") or NO_PATH, text, value)


def type_error(path: str, wanted: str, shown: str) -> FieldError:
    text = f"{path} in body must be of type {wanted}: {json.dumps(shown, ensure_ascii=False)}"
    return FieldError("FieldValueTypeInvalid", path.removeprefix(".") or NO_PATH, text, shown)


def types_of(schema: Obj) -> tuple[str, ...]:
    if schema.get("x-kubernetes-int-or-string"):
        return ("integer", "string")
    type_ = schema.get("type")
    return (type_,) if type_ else ()


def format_of(schema: Obj) -> str:
    """The format, where it means anything for the type."""
    types, name = types_of(schema), schema.get("format") or ""
    return name if name and is_recognized(name, types[0] if len(types) == 1 else "") else ""


Rule = Callable[[Any, str, Found], None]


def text_rules(schema: Obj) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    longest, shortest = schema.get("maxLength"), schema.get("minLength")
    bounds: list[Rule] = [_length(longest, shortest)] if longest is not None or shortest is not None else []
    if pattern := schema.get("pattern"):
        bounds.append(_pattern(pattern))
    if bounds:
        rules.append(_first_of(bounds))
    form = format_of(schema)
    if form and (test := test_of(form)) is not None:

        def in_format(value: Any, path: str, found: Found) -> None:
            if not test(value):
                found.append(type_error(path, form, value))

        rules.append(in_format)
    return tuple(rules)


def _first_of(rules: list[Rule]) -> Rule:
    """Of what is wrong with a text, the first is told."""
    if len(rules) == 1:
        return rules[0]

    def check(value: Any, path: str, found: Found) -> None:
        before = len(found)
        for rule in rules:
            rule(value, path, found)
            if len(found) > before:
                return

    return check


def _length(longest: int | None, shortest: int | None) -> Rule:
    def check(value: Any, path: str, found: Found) -> None:
        if longest is not None and len(value) > longest:
            found.append(too_long(path.removeprefix("."), int(longest)))
        elif shortest is not None and len(value) < shortest:
            found.append(invalid(path, value, f"{path} in body should be at least {shortest} chars long"))

    return check


def _pattern(pattern: str) -> Rule:
    try:
        search = search_of(pattern)
    except ValueError as error:
        # Stored before patterns were looked at: nothing matches it.
        shown = f"{pattern}, but pattern is invalid: {error}"

        def refuse(value: Any, path: str, found: Found) -> None:
            found.append(invalid(path, value, f"{path} in body should match '{shown}'"))

        return refuse

    def check(value: Any, path: str, found: Found) -> None:
        if not search(value):
            found.append(invalid(path, value, f"{path} in body should match '{pattern}'"))

    return check


def number_rules(schema: Obj) -> Rule | None:
    rules = [*_multiple(schema), *_bound(schema, "minimum"), *_bound(schema, "maximum")]
    is_beyond = _beyond(schema)
    if not rules and is_beyond is None:
        return None
    problem = f"Checked value must be of {_number_kind(schema)}" if is_beyond is not None else ""

    def check(value: Any, path: str, found: Found) -> None:
        if is_beyond is not None and is_beyond(value):
            found.append(composite(f"{problem} in {path}"))
        for rule in rules:
            rule(value, path, found)

    return check


def _number_kind(schema: Obj) -> str:
    form = format_of(schema)
    return f"type {types_of(schema)[0]} {f'with format {form}' if form else '(default format)'}"


def _beyond(schema: Obj) -> Callable[[float], bool] | None:
    """Whether a number is none of the schema's type and format; None where every one is."""
    types, form = types_of(schema), format_of(schema)
    if types == ("integer",):
        limit = _INT32 if form == "int32" else _INT64
        return lambda value: not -limit <= value < limit or (type(value) is float and not value.is_integer())
    if types == ("number",) and form == "float":
        return lambda value: abs(value) > _FLOAT32_MAX
    return None


def _stated(schema: Obj, name: str, called: str) -> tuple[float | None, str]:
    """A number that a schema states, and what Kubernetes says with every value where it is none of the schema's type
    and format."""
    number: float | None = schema.get(name)
    is_beyond = _beyond(schema)
    if number is None or is_beyond is None or not is_beyond(number):
        return number, ""
    return number, f"{called} value must be of {_number_kind(schema)}"


def _multiple(schema: Obj) -> Iterator[Rule]:
    factor, problem = _stated(schema, "multipleOf", "MultipleOf")
    if factor is None:
        return
    whole = float(factor).is_integer() and factor != 0

    def check(value: Any, path: str, found: Found) -> None:
        if problem:
            found.append(composite(f"{problem} in {path}"))
        if type(value) is int and whole:
            shown, fits = str(int(factor)), value % int(factor) == 0
        else:
            shown = go_float(float(factor))
            ratio = value / factor if factor >= 1 else value * (1 / factor) if factor else 0.5
            fits = abs(ratio - round(ratio)) < 1e-9
        if not fits:
            found.append(invalid(path, value, f"{path} in body should be a multiple of {shown}"))

    yield check


def _bound(schema: Obj, name: str) -> Iterator[Rule]:
    bound, problem = _stated(schema, name, f"{name.capitalize()} boundary")
    if bound is None:
        return
    least = name == "minimum"
    exclusive = bool(schema.get("exclusiveMinimum" if least else "exclusiveMaximum"))
    relation = f"{'greater' if least else 'less'} than{'' if exclusive else ' or equal to'}"

    def check(value: Any, path: str, found: Found) -> None:
        if problem:
            found.append(composite(f"{problem} in {path}"))
        # Kubernetes compares whole numbers with what is whole of the bound, where that is a number of their kind.
        whole = type(value) is int and not problem
        limit = int(bound) if whole else float(bound)
        beyond = value < limit if least else value > limit
        if beyond or (exclusive and value == limit):
            shown = str(limit) if whole else go_float(limit)
            found.append(invalid(path, value, f"{path} in body should be {relation} {shown}"))

    yield check


def enum_rule(schema: Obj) -> Rule | None:
    allowed = schema.get("enum")
    if not allowed:
        return None
    texts = frozenset(value for value in allowed if isinstance(value, str))
    numbers = frozenset((type(value) is bool, value) for value in allowed if isinstance(value, (bool, int, float)))
    others = [value for value in allowed if not isinstance(value, (str, bool, int, float))]
    details: list[str] = []

    def check(value: Any, path: str, found: Found) -> None:
        if type(value) is str:
            if value in texts:
                return
        elif isinstance(value, (bool, int, float)):
            if (type(value) is bool, value) in numbers:
                return
        elif value in others:
            return
        expect(len(allowed))
        if not details:
            details.append(_supported(allowed))
        found.append(FieldError("FieldValueNotSupported", path.removeprefix(".") or NO_PATH, details[0], value))

    return check


def _supported(allowed: Sequence[Any]) -> str:
    shown = (value if isinstance(value, str) else json.dumps(value, separators=(",", ":")) for value in allowed)
    return "supported values: " + ", ".join(json.dumps(text, ensure_ascii=False) for text in shown)


# To compile so much, or to tell what is wrong with it, takes milliseconds.
_MUCH: Final = 1000


def expect(count: int) -> None:
    """Say how much there is to be done.  Raises TooLongError where others wait for it."""
    if count > _MUCH and waited_for():
        raise TooLongError
