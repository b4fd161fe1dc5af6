"""Kubernetes' protobuf messages as classes of the `protobuf` library, made from a table when one is first needed.

In: a message's name as `protobuf_fields.txt` has it (`core/v1.Pod`).  Out: its class, whose fields are named as JSON
names them; and what the table says of a field beyond its wire form (`Field`). The table is packed from Kubernetes' own
by `tools/pack_protobuf.py`; a package's descriptors are built with the first of its messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_F: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final[Mapping[str, Any]] = {
    "s": _F.TYPE_STRING,
    "b": _F.TYPE_BOOL,
    "i": _F.TYPE_INT64,
    "f": _F.TYPE_DOUBLE,
    "y": _F.TYPE_BYTES,
}
# Messages that hold a list, where JSON has the list itself: `items:s`.
_ITEMS: Final = "items:"


@dataclass(frozen=True, slots=True)
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
        return self.type not in _SCALARS

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
    if name.startswith(_ITEMS):
        return (Field("items", 1, "[]", name.removeprefix(_ITEMS), False, False, False),)
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
        if not (type_ in _SCALARS or type_.startswith(_ITEMS) or type_ in _lines()):
            # Of a version that the table does not have.
            continue
        embedded = "/" in type_ and type_.rpartition(".")[2] == name
        yield Field(name, int(number), shape, type_, optional, drop, embedded)


@cache
def message_class(name: str) -> Any:
    """The message's class.  Raises KeyError."""
    package = _package_of(name)
    _add(package)
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(_full(name)))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    return descriptor_pool.DescriptorPool()


def _package_of(name: str) -> str:
    return "items" if name.startswith(_ITEMS) else name.rpartition(".")[0]


def _full(name: str) -> str:
    if name.startswith(_ITEMS):
        return f"items.{name.removeprefix(_ITEMS).replace('/', '_').replace('.', '_')}"
    package, _, message = name.rpartition(".")
    return f"{package.replace('/', '_').replace('.', '_')}.{message}"


@cache
def _add(package: str) -> None:
    """Build the descriptors of a package, and of those that it refers to."""
    file = descriptor_pb2.FileDescriptorProto(name=package, package=_full(f"{package}.x").rpartition(".")[0])
    # As proto2, which Kubernetes uses, but with texts that must be UTF-8.
    file.syntax, file.edition = "editions", descriptor_pb2.EDITION_2023
    file.options.features.repeated_field_encoding = descriptor_pb2.FeatureSet.EXPANDED
    needed: set[str] = set()
    for name in [f"{_ITEMS}s"] if package == "items" else [each for each in names() if _package_of(each) == package]:
        message = file.message_type.add(name=_full(name).rpartition(".")[2])
        for field in fields_of(name):
            _add_field(message, field)
            if field.is_message:
                needed.add(_package_of(field.type))
    for other in sorted(needed - {package}):
        _add(other)
        file.dependency.append(other)
    _pool().AddSerializedFile(file.SerializeToString())


def _add_field(message: descriptor_pb2.DescriptorProto, field: Field) -> None:
    label = _F.LABEL_OPTIONAL if not field.shape else _F.LABEL_REPEATED
    added = message.field.add(name=field.wire_name, number=field.number, label=label)
    if field.shape != "{}":
        _set_type(added, field.type)
        return
    entry = message.nested_type.add(name=_entry_name(field.wire_name))
    entry.options.map_entry = True
    _set_type(entry.field.add(name="key", number=1, label=_F.LABEL_OPTIONAL), "s")
    _set_type(entry.field.add(name="value", number=2, label=_F.LABEL_OPTIONAL), field.type)
    added.type, added.type_name = _F.TYPE_MESSAGE, entry.name


def _entry_name(name: str) -> str:
    """As the compiler would call it, which the library checks."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Entry"


def _set_type(field: descriptor_pb2.FieldDescriptorProto, type_: str) -> None:
    if type_ in _SCALARS:
        field.type = _SCALARS[type_]
    else:
        field.type, field.type_name = _F.TYPE_MESSAGE, f".{_full(type_)}"
