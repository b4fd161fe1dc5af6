"""The table of Kubernetes' protobuf messages: which fields each has, as `protobuf_fields.txt` says.

In: a message's name (`core/v1.Pod`).  Out: its fields by number, with what is to be known of each beyond its wire form.
The table is packed from Kubernetes' own by `tools/pack_protobuf.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from navarch.records import frozen

SCALARS: Final = frozenset("sbify")
# Messages that hold a list, where JSON has the list itself: `items:s`.
ITEMS: Final = "items:"


@frozen
class Field:
    """`shape` is "" (single), "[]" or "{}" (by text); `type` a letter (s string, b bool, i integer, f double, y bytes)
    or a message's name; `pointer` says that it is one in Kubernetes, where zero is not the same as nothing; `drop`
    that JSON leaves out zero; `embedded` that JSON states the message's fields as if they were the outer one's."""

    name: str
    number: int
    shape: str
    type: str
    pointer: bool
    drop: bool
    embedded: bool

    @property
    def is_message(self) -> bool:
        return self.type not in SCALARS

    @property
    def wire_name(self) -> str:
        """As the classes call it: not everything that JSON allows in a name may be one there."""
        return "raw" if self.name == "-" else re.sub("[^A-Za-z0-9_]", "_", self.name)


@cache
def _lines() -> Mapping[str, str]:
    lines: dict[str, str] = {}
    for line in Path(__file__).with_name("protobuf_fields.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, _, fields = line.partition(" ")
            lines[name] = fields
    return lines


def names() -> Iterator[str]:
    return iter(_lines())


def known(name: str) -> bool:
    return name in _lines()


def stated_fields(name: str) -> str | None:
    """What the table says of a message, as it says it; None for none that it has."""
    return _lines().get(name)


@cache
def fields_of(name: str) -> tuple[Field, ...]:
    """A message's fields, by number.  Raises KeyError."""
    if name.startswith(ITEMS):
        return (Field("items", 1, "[]", name.removeprefix(ITEMS), False, False, False),)
    return tuple(sorted(_parsed(_lines()[name]), key=lambda field: field.number))


def _parsed(stated: str) -> Iterator[Field]:
    for entry in stated.split():
        name, _, rest = entry.partition("=")
        number, _, type_ = rest.partition(":")
        always, type_ = type_.endswith("!"), type_.removesuffix("!")
        optional, type_ = type_.startswith("*"), type_.removeprefix("*")
        shape = type_[:2] if type_[:2] in ("[]", "{}") else ""
        type_ = type_[len(shape) :].removeprefix("*")
        drop = not (always or optional or shape)
        if not (type_ in SCALARS or type_.startswith(ITEMS) or type_ in _lines()):
            # Of a version that the table does not have.
            continue
        embedded = "/" in type_ and type_.rpartition(".")[2] == name
        yield Field(name, int(number), shape, type_, optional, drop, embedded)
