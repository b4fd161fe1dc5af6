"""CEL's types: what the checker gives every expression, and how they are written in messages.

In: nothing.  Out: `Type` values, and assignability between them under a mapping of type parameters. Object types carry
their fields; what Kubernetes makes of a schema is in `schemas`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any, Final

from navarch.records import frozen


@frozen
class Type:
    """`kind` says how to treat it: a primitive's own name, `list`, `map`, `opaque`, `type`, `struct`, `param`, `dyn`,
    `error`. `name` is what it is called."""

    kind: str
    name: str
    parameters: tuple[Type, ...] = ()

    def __str__(self) -> str:
        """As `must evaluate to … but got …` writes it."""
        name = _FULL_NAMES.get(self.name, self.name)
        if not self.parameters:
            return name
        return f"{name}({', '.join(str(each) for each in self.parameters)})"

    def shown(self) -> str:
        """As the checker's errors write it."""
        if self.kind == "null_type":
            return "null"
        if self.kind == "error":
            return "!error!"
        if not self.parameters:
            return self.name
        return f"{self.name}({', '.join(each.shown() for each in self.parameters)})"


@frozen
class Field:
    """A field of an object type. `property` is its name in JSON, where that differs; `convert` makes of its JSON value
    the CEL value, where that is another."""

    type: Type
    property: str
    convert: Callable[[Any], Any] | None = None


@frozen
class ObjectType(Type):
    """A type with named fields. `any_field` is the type of all others, where they are not known."""

    fields: Mapping[str, Field] = field(default_factory=dict, compare=False, hash=False)
    any_field: Callable[[str], Type] | None = field(default=None, compare=False, hash=False)
    # What `==` and `in` compare, where that is not the JSON value itself.
    deep: Callable[[Any], Any] | None = field(default=None, compare=False, hash=False)

    def field(self, name: str) -> Field | None:
        found = self.fields.get(name)
        if found is None and self.any_field is not None:
            return Field(self.any_field(name), name)
        return found


def object_type(
    name: str,
    fields: Mapping[str, Field],
    *,
    any_field: Callable[[str], Type] | None = None,
    deep: Callable[[Any], Any] | None = None,
) -> ObjectType:
    return ObjectType("struct", name, (), fields, any_field, deep)


_FULL_NAMES: Final = {"duration": "google.protobuf.Duration", "timestamp": "google.protobuf.Timestamp"}

BOOL: Final = Type("bool", "bool")
INT: Final = Type("int", "int")
UINT: Final = Type("uint", "uint")
DOUBLE: Final = Type("double", "double")
STRING: Final = Type("string", "string")
BYTES: Final = Type("bytes", "bytes")
NULL: Final = Type("null_type", "null_type")
TIMESTAMP: Final = Type("timestamp", "timestamp")
DURATION: Final = Type("duration", "duration")
DYN: Final = Type("dyn", "dyn")
ERROR: Final = Type("error", "error")
TYPE: Final = Type("type", "type")


def list_of(element: Type) -> Type:
    return Type("list", "list", (element,))


def map_of(key: Type, value: Type) -> Type:
    return Type("map", "map", (key, value))


def optional_of(value: Type) -> Type:
    return Type("opaque", "optional_type", (value,))


def type_of(value: Type) -> Type:
    return Type("type", "type", (value,))


def opaque(name: str) -> Type:
    return Type("opaque", name)


def param(name: str) -> Type:
    return Type("param", name)


PRIMITIVES: Final = {each.name: each for each in (BOOL, INT, UINT, DOUBLE, STRING, BYTES, TIMESTAMP, DURATION, DYN)}


def is_optional(each: Type) -> bool:
    return each.kind == "opaque" and each.name == "optional_type"


def is_loose(each: Type) -> bool:
    return each.kind in ("dyn", "error")


def is_variable_size(each: Type) -> bool:
    return each.kind in ("string", "bytes", "list", "map", "dyn", "struct", "param", "error")


_NULLABLE: Final = frozenset({"opaque", "struct", "duration", "timestamp", "null_type"})


def substitute(mapping: Mapping[str, Type], each: Type, *, free_is_dyn: bool) -> Type:
    """The type with its parameters replaced by what they stand for."""
    if each.kind == "param":
        bound = mapping.get(each.name)
        if bound is not None:
            return substitute(mapping, bound, free_is_dyn=free_is_dyn)
        return DYN if free_is_dyn else each
    if not each.parameters:
        return each
    inner = tuple(substitute(mapping, part, free_is_dyn=free_is_dyn) for part in each.parameters)
    return each if inner == each.parameters else Type(each.kind, each.name, inner)


def _mentions(mapping: Mapping[str, Type], name: str, within: Type) -> bool:
    if within.kind == "param":
        if within.name == name:
            return True
        bound = mapping.get(within.name)
        return bound is not None and _mentions(mapping, name, bound)
    return any(_mentions(mapping, name, part) for part in within.parameters)


def _bind(mapping: dict[str, Type], given: Type, wanted: Type) -> tuple[bool, bool]:
    """Whether the parameter `wanted` can stand for `given`, and whether it stood for something before."""
    if given == wanted:
        return True, True
    bound = mapping.get(wanted.name)
    if bound is not None:
        if given == bound:
            return True, True
        if assignable(mapping, given, bound):
            general = most_general(given, bound)
            if not _mentions(mapping, wanted.name, general):
                mapping[wanted.name] = general
            return True, True
        return False, True
    if not _mentions(mapping, wanted.name, given):
        mapping[wanted.name] = given
        return True, False
    return False, False


def assignable(mapping: dict[str, Type], given: Type, wanted: Type) -> bool:
    """Whether a value of the first type can be where the second is wanted; binds parameters (also where it fails)."""
    if wanted.kind == "param":
        valid, bound = _bind(mapping, given, wanted)
        if valid or bound:
            return valid
    if given.kind == "param":
        return _bind(mapping, wanted, given)[0]
    if is_loose(given) or is_loose(wanted):
        return True
    if given.kind == "null_type":
        return wanted.kind in _NULLABLE
    if wanted.kind == "null_type":
        return given.kind in _NULLABLE
    if given.kind == "type":
        return wanted.kind == "type"
    if given.kind in ("opaque", "list", "map"):
        return (
            given.kind == wanted.kind
            and given.name == wanted.name
            and len(given.parameters) == len(wanted.parameters)
            and all(assignable(mapping, a, b) for a, b in zip(given.parameters, wanted.parameters, strict=True))
        )
    return given.kind == wanted.kind and given.name == wanted.name


def all_assignable(mapping: dict[str, Type], given: list[Type], wanted: list[Type]) -> dict[str, Type] | None:
    """The mapping with which all are assignable, None where there is none."""
    if len(given) != len(wanted):
        return None
    attempt = dict(mapping)
    return attempt if all(assignable(attempt, a, b) for a, b in zip(given, wanted, strict=True)) else None


def most_general(a: Type, b: Type) -> Type:
    return a if _equal_or_less_specific(a, b) else b


def _equal_or_less_specific(a: Type, b: Type) -> bool:
    if a.kind in ("dyn", "param"):
        return True
    if b.kind in ("dyn", "param"):
        return False
    if a.kind == "null_type":
        return False
    if b.kind == "null_type":
        return True
    if a.kind in ("opaque", "list", "map"):
        return (
            a.kind == b.kind
            and a.name == b.name
            and len(a.parameters) == len(b.parameters)
            and all(_equal_or_less_specific(x, y) for x, y in zip(a.parameters, b.parameters, strict=True))
        )
    return a == b


def names(types: Iterator[Type]) -> str:
    return ", ".join(each.shown() for each in types)
