"""Decoders: functions, one per definition, that check a client's JSON against the schema as Kubernetes' decoder would.

In: a freshly parsed JSON object, which is changed in place.  Out: unknown fields and nulls are gone, optional empty
lists and maps are gone, times and quantities are spelt canonically; the dotted paths of the unknown fields are returned
(None for none).  A value of the wrong type raises `DecodeError`, whose message grows its field path while it unwinds.

This is on every write's path. A decoder walks what the object has, not what the schema knows: strings and booleans,
most of any object, cost one dictionary look-up and one type comparison each, and paths are put together only when there
is something to report.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from navarch.api.errors import Obj
from navarch.api.go_structs import unset
from navarch.api.scalar_decoders import (
    FORMATS,
    NAMED_SCALARS,
    QUANTITY,
    DecodeError,
    Scalar,
    anything,
    resource_amount,
)
from navarch.api.zeroes import unsaid_when_zero

# Checks a value in place; returns the paths of unknown fields below it, None for none.
Decoder = Callable[[Any], "list[str] | None"]

_EXTENSIONS: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
_JSON_SCHEMA: Final = _EXTENSIONS + "JSONSchemaProps"
_SCHEMA_OR_ARRAY: Final = _JSON_SCHEMA + "OrArray"
_SCHEMA_OR_BOOL: Final = _JSON_SCHEMA + "OrBool"
_SCHEMA_OR_STRINGS: Final = _JSON_SCHEMA + "OrStringArray"
# Places in schemas for more than schemas, which are published without saying so.
_SCHEMA_ORS: Final = frozenset({_SCHEMA_OR_ARRAY, _SCHEMA_OR_BOOL, _SCHEMA_OR_STRINGS})
_ZERO: Final[Mapping[str, Callable[[], Any]]] = {
    "array": list,
    "object": dict,
    "string": str,
    "boolean": bool,
    "integer": int,
}


_PLAIN: Final[Mapping[str, type]] = {"string": str, "boolean": bool}
_GO_PLAIN: Final = {str: "string", bool: "bool", dict: "map[string]interface {}"}


class Decoders:
    """Decoders by definition, made at first use. Recursive definitions are resolved through this table."""

    def __init__(self, definitions: Mapping[str, Obj]) -> None:
        self._definitions = definitions
        self._structs: dict[str, Decoder] = {}

    def struct(self, name: str) -> Decoder:
        """The decoder of a definition with properties, or of one that takes any object.  Raises KeyError."""
        found = self._structs.get(name)
        if found is None:
            definition = self._definitions[name]
            # A definition that refers back to itself meets this forwarder while its own decoder is being made.
            self._structs[name] = lambda value: self._structs[name](value)
            found = self._struct_of(definition, _short(name), _go_name(name), name)
            if filled := unset(name):
                found = _filling(found, filled)
            self._structs[name] = found
        return found

    def _struct_of(self, definition: Obj, short: str, go_type: str, name: str = "") -> Decoder:
        properties = definition.get("properties")
        if properties is None:
            return _any_object if definition.get("type") == "object" else _any_value
        table = _Fields(short, go_type)
        table.unsaid = unsaid_when_zero(name)
        required = definition.get("required", ())
        for key, schema in properties.items():
            self._add_field(table, key, schema, optional=key not in required)
        table.keep_unknown = bool(definition.get("x-kubernetes-preserve-unknown-fields"))
        return _struct_decoder(table)

    def _add_field(self, table: _Fields, key: str, schema: Obj, *, optional: bool) -> None:
        plain = self._plain(schema)
        if plain is not None:
            table.plain[key] = plain
            return
        scalar = self._scalar(schema)
        if scalar is not None:
            table.scalars[key] = scalar
            return
        if optional and "$ref" not in schema and key not in _EMPTY_IS_SAID.get(table.struct, ()):
            table.droppable[key] = list if schema.get("type") == "array" else dict
        table.nested[key] = self._nested(schema)

    def _resolve(self, schema: Obj) -> Obj:
        ref = schema.get("$ref")
        return schema if ref is None else self._definitions[ref]

    def _plain(self, schema: Obj) -> type | None:
        """The exact Python type that suffices for the schema, None where more is to be checked."""
        if schema.get("$ref") in NAMED_SCALARS:
            return None
        target = self._resolve(schema)
        kind = target.get("type", "")
        if kind == "object" and "properties" not in target and not isinstance(target.get("additionalProperties"), dict):
            return dict
        return None if "format" in target else _PLAIN.get(kind)

    def _scalar(self, schema: Obj) -> Scalar | None:
        named = NAMED_SCALARS.get(schema.get("$ref", ""))
        if named is not None:
            return named
        target = self._resolve(schema)
        if schema.get("$ref") in _SCHEMA_ORS:
            return None
        if "type" not in target:
            return anything
        return FORMATS.get((target["type"], target.get("format", "")))

    def _schema_or(self, ref: str) -> Decoder:
        """What decodes a schema in a schema, or what may be in its place; of unknown fields there Kubernetes says
        nothing."""
        decode_schema = self.struct(_JSON_SCHEMA)
        takes_list, takes_bool = ref in (_SCHEMA_OR_ARRAY, _SCHEMA_OR_STRINGS), ref == _SCHEMA_OR_BOOL
        takes_texts = ref == _SCHEMA_OR_STRINGS

        def decode(value: Any) -> list[str] | None:
            try:
                if type(value) is dict:
                    decode_schema(value)
                elif type(value) is list and takes_list:
                    for item in value:
                        if takes_texts and type(item) is not str:
                            raise DecodeError(item, "string")
                        if not takes_texts:
                            decode_schema(item)
                elif takes_bool and type(value) is not bool:
                    raise DecodeError(value, "", "boolean or JSON schema expected")
            except DecodeError as error:
                # Kubernetes reads these by themselves, and names no path to them.
                raise DecodeError(error.value, error.go_type, str(error)) from None
            return None

        return decode

    def _nested(self, schema: Obj) -> Decoder:
        ref = schema.get("$ref")
        if ref in _SCHEMA_ORS:
            return self._schema_or(ref)
        if ref is not None and self._definitions[ref].get("type") == "object":
            return self._structs.get(ref) or self.struct(ref)
        target = self._resolve(schema)
        if target.get("type") == "array":
            return self._list_of(target["items"])
        values = target.get("additionalProperties")
        if isinstance(values, dict):
            return self._map_of(values)
        return self._struct_of(target, "", "map[string]interface {}")

    def _list_of(self, item: Obj) -> Decoder:
        go_item = self.go_type(item)
        zero = _ZERO.get(self._resolve(item).get("type", ""), lambda: None)
        if (plain := self._plain(item)) is not None:
            return _plain_list(plain, go_item, zero)
        if (scalar := self._scalar(item)) is not None:
            return _scalar_list(scalar, go_item, zero)
        return _nested_list(self._nested(item), go_item, zero)

    def _map_of(self, values: Obj) -> Decoder:
        go_type = "v1.ResourceList" if values.get("$ref") == QUANTITY else f"map[string]{self.go_type(values)}"
        zero = _ZERO.get(self._resolve(values).get("type", ""), lambda: "0")
        if values.get("$ref") == QUANTITY:
            return _scalar_map(resource_amount, go_type, zero)
        if (plain := self._plain(values)) is not None:
            return _plain_map(plain, go_type, zero)
        if (scalar := self._scalar(values)) is not None:
            return _scalar_map(scalar, go_type, zero)
        return _nested_map(self._nested(values), go_type, zero)

    def go_type(self, schema: Obj) -> str:
        """How Go names the type in its messages."""
        ref = schema.get("$ref")
        if ref is not None:
            return _go_name(ref)
        kind: str = schema.get("type", "")
        form: str = schema.get("format", "")
        if kind == "array":
            return f"[]{self.go_type(schema['items'])}"
        if isinstance(values := schema.get("additionalProperties"), dict):
            return f"map[string]{self.go_type(values)}"
        if kind == "string":
            return "[]uint8" if form == "byte" else "string"
        return {"boolean": "bool", "number": "float64"}.get(kind, form or kind)


def _short(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _go_name(name: str) -> str:
    return ".".join(name.rsplit(".", 2)[-2:])


# Lists that are kept when they are empty: who says that is told of a mistake, or owns it though it is null then.
_EMPTY_IS_SAID: Final = {
    "HPAScalingRules": ("policies",),
    "EndpointSlice": ("endpoints", "ports"),
    "Role": ("rules",),
    "ClusterRole": ("rules",),
    "LimitRangeSpec": ("limits",),
    "CSINodeSpec": ("drivers",),
}


class _Fields:
    """A struct's fields by how they are checked."""

    __slots__ = ("droppable", "go_type", "keep_unknown", "nested", "plain", "scalars", "struct", "unsaid")

    def __init__(self, struct: str, go_type: str) -> None:
        self.struct = struct
        self.go_type = go_type
        self.plain: dict[str, type] = {}
        self.scalars: dict[str, Scalar] = {}
        self.nested: dict[str, Decoder] = {}
        # Optional lists and maps: an empty one is not kept, as Go's omitempty does not write it.
        self.droppable: dict[str, type] = {}
        # Fields whose zero is the same as nothing: Go has no pointer for them.
        self.unsaid: frozenset[str] = frozenset()
        self.keep_unknown = False


