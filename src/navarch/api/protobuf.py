"""Objects in Kubernetes' protobuf encoding, which kubectl and Kubernetes' components send, to JSON objects and back.

On the wire an object is `k8s\\0` and a `runtime.Unknown`, whose `raw` is the message of the object's kind. In JSON it
has base64 for bytes, RFC 3339 for times, text for quantities, and not the zero values that JSON leaves out. The
messages are those of `protobuf_messages`; per message, a function each way is made when it is first needed. What an
object does not state is not encoded either, which every decoder takes for zero.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError, EncodeError

from navarch.api import protobuf_scalars as scalars
from navarch.api.protobuf_messages import Field, fields_of, known, message_class

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\x00"

_OPTIONS: Final = ("DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "GetOptions", "ListOptions")
_META_KINDS: Final = frozenset((*_OPTIONS, "Status", "List", "WatchEvent", "APIGroup", "APIVersions"))
_PACKAGES: Final = {"": "core", "internal.apiserver.k8s.io": "apiserverinternal"}

# A message to what JSON states, and the other way: to what the message's class takes.
Reader = Callable[[Any], Any]
Writer = Callable[[Any], Any]


def message_of(api_version: str, kind: str) -> str:
    """The name of a kind's message.  Raises ValueError where there is none."""
    group, _, version = api_version.rpartition("/")
    package = "meta/v1" if kind in _META_KINDS else f"{_PACKAGES.get(group, group.split('.', 1)[0])}/{version}"
    name = f"{package}.{kind}"
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
        raise ValueError("the body does not begin as Kubernetes' protobuf encoding does")
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
    stated = obj.copy()
    head, name = _head(stated.pop("apiVersion"), stated.pop("kind"))
    unknown = message_class("runtime.Unknown")(raw=message(name, stated), ContentEncoding="", ContentType="")
    return head + bytes(unknown.SerializeToString())


@cache
def _head(api_version: str, kind: str) -> tuple[bytes, str]:
    """What the bytes of a kind's objects begin with, and the name of its message: a message may come in parts."""
    name = message_of(api_version, kind)
    type_meta = {"apiVersion": api_version, "kind": kind}
    return MAGIC + bytes(message_class("runtime.Unknown")(TypeMeta=type_meta).SerializeToString()), name


def message(name: str, value: dict[str, Any]) -> bytes:
    """The bytes of one message, without what is around an object's.  Raises ValueError."""
    made = message_class(name)
    try:
        try:
            built = made(**_writer(name, False)(value))
        except ValueError:
            # Most often a field that the table does not have. Looking for them in every message takes a third longer.
            built = made(**_writer(name, True)(value))
        return bytes(built.SerializeToString(deterministic=True))
    except (TypeError, AttributeError, KeyError, EncodeError, OverflowError) as error:
        raise ValueError(f"{name} cannot be encoded: {error}") from None


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

    return read


def _field_reader(field: Field) -> Callable[[dict[str, Any], Any], None]:
    name, drop = field.name, field.drop
    if not field.is_message and field.type != "y":
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
    return lambda value: _reader(type_)(value)


# Writing


@cache
def _writer(name: str, careful: bool) -> Writer:
    """The function that gives the arguments of the message's class for what JSON states. Only what JSON states
    otherwise is made anew, all else is handed over as it is; `careful` leaves out what the table does not have."""
    special = scalars.WRITERS.get(name)
    if special is not None:
        return special
    if name.startswith("items:"):
        return lambda value: {"items": value}
    fields = fields_of(name)
    names = frozenset(field.wire_name for field in fields if not field.embedded)
    changed = [(field.name, _field_writer(field, careful)) for field in fields if _changes(field, careful)]
    embedded = [(field.name, _stated(field.type), _late(field.type, careful)) for field in fields if field.embedded]

    def write(value: dict[str, Any]) -> dict[str, Any]:
        out = {key: each for key, each in value.items() if key in names} if careful else value.copy()
        for key, convert in changed:
            found = out.get(key)
            if found is not None:
                out[key] = convert(found)
        for key, stated, convert in embedded:
            inner = {part: each for part, each in value.items() if part in stated}
            if inner:
                if not careful:
                    for part in inner:
                        del out[part]
                out[key] = convert(inner)
        return out

    return write


@cache
def _stated(name: str) -> frozenset[str]:
    """The names under which JSON states a message's fields."""
    found: set[str] = set()
    for field in fields_of(name):
        found |= _stated(field.type) if field.embedded else {field.name}
    return frozenset(found)


def _changes(field: Field, careful: bool) -> bool:
    """Whether the class does not take what JSON states."""
    if field.embedded:
        return False
    return field.type == "y" or (field.is_message and (careful or not _same(field.type)))


@cache
def _same(name: str) -> bool:
    """Whether JSON states all of a message, down to its leaves, as its class takes it."""
    below, waiting = {name}, [name]
    while waiting:
        each = waiting.pop()
        if each in scalars.WRITERS or each.startswith("items:"):
            return False
        for field in fields_of(each):
            if field.embedded or field.type == "y":
                return False
            if field.is_message and field.type not in below:
                below.add(field.type)
                waiting.append(field.type)
    return True


def _late(type_: str, careful: bool) -> Writer:
    """Looked up when first called: messages may hold themselves."""
    found: list[Writer] = []

    def convert(value: Any) -> Any:
        if not found:
            found.append(_writer(type_, careful))
        return found[0](value)

    return convert


def _field_writer(field: Field, careful: bool) -> Writer:
    convert = _late(field.type, careful) if field.is_message else base64.b64decode
    if field.shape == "[]":
        return lambda values: [convert(value) for value in values]
    if field.shape == "{}":
        # A time in a map may be null.
        return lambda values: {key: {} if value is None else convert(value) for key, value in values.items()}
    return convert
