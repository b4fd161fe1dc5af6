"""Files that configure a server in Kubernetes' forms: whether what is in them has the form at all.

In: a document, and the shape that its kind has.  Out: what is wrong, with the path of each place; what is said there is
for who reads on, and may then rely on the types. An empty value is as good as none, as Go has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from navarch.api.meta import Obj
from navarch.records import frozen


@frozen
class ListOf:
    item: Shape


@frozen
class Struct:
    """Other fields than these are said to be unknown."""

    fields: Mapping[str, Shape]


# A type of Python's, `object` for anything.
Shape = type | ListOf | Struct

TEXTS: Final = ListOf(str)
_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    dict: "an object",
}


class ShapeError(ValueError):
    """A document has not the form that it should have; the message says where and how."""


def fit(document: Obj, fields: Mapping[str, Shape], *, strict: bool = True) -> list[str]:
    """The paths of fields that are not known, which are no error where it is not `strict`.  Raises ShapeError."""
    unknown: list[str] = []
    shape = Struct({"apiVersion": str, "kind": str, "metadata": object, **fields})
    wrong = list(_wrong(document, shape, "", unknown))
    if strict:
        wrong += [f'unknown field "{path}"' for path in unknown]
    if wrong:
        raise ShapeError(f"strict decoding error: {', '.join(wrong)}" if strict else ", ".join(wrong))
    return unknown


def _wrong(value: Any, shape: Shape, path: str, unknown: list[str]) -> Iterator[str]:
    if value is None or shape is object:
        return
    if isinstance(shape, ListOf):
        if not isinstance(value, list):
            yield f"{path}: must be a list"
            return
        for index, item in enumerate(value):
            if item is None and isinstance(shape.item, Struct):
                yield f"{path}[{index}]: must be an object"
            yield from _wrong(item, shape.item, f"{path}[{index}]", unknown)
    elif isinstance(shape, Struct):
        if not isinstance(value, dict):
            yield f"{path}: must be an object"
            return
        for name, inner in value.items():
            where = f"{path}.{name}" if path else str(name)
            if name in shape.fields:
                yield from _wrong(inner, shape.fields[name], where, unknown)
            else:
                unknown.append(where)
    elif not isinstance(value, shape) or (shape is int and isinstance(value, bool)):
        yield f"{path}: must be {_NAMES[shape]}"