def _any_object(value: Any) -> list[str] | None:
    if type(value) is not dict:
        raise DecodeError(value, "map[string]interface {}")
    return None


def _any_value(value: Any) -> list[str] | None:
    return None


def _below(step: str, paths: list[str]) -> list[str]:
    return [f"{step}{path}" if path[:1] == "[" else f"{step}.{path}" for path in paths]


def _extended(found: list[str] | None, more: Iterable[str]) -> list[str]:
    """`found` itself, longer: a body may have a hundred thousand unknown fields."""
    if found is None:
        return list(more)
    found.extend(more)
    return found


def _struct_decoder(fields: _Fields) -> Decoder:
    struct, go_type = fields.struct, fields.go_type
    plain_type, scalar_of, nested_of = fields.plain.get, fields.scalars.get, fields.nested.get
    droppable, unsaid = fields.droppable.get, fields.unsaid
    plain, scalars, nested, keep_unknown = fields.plain, fields.scalars, fields.nested, fields.keep_unknown

    def decode(obj: Any) -> list[str] | None:
        if type(obj) is not dict:
            raise DecodeError(obj, go_type)
        unknown: list[str] | None = None
        dropped: list[str] | None = None
        key = ""
        try:
            for key, value in obj.items():
                if type(value) is plain_type(key):
                    if not value and key in unsaid:
                        dropped = _extended(dropped, (key,))
                    continue
                if value is None:
                    dropped = _extended(dropped, (key,))
                    if key not in plain and key not in nested and key not in scalars and not keep_unknown:
                        unknown = _extended(unknown, (key,))
                    continue
                if (decode_field := nested_of(key)) is not None:
                    if not value and type(value) is droppable(key):
                        dropped = _extended(dropped, (key,))
                    elif (paths := decode_field(value)) is not None:
                        unknown = _extended(unknown, _below(key, paths))
                elif (check := scalar_of(key)) is not None:
                    checked = check(value)
                    if checked is not value:
                        obj[key] = checked
                    if not checked and key in unsaid:
                        dropped = _extended(dropped, (key,))
                elif key in plain:
                    raise DecodeError(value, _GO_PLAIN[plain[key]])
                elif not keep_unknown:
                    unknown = _extended(unknown, (key,))
                    dropped = _extended(dropped, (key,))
        except DecodeError as error:
            raise error.at(struct, key) from None
        if dropped is not None:
            for key in dropped:
                del obj[key]
        return unknown

    return decode


