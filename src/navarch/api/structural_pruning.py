"""Objects made to fit a structural schema: what it does not know goes, what it has defaults for comes.

In: a value of a place in the schema, changed in place.  Out: the dotted paths of what was dropped as unknown, and
whether anything was filled in. A null where the schema takes none is as if the field were not there. Places are
compiled when a value first has them.

Invariant: `apiVersion`, `kind` and `metadata` of the object, and of resources embedded in it, are not the schema's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from navarch.api.meta import Obj

SERVERS: Final = frozenset({"apiVersion", "kind", "metadata"})
PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
RULES: Final = "x-kubernetes-validations"
EMBEDDED: Final = "x-kubernetes-embedded-resource"
# What is encoded as an integer.
_INT64: Final = 2.0**63

_Prune = Callable[[Any, str, list[str]], bool]
_Fill = Callable[[Any], bool]


def has_rules(schema: Obj) -> bool:
    """Whether there are rules anywhere in the schema."""
    pending = [schema]
    while pending:
        place = pending.pop()
        if place.get(RULES):
            return True
        pending.extend((place.get("properties") or {}).values())
        pending.extend(
            inner for name in ("items", "additionalProperties") if isinstance(inner := place.get(name), dict)
        )
    return False


def fields_of(schema: Obj, *, root: bool) -> Mapping[str, Obj]:
    """The fields of a place that are the schema's business."""
    properties: Mapping[str, Obj] = schema.get("properties") or {}
    return {name: value for name, value in properties.items() if name not in SERVERS} if root else properties


class Pruner:
    """One place of a schema; None in its stead where nothing is known."""

    __slots__ = ("_root", "_schema", "nullable", "prune")

    prune: _Prune
    """Drops what is unknown, and nulls that may not be; collects the paths of the former. Whether anything went."""

    def __init__(self, schema: Obj, *, root: bool = False) -> None:
        self._schema = schema
        self._root = root
        self.nullable = bool(schema.get("nullable"))
        self.prune = self._first

    def _first(self, value: Any, path: str, unknown: list[str]) -> bool:
        self.prune = _pruner(self._schema, root=self._root)
        return self.prune(value, path, unknown)


def _scalar(schema: Obj) -> bool:
    """Whether there is nothing below that could be dropped."""
    return schema.get("type") in ("string", "boolean", "integer", "number") or bool(
        schema.get("x-kubernetes-int-or-string")
    )


def _pruner(schema: Obj, *, root: bool) -> _Prune:
    fields = fields_of(schema, root=root)
    known = {name: Pruner(value) for name, value in fields.items()}
    plain = frozenset(name for name, value in fields.items() if _scalar(value))
    free = bool(schema.get(PRESERVE))
    own = SERVERS if root or schema.get(EMBEDDED) else frozenset()
    values, items = schema.get("additionalProperties"), schema.get("items")
    of_value = Pruner(values) if isinstance(values, dict) else None
    open_map = values is True
    of_item = Pruner(items) if isinstance(items, dict) else None

    def prune_list(value: list[Any], path: str, unknown: list[str]) -> bool:
        changed = False
        if of_item is not None:
            for index, item in enumerate(value):
                if type(item) is dict or type(item) is list:
                    changed |= of_item.prune(item, f"{path}[{index}]", unknown)
        return changed

    def prune(value: Any, path: str, unknown: list[str]) -> bool:
        if type(value) is list:
            return prune_list(value, path, unknown)
        if type(value) is not dict:
            return False
        dropped: list[str] | None = None
        changed = False
        for name, inner in value.items():
            if name in plain:
                # A whole number that was written as a fraction is written as Go writes it.
                if type(inner) is float and inner.is_integer() and abs(inner) < _INT64:
                    value[name] = int(inner)
                if inner is not None:
                    continue
            place = known.get(name)
            if place is None and name in own:
                continue
            place = place or of_value
            if place is not None:
                if inner is None:
                    if not place.nullable:
                        dropped = [*(dropped or ()), name]
                elif type(inner) is dict or type(inner) is list:
                    changed |= place.prune(inner, f"{path}.{name}" if path else name, unknown)
            elif not (free or open_map):
                dropped = [*(dropped or ()), name]
                unknown.append(f"{path}.{name}" if path else name)
        for name in dropped or ():
            del value[name]
        return changed or dropped is not None

    return prune


class Filler:
    """One place of a schema with defaults at or below it."""

    __slots__ = ("_root", "_schema", "fill")

    fill: _Fill
    """Fills in what is missing; whether there was anything."""

    def __init__(self, schema: Obj, *, root: bool = False) -> None:
        self._schema = schema
        self._root = root
        self.fill = self._first

    def _first(self, value: Any) -> bool:
        self.fill = _filler(self._schema, root=self._root)
        return self.fill(value)


def _filler(schema: Obj, *, root: bool) -> _Fill:
    fields = fields_of(schema, root=root)
    stated = [(name, value["default"]) for name, value in fields.items() if "default" in value]
    below = {name: Filler(value) for name, value in fields.items() if has_defaults(value)}
    values, items = schema.get("additionalProperties"), schema.get("items")
    of_value = Filler(values) if isinstance(values, dict) and has_defaults(values) else None
    of_item = Filler(items) if isinstance(items, dict) and has_defaults(items) else None
    instead_of_null = items.get("default") if isinstance(items, dict) and not items.get("nullable") else None

    def fill_list(value: list[Any]) -> bool:
        changed = False
        for index, item in enumerate(value):
            if item is None and instead_of_null is not None:
                value[index] = copy.deepcopy(instead_of_null)
                changed = True
            if of_item is not None:
                changed |= of_item.fill(value[index])
        return changed

    def fill(value: Any) -> bool:
        if type(value) is list:
            return fill_list(value)
        if type(value) is not dict:
            return False
        changed = False
        for name, default in stated:
            if name not in value:
                value[name] = copy.deepcopy(default) if type(default) in (dict, list) else default
                changed = True
        for name, place in below.items():
            if name in value:
                changed |= place.fill(value[name])
        if of_value is not None:
            for name, inner in value.items():
                if name not in fields:
                    changed |= of_value.fill(inner)
        return changed

    return fill


def has_defaults(schema: Obj) -> bool:
    """Whether any field below has a default."""
    pending = [schema]
    while pending:
        place = pending.pop()
        for value in (place.get("properties") or {}).values():
            if "default" in value:
                return True
            pending.append(value)
        for below in (place.get("items"), place.get("additionalProperties")):
            if isinstance(below, dict):
                if "default" in below:
                    return True
                pending.append(below)
    return False
