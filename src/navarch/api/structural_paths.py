"""Paths to fields as definitions state them: `.spec.names['a b'].c`, checked against the schema.

In: a path and a schema.  Out: its steps, the place that it leads to, or, as a ValueError, why it leads nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from navarch.api.meta import Obj

_TOKEN: Final = re.compile(r"'(?:[^'\\]|\\.)*'|[.\[\]]|[^.\[\]']+|'.*")
_ESCAPES: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "'": "'",
    "\\": "\\",
}
_END: Final = "unexpected end of JSON path"
_NOWHERE: Final = "does not refer to a valid field"


def field_path(path: str, schema: Obj, *, brackets: bool = True) -> tuple[str, Obj]:
    """The path as error messages show it, without the dot that it begins with, and the place.  Raises ValueError."""
    tokens = iter(_TOKEN.findall(path))
    shown, place = "", schema
    for token in tokens:
        if token == "[":
            if not brackets:
                raise ValueError("array notation is not allowed")
            name = _quoted(next(tokens, None))
            shown, place = _step(shown, place, name)
            closing = next(tokens, None)
            if closing is None:
                raise ValueError(_END)
            if closing != "]":
                raise ValueError(f"expected ] but got {closing}")
        elif token == ".":
            name = _after_dot(tokens)
            shown, place = _step(shown, place, name)
        else:
            raise ValueError(f"expected [ or . but got: {token}")
    return shown, place


def _after_dot(tokens: Iterator[str]) -> str:
    name = next(tokens, None)
    if name is None:
        raise ValueError(_END)
    return name


def _step(shown: str, place: Obj, name: str) -> tuple[str, Obj]:
    fields, values = place.get("properties"), place.get("additionalProperties")
    if fields:
        if name not in fields:
            raise ValueError(_NOWHERE)
        return (f"{shown}.{name}" if shown else name), fields[name]
    if isinstance(values, dict):
        return f"{shown}[{name}]", values
    raise ValueError(_NOWHERE)


def _quoted(token: str | None) -> str:
    if token is None:
        raise ValueError(_END)
    if len(token) < 2 or token[0] != "'" or token[-1] != "'":
        raise ValueError(f"expected single quoted string but got {token}")

    def escape(matched: re.Match[str]) -> str:
        character = _ESCAPES.get(matched[0][1])
        if character is None:
            raise ValueError(f"invalid string literal: invalid escape char {matched[0]}")
        return character

    return re.sub(r"\\.", escape, token[1:-1])
