"""CEL's types for what a schema describes, with the greatest sizes that cost is estimated from.

In: a structural schema (of a custom resource), or a built-in definition.  Out: `Declared`, a tree of types. Values stay
the JSON that they are; a field whose CEL value is another (dates, durations, bytes, doubles written as integers, lists
that are sets) has a function that makes it, called when the field is read.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Final

from navarch.api.cel.errors import CelError
from navarch.api.cel.names import escaped
from navarch.api.cel.times import parse_duration, parse_timestamp
from navarch.api.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    Field,
    ObjectType,
    Type,
    list_of,
    map_of,
    object_type,
)
from navarch.api.cel.values import NO_OVERLOAD, MapList, SetList, Timestamp
from navarch.api.meta import Obj
from navarch.records import mutable

REQUEST_LIMIT: Final = 3 * 1024 * 1024
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_EMBEDDED: Final = "x-kubernetes-embedded-resource"

Convert = Callable[[Any], Any]


@mutable
class Declared:
    """A type, the greatest size of its values, the size of the least text of one, and what is below it.

    What has no size of its own, numbers, objects and keys of maps, counts as empty, as in Kubernetes: comparing it is
    one step.
    """

    type: Type
    most: int = 0
    least_bytes: int = 0
    convert: Convert | None = None
    fields: Mapping[str, Declared] = field(default_factory=dict)
    items: Declared | None = None
    values: Declared | None = None

    def size_at(self, path: tuple[str, ...]) -> int | None:
        """The greatest size of what a path leads to, whose first step is the variable's name."""
        at: Declared | None = self
        for step in path[1:]:
            if at is None:
                return None
            if step == "@items":
                at = at.items
            elif step == "@values":
                at = at.values
            elif step == "@keys":
                return 0 if at.values is not None else None
            else:
                at = at.fields.get(step)
        return at.most if at is not None else None


def most_items(schema: Obj, item: Declared) -> int:
    stated = schema.get("maxItems")
    return max(int(stated), 0) if stated is not None else (REQUEST_LIMIT - 2) // (item.least_bytes + 1)


def most_properties(schema: Obj, value: Declared) -> int:
    stated = schema.get("maxProperties")
    return max(int(stated), 0) if stated is not None else (REQUEST_LIMIT - 2) // (value.least_bytes + 6)


class Declarations:
    """The types of the schemas within one schema, each made once."""

    def __init__(self) -> None:
        # The schema itself is kept too, so that its identity stays its own.
        self._made: dict[tuple[int, bool], tuple[Obj, Declared | None]] = {}

    def of(self, schema: Obj, *, root: bool = False) -> Declared | None:
        """What expressions can say of values of the schema; None where they cannot speak of them at all. `root`: of a
        whole object, whose metadata is there whatever the schema says."""
        key = id(schema), root
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = schema, self._make(schema, root=root)
        return made[1]

    def _make(self, schema: Obj, *, root: bool) -> Declared | None:
        if schema.get(_INT_OR_STRING):
            return Declared(DYN, _most_bytes(schema), 1)
        if root:
            schema = _with_metadata(schema)
        kind = schema.get("type")
        if kind == "array":
            return self._array(schema)
        if kind == "object":
            values = schema.get("additionalProperties")
            return self._map(schema, values) if isinstance(values, dict) else self._object(schema)
        if kind == "string":
            return _string(schema)
        return _SCALARS.get(kind or "")

    def _below(self, schema: Obj) -> Declared | None:
        return self.of(schema, root=bool(schema.get(_EMBEDDED)))

    def _array(self, schema: Obj) -> Declared | None:
        items = schema.get("items")
        below = self._below(items) if isinstance(items, dict) else None
        if below is None:
            return None
        convert = _list_convert(schema, below.convert)
        return Declared(list_of(below.type), most_items(schema, below), 2, convert, items=below)

    def _map(self, schema: Obj, values: Obj) -> Declared | None:
        below = self._below(values)
        if below is None:
            return None
        convert = _map_convert(below.convert) if below.convert is not None else None
        return Declared(map_of(STRING, below.type), most_properties(schema, below), 2, convert, values=below)

    def _object(self, schema: Obj) -> Declared:
        required = set(schema.get("required") or ())
        fields: dict[str, Field] = {}
        below: dict[str, Declared] = {}
        deep: dict[str, Convert] = {}
        least = 2
        for name, inner in (schema.get("properties") or {}).items():
            each = self._below(inner)
            if each is None:
                continue
            identifier = escaped(name)
            if identifier is not None:
                fields[identifier] = Field(each.type, name, each.convert)
                below[identifier] = each
            if name in required and "default" not in inner:
                least += len(name) + each.least_bytes + 4
            comparable = each.type.deep if isinstance(each.type, ObjectType) else each.convert
            if comparable is not None:
                deep[name] = comparable
        kind = object_type("object", fields, deep=_deep(deep) if deep else None)
        return Declared(kind, 0, least, fields=below)


