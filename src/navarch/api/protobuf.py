"""Objects in Kubernetes' protobuf encoding, which kubectl and Kubernetes' components send, to JSON objects and back.

On the wire an object is `k8s\\0` and a `runtime.Unknown`, whose `raw` is the message of the object's kind. In JSON it
has base64 for bytes, RFC 3339 for times, text for quantities, and not the zero values that JSON leaves out. The
messages are those of `protobuf_fields`; per message, a function each way is made when it is first needed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import orjson

from navarch.api import protobuf_scalars as scalars
from navarch.api.protobuf_fields import Field, fields_of, known
from navarch.api.protobuf_wire import delimited
from navarch.api.protobuf_writer import writer

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\x00"
_NO_MESSAGE: Final = "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"

_OPTIONS: Final = ("DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "GetOptions", "ListOptions")
_DISCOVERY: Final = ("APIVersions", "APIGroup", "APIGroupList", "APIResourceList")
_META_KINDS: Final = frozenset((*_OPTIONS, *_DISCOVERY, "Status", "List", "WatchEvent"))
_PACKAGES: Final = {"": "core", "internal.apiserver.k8s.io": "apiserverinternal"}

# From here on Go states a number with its exponent.
_WHOLE: Final = 1e21

# Of a `runtime.Unknown`: the object's message, and what follows it, neither encoding nor type.
_RAW: Final = 2
TAIL: Final = delimited(3, b"") + delimited(4, b"")

# A message to what JSON states.
Reader = Callable[[Any], Any]


def message_of(api_version: str, kind: str) -> str:
    """The name of a kind's message.  Raises ValueError where there is none."""
    group, _, version = api_version.rpartition("/")
    package = "meta/v1" if kind in _META_KINDS else f"{_PACKAGES.get(group, group.split('.', 1)[0])}/{version}"
    name = f"{package}.{kind}"
    if name == "meta/v1beta1.PartialObjectMetadata":
        # The same type in Kubernetes.
        return "meta/v1.PartialObjectMetadata"
    if not known(name):
        raise ValueError(f'no kind "{kind}" is registered for version "{api_version}"')
    return name


def is_kind(api_version: str, kind: str) -> bool:
    """Whether there is a kind of this name in Kubernetes, in whatever version it is served here."""
    try:
        message_of(api_version, kind)
    except ValueError:
        return False
    return True


def decode(body: bytes) -> dict[str, Any]:
    """The object in `body`.  Raises ValueError for what is not one: truncated, malformed, of an unknown kind."""
    if not body.startswith(MAGIC):
        raise ValueError(_NO_MESSAGE if body else "empty data")
    # Twelve milliseconds that a start-up does not need.
    from google.protobuf.message import DecodeError

    from navarch.api.protobuf_messages import message_class

    try:
        unknown = message_class("runtime.Unknown").FromString(body[len(MAGIC) :])
        api_version, kind = unknown.TypeMeta.apiVersion, unknown.TypeMeta.kind
        name = message_of(api_version, kind)
        value = _reader(name)(message_class(name).FromString(unknown.raw))
    except (DecodeError, RecursionError, OverflowError, orjson.JSONDecodeError) as error:
        raise ValueError(f"malformed protobuf: {error}") from None
    return {"apiVersion": api_version, "kind": kind, **value}


def encode(obj: dict[str, Any]) -> bytes:
    """The bytes of an object.  Raises ValueError where its kind has no message, or a field another type than its
    kind says."""
    api_version, kind = obj.get("apiVersion", ""), obj["kind"]
    return enclosed(api_version, kind, delimited(_RAW, message(message_of(api_version, kind), obj)))


def message(name: str, value: dict[str, Any]) -> bytes:
    """The bytes of one message, without what is around an object's.  Raises ValueError."""
    try:
        return writer(name)(value)
    except (TypeError, AttributeError, KeyError, OverflowError) as error:
        raise ValueError(f"{name} cannot be encoded: {error}") from None


def enclosed(api_version: str, kind: str, raw: bytes) -> bytes:
    """An object, whose message is given as the field of the `Unknown` that it is."""
    return head(api_version, kind) + raw + TAIL


@cache
def head(api_version: str, kind: str) -> bytes:
    """What the bytes of a kind's objects begin with."""
    return MAGIC + delimited(1, writer("runtime.TypeMeta")({"apiVersion": api_version, "kind": kind}))


# Reading


@cache
def _reader(name: str) -> Reader:
    """The function that reads a message of this name."""
    special = scalars.READERS.get(name)
    if special is not None:
        return special
    if name.startswith("items:"):
        return lambda value: list(value.items)
    plan = {field.number: _field_reader(field) for field in fields_of(name)}

    def read(value: Any) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for descriptor, found in value.ListFields():
            plan[descriptor.number](out, found)
        return out

    union = scalars.FROM_UNIONS.get(name)
    return read if union is None else lambda value: union(read(value))


def _field_reader(field: Field) -> Callable[[dict[str, Any], Any], None]:
    name, drop = field.name, field.drop
    if not field.is_message and field.type not in ("y", "f"):
        return _scalar_reader(field)
    convert = _converter(field.type)
    if field.embedded:
        return lambda out, found: out.update(convert(found))
    if field.shape == "[]":
        return lambda out, found: out.__setitem__(name, [convert(each) for each in found])
    if field.shape == "{}":
        return lambda out, found: out.__setitem__(name, {key: convert(found[key]) for key in found})

    def single(out: dict[str, Any], found: Any) -> None:
        value = convert(found)
        if value is not None and not (drop and not value and not isinstance(value, dict)):
            out[name] = value

    return single


def _scalar_reader(field: Field) -> Callable[[dict[str, Any], Any], None]:
    name, drop = field.name, field.drop
    if field.shape == "[]":
        return lambda out, found: out.__setitem__(name, list(found))
    if field.shape == "{}":
        return lambda out, found: out.__setitem__(name, dict(found))

    def single(out: dict[str, Any], found: Any) -> None:
        if found or not drop:
            out[name] = found

    return single


def _converter(type_: str) -> Reader:
    if type_ == "y":
        return lambda data: base64.b64encode(data).decode()
    if type_ == "f":
        # As Go's JSON states it.
        return lambda number: int(number) if number.is_integer() and abs(number) < _WHOLE else number
    return lambda value: _reader(type_)(value)
