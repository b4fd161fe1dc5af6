"""Kubernetes' protobuf messages as classes of the `protobuf` library, made from the table when one is first needed.

In: a message's name (`core/v1.Pod`).  Out: its class, whose fields are named as JSON names them, as far as names may be
so. A package's descriptors are built with the first of its messages. Imported by who reads messages: those who write
them, and a server that nobody has sent any, do without the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from navarch.api.protobuf_fields import ITEMS, Field, fields_of, names

_F: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final[Mapping[str, Any]] = {
    "s": _F.TYPE_STRING,
    "b": _F.TYPE_BOOL,
    "i": _F.TYPE_INT64,
    "f": _F.TYPE_DOUBLE,
    "y": _F.TYPE_BYTES,
}


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
    return "items" if name.startswith(ITEMS) else name.rpartition(".")[0]


def _full(name: str) -> str:
    if name.startswith(ITEMS):
        return f"items.{name.removeprefix(ITEMS).replace('/', '_').replace('.', '_')}"
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
    for name in [f"{ITEMS}s"] if package == "items" else [each for each in names() if _package_of(each) == package]:
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
