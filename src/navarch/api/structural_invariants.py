"""What holds in objects of custom kinds beyond the values of single fields: list items are unique where the schema says
that they are, and a resource embedded in another has the type and the metadata of a resource.

In: an object and its schema.  Out: the errors, in Kubernetes' words. Both kinds of places are found once per schema;
most schemas have none, and objects are not looked at for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from navarch.api.errors import FieldError, duplicate, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.metadata_validation import validate_object_meta
from navarch.api.scalar_decoders import DecodeError
from navarch.api.schema_decode import Decoder
from navarch.api.structural_pruning import EMBEDDED
from navarch.api.validation import dns_label_1035_problems

_LIST_TYPE: Final = "x-kubernetes-list-type"

Walk = Callable[[Any, str], Iterator[FieldError]]
_Own = Callable[[Any, str], Iterator[FieldError]]


def _walk(schema: Obj, own: Callable[[Obj], _Own | None]) -> Walk | None:
    """What finds the errors of all places below that have something of their `own` to say; None where none has."""
    here = own(schema)
    fields: dict[str, Walk] = {}
    for name, inner in (schema.get("properties") or {}).items():
        if (below := _walk(inner, own)) is not None:
            fields[name] = below
    values, items = schema.get("additionalProperties"), schema.get("items")
    of_value = _walk(values, own) if isinstance(values, dict) else None
    of_item = _walk(items, own) if isinstance(items, dict) else None
    if here is None and not fields and of_value is None and of_item is None:
        return None

    def errors(value: Any, path: str) -> Iterator[FieldError]:
        if here is not None:
            yield from here(value, path)
        if type(value) is dict:
            for name, inner in value.items():
                if (below := fields.get(name)) is not None:
                    yield from below(inner, f"{path}.{name}" if path else name)
                elif of_value is not None:
                    yield from of_value(inner, f"{path}[{name}]")
        elif type(value) is list and of_item is not None:
            for index, item in enumerate(value):
                yield from of_item(item, f"{path}[{index}]")

    return errors


# Lists


def uniqueness(schema: Obj) -> Walk | None:
    """Finds duplicates in lists of type set and map; None for a schema without such lists."""
    return _walk(schema, _unique)


def _unique(schema: Obj) -> _Own | None:
    kind = schema.get(_LIST_TYPE)
    if kind == "set":
        return _unique_items
    if kind != "map":
        return None
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())

    def errors(value: Any, path: str) -> Iterator[FieldError]:
        if type(value) is list:
            yield from _unique_keys(value, path, keys)

    return errors


def _unique_items(value: Any, path: str) -> Iterator[FieldError]:
    if type(value) is list:
        for index in _repeated([_comparable(item) for item in value]):
            yield duplicate(f"{path}[{index}]", value[index])


def _unique_keys(items: list[Any], path: str, keys: Sequence[str]) -> Iterator[FieldError]:
    for index, item in enumerate(items):
        if item is not None and type(item) is not dict:
            yield invalid_value(f"{path}[{index}]", item, "must be an object for an array of list-type map")
            return
    found = [{key: item[key] for key in keys if key in item} if item else {} for item in items]
    for index in _repeated([_comparable(each) for each in found]):
        yield duplicate(f"{path}[{index}]", found[index])


def _comparable(value: Any) -> Any:
    kind = type(value)
    if kind is dict or kind is list:
        return json.dumps(value, sort_keys=True)
    return (kind, value)


def _repeated(values: Sequence[Any]) -> Iterator[int]:
    """Where each value is met for the second time."""
    seen: dict[Any, int] = {}
    for index, value in enumerate(values):
        times = seen[value] = seen.get(value, 0) + 1
        if times == 2:
            yield index


# Embedded resources


def embedded(schema: Obj, *, root: bool = False) -> Walk | None:
    """Finds what is wrong with the type and metadata of embedded resources; None where there are none."""
    own = _walk(schema, lambda place: _resource if place.get(EMBEDDED) else None)
    if not root:
        return own

    def errors(value: Any, path: str) -> Iterator[FieldError]:
        yield from _resource(value, path)
        if own is not None:
            yield from own(value, path)

    return errors


def _resource(value: Any, path: str) -> Iterator[FieldError]:
    if type(value) is not dict:
        return
    at = f"{path}." if path else ""
    for name in ("apiVersion", "kind"):
        if name not in value:
            yield required(f"{at}{name}")
    for name in ("apiVersion", "kind"):
        if name not in value:
            continue
        stated = value[name]
        if type(stated) is not str:
            yield invalid_value(f"{at}{name}", stated, "must be a string")
        elif not stated:
            yield required(f"{at}{name}")
        elif name == "apiVersion" and stated.count("/") > 1:
            yield invalid_value(f"{at}{name}", stated, f"unexpected GroupVersion string: {stated}")
        elif name == "kind" and (problems := dns_label_1035_problems(stated.lower())):
            why = "may have mixed case, but should otherwise match: " + ",".join(problems)
            yield invalid_value(f"{at}{name}", stated, why)
    metadata = value.get("metadata")
    if type(metadata) is dict:
        named = {**metadata, "name": metadata.get("name") or "fakename"}
        namespaced = bool(metadata.get("namespace"))
        yield from validate_object_meta(
            {"metadata": named}, namespaced=namespaced, name_rule="path", path=f"{at}metadata"
        )


class Metadata:
    """Makes the metadata of embedded resources what metadata is."""

    def __init__(self, schema: Obj, decode: Decoder) -> None:
        self._walk = _coercing(schema, decode)

    def __bool__(self) -> bool:
        return self._walk is not None

    def coerce(self, value: Any, unknown: list[str]) -> FieldError | None:
        """Drops unknown fields, in place, and collects their paths. What cannot be read is an error."""
        return self._walk(value, "", unknown) if self._walk is not None else None


_Coerce = Callable[[Any, str, list[str]], "FieldError | None"]


def _coercing(schema: Obj, decode: Decoder) -> _Coerce | None:
    fields: Mapping[str, _Coerce] = {
        name: below
        for name, inner in (schema.get("properties") or {}).items()
        if (below := _coercing(inner, decode)) is not None
    }
    values, items = schema.get("additionalProperties"), schema.get("items")
    of_value = _coercing(values, decode) if isinstance(values, dict) else None
    of_item = _coercing(items, decode) if isinstance(items, dict) else None
    here = bool(schema.get(EMBEDDED))
    if not here and not fields and of_value is None and of_item is None:
        return None

    def coerce(value: Any, path: str, unknown: list[str]) -> FieldError | None:
        at = f"{path}." if path else ""
        if type(value) is list and of_item is not None:
            for index, item in enumerate(value):
                if (error := of_item(item, f"{path}[{index}]", unknown)) is not None:
                    return error
        if type(value) is not dict:
            return None
        if here and (error := _coerce_own(value, at, unknown, decode)) is not None:
            return error
        for name, inner in value.items():
            below = fields.get(name, of_value)
            if below is not None and (error := below(inner, f"{at}{name}", unknown)) is not None:
                return error
        return None

    return coerce


def _coerce_own(value: Obj, at: str, unknown: list[str], decode: Decoder) -> FieldError | None:
    for name in ("apiVersion", "kind"):
        if name in value and type(value[name]) is not str:
            return invalid_value(f"{at}{name}", value[name], "must be a string")
    metadata = value.get("metadata")
    if metadata is None:
        return None
    try:
        unknown.extend(f"{at}metadata.{path}" for path in decode(metadata) or ())
    except DecodeError as error:
        return invalid_value(f"{at}metadata", metadata, str(error))
    return None