def _filling(decode: Decoder, filled: Iterable[tuple[str, Any]]) -> Decoder:
    """A decoder that also states what Go writes of a struct though nobody set it."""

    def decode_and_fill(obj: Any) -> list[str] | None:
        unknown = decode(obj)
        for name, zero in filled:
            if name not in obj:
                obj[name] = zero if type(zero) is not dict else copy.deepcopy(zero) if zero else {}
        return unknown

    return decode_and_fill


def _plain_list(plain: type, go_item: str, zero: Callable[[], Any]) -> Decoder:
    def decode(items: Any) -> list[str] | None:
        if type(items) is not list:
            raise DecodeError(items, f"[]{go_item}")
        for index, item in enumerate(items):
            if type(item) is not plain:
                if item is not None:
                    raise DecodeError(item, go_item)
                items[index] = zero()
        return None

    return decode


def _scalar_list(check: Scalar, go_item: str, zero: Callable[[], Any]) -> Decoder:
    def decode(items: Any) -> list[str] | None:
        if type(items) is not list:
            raise DecodeError(items, f"[]{go_item}")
        for index, item in enumerate(items):
            items[index] = zero() if item is None else check(item)
        return None

    return decode


def _nested_list(decode_item: Decoder, go_item: str, zero: Callable[[], Any]) -> Decoder:
    def decode(items: Any) -> list[str] | None:
        if type(items) is not list:
            raise DecodeError(items, f"[]{go_item}")
        unknown: list[str] | None = None
        for index, item in enumerate(items):
            if item is None:
                items[index] = zero()
            elif (paths := decode_item(item)) is not None:
                unknown = _extended(unknown, _below(f"[{index}]", paths))
        return unknown

    return decode


def _plain_map(plain: type, go_type: str, zero: Callable[[], Any]) -> Decoder:
    go_value = _GO_PLAIN[plain]

    def decode(mapping: Any) -> list[str] | None:
        if type(mapping) is not dict:
            raise DecodeError(mapping, go_type)
        for key, value in mapping.items():
            if type(value) is not plain:
                if value is not None:
                    raise DecodeError(value, go_value)
                mapping[key] = zero()
        return None

    return decode


def _scalar_map(check: Scalar, go_type: str, zero: Callable[[], Any]) -> Decoder:
    def decode(mapping: Any) -> list[str] | None:
        if type(mapping) is not dict:
            raise DecodeError(mapping, go_type)
        for key, value in mapping.items():
            checked = zero() if value is None else check(value)
            if checked is not value:
                mapping[key] = checked
        return None

    return decode


def _nested_map(decode_value: Decoder, go_type: str, zero: Callable[[], Any]) -> Decoder:
    def decode(mapping: Any) -> list[str] | None:
        if type(mapping) is not dict:
            raise DecodeError(mapping, go_type)
        unknown: list[str] | None = None
        for key, value in mapping.items():
            if value is None:
                mapping[key] = zero()
            elif (paths := decode_value(value)) is not None:
                unknown = _extended(unknown, _below(key, paths))
        return unknown

    return decode