def declared(schema: Obj, *, root: bool = False) -> Declared | None:
    return Declarations().of(schema, root=root)


_METADATA: Final[Obj] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
}


def _says_metadata(properties: Obj) -> bool:
    """Whether a schema types everything that expressions may always read of an object: then it is taken as it is."""
    metadata = properties.get("metadata") or {}
    named = metadata.get("properties") or {}
    return (
        metadata.get("type") == "object"
        and all((properties.get(name) or {}).get("type") == "string" for name in ("kind", "apiVersion"))
        and all((named.get(name) or {}).get("type") == "string" for name in ("name", "generateName"))
    )


def _with_metadata(schema: Obj) -> Obj:
    stated = schema.get("properties") or {}
    if _says_metadata(stated):
        return schema
    properties = {
        **stated,
        "kind": {"type": "string"},
        "apiVersion": {"type": "string"},
        "metadata": _METADATA,
    }
    return {**schema, "properties": properties}


def _list_convert(schema: Obj, item: Convert | None) -> Convert | None:
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set":
        return lambda value: SetList(value if item is None else map(item, value)) if _is_list(value) else value
    if kind == "map":
        keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        return lambda value: MapList(value if item is None else map(item, value), keys) if _is_list(value) else value
    if item is None:
        return None
    each: Convert = item
    return lambda value: [each(one) for one in value] if _is_list(value) else value


def _is_list(value: Any) -> bool:
    return type(value) is list


def _map_convert(each: Convert) -> Convert:
    return lambda value: {key: each(one) for key, one in value.items()} if type(value) is dict else value


def _deep(converts: Mapping[str, Convert]) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not dict:
            return value
        return {key: converts[key](each) if key in converts else each for key, each in value.items()}

    return convert


# The greatest and the least number of bytes of each in JSON, its quotation marks among them.
_FORMATS: Final = {
    "duration": (DURATION, 32, 3),
    "date": (TIMESTAMP, 12, 12),
    "date-time": (TIMESTAMP, 32, 21),
}


def _most_bytes(schema: Obj) -> int:
    longest = schema.get("maxLength")
    # In characters, each of which may be four bytes.
    return max(int(longest), 0) * 4 if longest is not None else REQUEST_LIMIT - 2


def _string(schema: Obj) -> Declared:
    longest = schema.get("maxLength")
    form = schema.get("format")
    if form in _FORMATS:
        kind, most, least = _FORMATS[form]
        return Declared(kind, most, least, _CONVERTS[form])
    if form == "byte":
        most = max(int(longest), 0) if longest is not None else REQUEST_LIMIT - 2
        return Declared(BYTES, most, 2, _bytes)
    words = [each for each in schema.get("enum") or () if isinstance(each, str)]
    if schema.get("enum") and longest is None:
        return Declared(STRING, max((len(each.encode()) for each in words), default=0), 2)
    return Declared(STRING, _most_bytes(schema), 2)


# Values whose CEL value is not their JSON value. Each leaves alone what it has converted already.


def _double(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value)
    except ValueError:
        raise CelError(NO_OVERLOAD) from None


def _date(value: Any) -> Any:
    return parse_timestamp(f"{value}T00:00:00Z") if isinstance(value, str) else value


def time_of(value: Any) -> Timestamp | Any:
    """The moment that a text of RFC 3339 says."""
    return parse_timestamp(value) if isinstance(value, str) else value


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


_CONVERTS: Final[Mapping[str, Convert]] = {"duration": _duration, "date": _date, "date-time": time_of}
_SCALARS: Final = {
    "boolean": Declared(BOOL, least_bytes=4),
    "number": Declared(DOUBLE, least_bytes=1, convert=_double),
    "integer": Declared(INT, least_bytes=1),
}
