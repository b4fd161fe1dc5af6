"""`meta.k8s.io/v1` Tables: what kubectl asks for when it prints.

In: a kind's columns, the objects, the time.  Out: the Table, whose rows carry the cells and, as the client asked, the
object's metadata, the whole object or nothing. The list's own metadata is the caller's to add.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, Protocol

import orjson

from navarch.api.jsonpath import Find, compile_path
from navarch.api.memo import memo
from navarch.api.meta import Obj
from navarch.api.time import human_duration, parse_time

INCLUDE_METADATA: Final = "Metadata"
INCLUDE_OBJECT: Final = "Object"
INCLUDE_NONE: Final = "None"


class Column(Protocol):
    """What a table needs to know of a column (`navarch.kinds.base.Column`); one without a name is not announced."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str | Callable[[Obj, datetime], Any]: ...
    @property
    def type(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def wide(self) -> bool: ...
    @property
    def description(self) -> str: ...
    @property
    def none(self) -> bool: ...
    @property
    def typed(self) -> bool: ...


def render(
    columns: Sequence[Column],
    rows: Iterable[tuple[Obj, bytes | None]],
    now: datetime,
    include_object: str = INCLUDE_METADATA,
) -> Obj:
    """The Table of some objects.

    A row's bytes, where given, are the object as it is to be sent (`includeObject=Object`), and go into the table
    unparsed; encode the result with orjson.
    """
    row = row_function(columns, now, include_object)
    return {**heading(columns), "rows": [row(obj, data) for obj, data in rows]}


def heading(columns: Sequence[Column]) -> Obj:
    """All of a Table but its rows."""
    definitions = column_definitions(columns)
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": definitions}


def row_function(
    columns: Sequence[Column],
    now: datetime,
    include_object: str = INCLUDE_METADATA,
    version: str = "v1",
    metadata: Callable[[Obj], Obj] = itemgetter("metadata"),
    conditions: Callable[[Obj], list[Obj] | None] | None = None,
) -> Callable[[Obj, bytes | None], Obj]:
    """How one object (and its bytes, see `render`) becomes a row of a Table of this version. `metadata` tells what a
    row shows of an object's, `conditions` what clients may mark the row by."""
    cells = [_cell_function(column) for column in columns]
    api_version = f"meta.k8s.io/{version}"

    def row(obj: Obj, data: bytes | None) -> Obj:
        made: Obj = {"cells": [cell(obj, now) for cell in cells]}
        if conditions is not None and (stated := conditions(obj)):
            made["conditions"] = stated
        if include_object == INCLUDE_METADATA:
            made["object"] = {"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata(obj)}
        elif include_object == INCLUDE_OBJECT:
            made["object"] = obj if data is None else orjson.Fragment(data)
        else:
            made["object"] = None
        return made

    return row


def column_definitions(columns: Sequence[Column]) -> list[Obj]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": 1 if column.wide else 0,
        }
        for column in columns
        if column.name
    ]


def _cell_function(column: Column) -> Callable[[Obj, datetime], Any]:
    value = column.value
    missing = "<none>" if column.none else ""
    if not isinstance(value, str):
        compute = value

        def computed_cell(obj: Obj, now: datetime) -> Any:
            cell = compute(obj, now)
            return missing if cell is None else cell

        return computed_cell
    if column.typed:
        return _typed_cell(compile_path(value), column.type)
    if _PLAIN_PATH.fullmatch(value) is None:
        return _found_cell(compile_path(value), missing)
    steps = _steps(value)

    def path_cell(obj: Obj, now: datetime) -> Any:
        at: Any = obj
        for step in steps:
            if not isinstance(at, dict):
                return missing
            at = at.get(step)
        if at is None or (at == "" and missing):
            return missing
        return at

    return path_cell


def _found_cell(find: Find, missing: str) -> Callable[[Obj, datetime], Any]:
    def cell(obj: Obj, now: datetime) -> Any:
        found = find(obj)
        return found[0] if found and found[0] is not None else missing

    return cell


def _typed_cell(find: Find, type_: str) -> Callable[[Obj, datetime], Any]:
    convert = _CELLS.get(type_, _text_cell)

    def cell(obj: Obj, now: datetime) -> Any:
        found = find(obj)
        return convert(found[0], now) if found and found[0] is not None else None

    return cell


def _text_cell(value: Any, now: datetime) -> Any:
    """Text as it is, everything else as Go prints it or as JSON."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _integer_cell(value: Any, now: datetime) -> Any:
    return int(value) if type(value) in (int, float) else None


def _number_cell(value: Any, now: datetime) -> Any:
    return value if type(value) in (int, float) else None


def _boolean_cell(value: Any, now: datetime) -> Any:
    return value if type(value) is bool else None


def _date_cell(value: Any, now: datetime) -> Any:
    try:
        return human_duration(now - parse_time(value))
    except (ValueError, TypeError, AttributeError):
        return "<invalid>"


_CELLS: Final[dict[str, Callable[[Any, datetime], Any]]] = {
    "integer": _integer_cell,
    "number": _number_cell,
    "boolean": _boolean_cell,
    "date": _date_cell,
}
_PLAIN_PATH: Final = re.compile(r"\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


@memo(1024)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(step for step in path.split(".") if step)
