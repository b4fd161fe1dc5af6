"""Structural schemas: the OpenAPI v3 schemas of custom kinds, compiled into what requests need.

In: the schema of one version of a kind.  Out, as for built-in kinds: `decode` (unknown fields and nulls pruned),
`default`, the `SchemaNode` tree for patches, apply and field ownership, and also `errors`, since here the schema is all
the validation there is. A schema is walked once, when it is compiled; an object is walked by closures.

Invariant: `apiVersion`, `kind` and `metadata` are the server's, whatever the schema says of them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any, Final

import orjson

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.schema import Compiled, SchemaSet
from navarch.api.schema_decode import DecodeError, decode_failure

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_OBJECT_META: Final = _META + "ObjectMeta"
_LIST_META: Final = _META + "ListMeta"
_NEEDED: Final = ("ObjectMeta", "OwnerReference", "ManagedFieldsEntry", "FieldsV1", "Time", "ListMeta")
_SERVERS: Final = frozenset({"apiVersion", "kind", "metadata"})
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED: Final = "x-kubernetes-embedded-resource"
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"

# Prunes in place; returns the dotted paths of what it dropped as unknown.
_Prune = Callable[[Any, str, list[str]], None]
_Fill = Callable[[Any], None]
_Check = Callable[[Any, str], Iterator[FieldError]]

_IS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "string": lambda value: type(value) is str,
    "boolean": lambda value: type(value) is bool,
    "integer": lambda value: type(value) is int or (type(value) is float and value.is_integer()),
    "number": lambda value: type(value) in (int, float),
    "array": lambda value: type(value) is list,
    "object": lambda value: type(value) is dict,
}
_JSON_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def definition_of(schema: Obj) -> Obj:
    """The OpenAPI definition of a custom kind: its schema with what every object has."""
    properties = {name: value for name, value in (schema.get("properties") or {}).items() if name not in _SERVERS}
    own: Obj = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"$ref": _OBJECT_META}}
    return {**schema, "type": "object", "properties": {**own, **properties}}


class StructuralSchemas(SchemaSet):
    """The definitions of one version of one custom kind: its own, and those of what every object has."""

    def __init__(self, builtin: SchemaSet, name: str, list_name: str, schema: Obj) -> None:
        self.own: Mapping[str, Obj] = {
            name: definition_of(schema),
            list_name: {
                "type": "object",
                "required": ["items"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "items": {"type": "array", "items": {"$ref": name}},
                    "kind": {"type": "string"},
                    "metadata": {"$ref": _LIST_META},
                },
            },
        }
        shared = {_META + each: builtin.definition(_META + each) for each in _NEEDED}
        super().__init__(builtin.version, {**shared, **self.own})
        self._name = name
        self._structural = Structural(self, name, schema)
        # What differs where the schema does, for hashes of documents.
        self.digest = orjson.dumps(self.own, option=orjson.OPT_SORT_KEYS)

    def compile(self, name: str) -> Compiled:
        return self._structural if name == self._name else super().compile(name)


class Structural(Compiled):
    """What a structural schema compiles to."""

    __slots__ = ("_check", "_fill", "_metadata", "_prune")

    def __init__(self, schemas: SchemaSet, name: str, schema: Obj) -> None:
        super().__init__(schemas, name)
        self._prune = _pruner(schema, root=True)
        self._fill = _filler(schema, root=True)
        self._check = _checker(schema, root=True)
        self._metadata = schemas.decoders.struct(_OBJECT_META)

    def decode(self, obj: Any) -> list[str]:
        """Drop unknown fields, and nulls that may not be, in place. Returns the dotted paths of the unknown fields.
        Raises StatusError 400 where `metadata` is not what it has to be."""
        unknown: list[str] = []
        metadata = obj.get("metadata")
        if metadata is None:
            obj.pop("metadata", None)
        else:
            try:
                unknown += [f"metadata.{path}" for path in self._metadata(metadata) or ()]
            except DecodeError as error:
                raise decode_failure(error, self.version, self.kind) from None
        self._prune(obj, "", unknown)
        return unknown

    def default(self, obj: Obj) -> None:
        """Apply the defaults that the schema states, in place."""
        self._fill(obj)

    def errors(self, obj: Obj) -> Iterator[FieldError]:
        """What of the object its schema does not allow."""
        return self._check(obj, "")


# Pruning


def _fields(schema: Obj, *, root: bool) -> Mapping[str, Obj]:
    properties: Mapping[str, Obj] = schema.get("properties") or {}
    return {name: value for name, value in properties.items() if name not in _SERVERS} if root else properties


def _keeps_nulls(schema: Obj) -> bool:
    return bool(schema.get("nullable")) or "default" not in schema


def _pruner(schema: Obj, *, root: bool = False) -> _Prune:
    known = {name: _pruner(value) for name, value in _fields(schema, root=root).items()}
    nulls = {name for name, value in _fields(schema, root=root).items() if not _keeps_nulls(value)}
    free = bool(schema.get(_PRESERVE))
    own = _SERVERS if root or schema.get(_EMBEDDED) else frozenset()
    values, items = schema.get("additionalProperties"), schema.get("items")
    of_value = _pruner(values) if isinstance(values, dict) else None
    open_map = values is True
    of_item = _pruner(items) if isinstance(items, dict) else None

    def prune(value: Any, path: str, unknown: list[str]) -> None:
        if type(value) is list:
            if of_item is not None:
                for index, item in enumerate(value):
                    of_item(item, f"{path}[{index}]", unknown)
            return
        if type(value) is not dict:
            return
        dropped = []
        for name, inner in value.items():
            below = known.get(name)
            at = f"{path}.{name}" if path else name
            if below is not None:
                if inner is None and name in nulls:
                    dropped.append(name)
                else:
                    below(inner, at, unknown)
            elif of_value is not None:
                of_value(inner, at, unknown)
            elif not (free or open_map or name in own):
                dropped.append(name)
                unknown.append(at)
        for name in dropped:
            del value[name]

    return prune


# Defaults


def _filler(schema: Obj, *, root: bool = False) -> _Fill:
    fields = _fields(schema, root=root)
    stated = [(name, value["default"]) for name, value in fields.items() if "default" in value]
    below = [(name, _filler(value)) for name, value in fields.items() if _has_defaults(value)]
    values, items = schema.get("additionalProperties"), schema.get("items")
    of_value = _filler(values) if isinstance(values, dict) and _has_defaults(values) else None
    of_item = _filler(items) if isinstance(items, dict) and _has_defaults(items) else None

    def fill(value: Any) -> None:
        if type(value) is list:
            if of_item is not None:
                for item in value:
                    of_item(item)
            return
        if type(value) is not dict:
            return
        for name, default in stated:
            if name not in value:
                value[name] = copy.deepcopy(default)
        for name, fill_below in below:
            if name in value:
                fill_below(value[name])
        if of_value is not None:
            for name, inner in value.items():
                if name not in fields:
                    of_value(inner)

    return fill


def _has_defaults(schema: Obj) -> bool:
    below = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return any(isinstance(each, dict) and ("default" in each or _has_defaults(each)) for each in below)


# Validation


def _checker(schema: Obj, *, root: bool = False) -> _Check:
    fields = {name: _checker(value) for name, value in _fields(schema, root=root).items()}
    values, items = schema.get("additionalProperties"), schema.get("items")
    of_value = _checker(values) if isinstance(values, dict) else None
    of_item = _checker(items) if isinstance(items, dict) else None
    needed = [name for name in schema.get("required") or () if not (root and name in _SERVERS)]
    type_, nullable = schema.get("type", ""), bool(schema.get("nullable"))
    either = bool(schema.get(_INT_OR_STRING))
    rules = list(_rules(schema))

    def check(value: Any, path: str) -> Iterator[FieldError]:
        if value is None and nullable:
            return
        if either:
            if type(value) not in (int, str):
                yield _wrong_type(path, value, "integer,string")
                return
        elif type_ and not _IS[type_](value):
            yield _wrong_type(path, value, type_)
            return
        for rule in rules:
            yield from rule(value, path)
        if type(value) is dict:
            for name in needed:
                if name not in value:
                    yield required(f"{path}.{name}" if path else name)
            for name, inner in value.items():
                below = fields.get(name, of_value if not (root and name in _SERVERS) else None)
                if below is not None:
                    yield from below(inner, f"{path}.{name}" if path else name)
        elif type(value) is list and of_item is not None:
            for index, item in enumerate(value):
                yield from of_item(item, f"{path}[{index}]")

    return check


def _wrong_type(path: str, value: Any, wanted: str) -> FieldError:
    shown = _JSON_TYPES.get(type(value), "null")
    return FieldError("FieldValueTypeInvalid", path, f'{path} in body must be of type {wanted}: "{shown}"', shown)


def _rules(schema: Obj) -> Iterator[_Check]:
    """What a schema says of values beside their type."""
    if "enum" in schema:
        yield _enum(list(schema["enum"]))
    if "pattern" in schema:
        yield _pattern(str(schema["pattern"]))
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if lowest is not None:
        yield _bound(lowest, "greater than", bool(schema.get("exclusiveMinimum")), lambda value, bound: value < bound)
    if highest is not None:
        yield _bound(highest, "less than", bool(schema.get("exclusiveMaximum")), lambda value, bound: value > bound)
    if "multipleOf" in schema:
        yield _multiple(schema["multipleOf"])
    for type_, name, unit in _SIZES:
        if f"min{name}" in schema:
            yield _size(type_, int(schema[f"min{name}"]), unit, least=True)
        if f"max{name}" in schema:
            yield _size(type_, int(schema[f"max{name}"]), unit, least=False)


_SIZES: Final[tuple[tuple[type[str] | type[list[Any]] | type[Obj], str, str], ...]] = (
    (str, "Length", "chars long"),
    (list, "Items", "items"),
    (dict, "Properties", "properties"),
)


def _enum(allowed: list[Any]) -> _Check:
    encoded = {orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for value in allowed}

    def check(value: Any, path: str) -> Iterator[FieldError]:
        if orjson.dumps(value, option=orjson.OPT_SORT_KEYS) not in encoded:
            yield not_supported(path, value, [str(each) for each in allowed])

    return check


def _pattern(pattern: str) -> _Check:
    matches = re.compile(pattern).search

    def check(value: Any, path: str) -> Iterator[FieldError]:
        if type(value) is str and not matches(value):
            yield invalid_value(path, value, f"{path} in body should match '{pattern}'")

    return check


def _bound(bound: float, word: str, exclusive: bool, beyond: Callable[[Any, float], bool]) -> _Check:
    relation = word if exclusive else f"{word} or equal to"

    def check(value: Any, path: str) -> Iterator[FieldError]:
        if type(value) in (int, float) and (beyond(value, bound) or (exclusive and value == bound)):
            yield invalid_value(path, value, f"{path} in body should be {relation} {bound}")

    return check


def _multiple(of: float) -> _Check:
    def check(value: Any, path: str) -> Iterator[FieldError]:
        if type(value) in (int, float) and value % of:
            yield invalid_value(path, value, f"{path} in body should be a multiple of {of}")

    return check


def _size(type_: type, bound: int, unit: str, *, least: bool) -> _Check:
    def check(value: Any, path: str) -> Iterator[FieldError]:
        if type(value) is not type_ or not isinstance(value, Sized):
            return
        size = len(value)
        if (size < bound) if least else (size > bound):
            if type_ is str:
                word = "least" if least else "most"
                yield invalid_value(path, value, f"{path} in body should be at {word} {bound} {unit}")
            else:
                word = "at least" if least else "at most"
                yield invalid_value(path, size, f"{path} in body should have {word} {bound} {unit}")

    return check
