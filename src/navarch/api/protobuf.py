"""Objects in Kubernetes' protobuf encoding, which kubectl and Kubernetes' own components send, to JSON objects.

In: bytes that begin with `k8s\\0` and hold a `runtime.Unknown`, whose `raw` is the message of the object's kind.  Out:
the object as JSON would state it: base64 for bytes, RFC 3339 for times, text for quantities, and without the zero
values that JSON leaves out. Field numbers and types are in `protobuf_fields.txt`, read at first use; a message's reader
is made when one of its kind first arrives. Answers are always JSON, which every such client accepts beside.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from navarch.api.time import format_micro_time, format_time

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\x00"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_META_KINDS: Final = frozenset({"DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions", "Status", "List"})
_PACKAGES: Final = {"": "core", "internal.apiserver.k8s.io": "apiserverinternal"}

# A field's value from its wire form: an int for varints and fixed ones, else bytes.
Reader = Callable[[Any], Any]


def decode(body: bytes) -> dict[str, Any]:
    """The object in `body`.  Raises ValueError for what is not one: truncated, malformed, of an unknown kind."""
    if not body.startswith(MAGIC):
        raise ValueError("the body does not begin as Kubernetes' protobuf encoding does")
    try:
        api_version, kind, raw = _envelope(body[len(MAGIC) :])
        group, _, version = api_version.rpartition("/")
        package = "meta/v1" if kind in _META_KINDS else f"{_PACKAGES.get(group, group.split('.', 1)[0])}/{version}"
        message = f"{package}.{kind}"
        if message not in _lines():
            raise ValueError(f'no kind "{kind}" is registered for version "{api_version}"')
        return {"apiVersion": api_version, "kind": kind, **_read(message, raw)}
    except (LookupError, struct.error, RecursionError, OverflowError, TypeError, AttributeError) as error:
        # The last two: a field of another wire type than the table says.
        raise ValueError(f"malformed protobuf: {error}") from error


def _envelope(data: bytes) -> tuple[str, str, bytes]:
    """`runtime.Unknown`: apiVersion, kind and the message's bytes."""
    api_version = kind = ""
    raw = b""
    for number, value in _fields(data):
        if number == 1:
            for inner, text in _fields(value):
                if inner == 1:
                    api_version = text.decode()
                elif inner == 2:
                    kind = text.decode()
        elif number == 2:
            raw = value
    return api_version, kind, raw


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The field numbers and raw values of a message, in the order in which they stand."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif wire == _BYTES:
            size, at = _varint(data, at)
            if at + size > end:
                raise IndexError("a field reaches beyond its message")
            yield tag >> 3, data[at : at + size]
            at += size
        elif wire == _FIXED64:
            yield tag >> 3, struct.unpack_from("<d", data, at)[0]
            at += 8
        elif wire == _FIXED32:
            yield tag >> 3, struct.unpack_from("<f", data, at)[0]
            at += 4
        else:
            raise IndexError(f"unknown wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError("a number is too long")


@cache
def _lines() -> dict[str, str]:
    """Message name to its fields as the table states them."""
    lines: dict[str, str] = {}
    for line in Path(__file__).with_name("protobuf_fields.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, _, fields = line.partition(" ")
            lines[name] = fields
    return lines


class _Field:
    """How one field is read: `shape` is "" (single), "[]" or "{}"; `drop` leaves out zero values; an `embedded`
    message, named as its type, states its fields in JSON as if they were the outer one's."""

    __slots__ = ("drop", "embedded", "name", "read", "shape")

    def __init__(self, name: str, stated: str) -> None:
        self.name = name
        always = stated.endswith("!")
        stated = stated.removesuffix("!")
        optional = stated.startswith("*")
        stated = stated.removeprefix("*")
        self.shape = stated[:2] if stated[:2] in ("[]", "{}") else ""
        stated = stated[len(self.shape) :].removeprefix("*")
        self.drop = not always and not optional and not self.shape
        self.embedded = "/" in stated and stated.rpartition(".")[2] == name
        self.read = _reader(stated)


@cache
def _message(name: str) -> dict[int, _Field]:
    fields: dict[int, _Field] = {}
    for entry in _lines()[name].split():
        field, _, stated = entry.partition("=")
        number, _, type_ = stated.partition(":")
        fields[int(number)] = _Field(field, type_)
    return fields


def _reader(type_: str) -> Reader:
    simple = _SIMPLE.get(type_)
    if simple is not None:
        return simple
    if type_.startswith("items:"):
        element = _reader(type_.removeprefix("items:"))
        return lambda data: [element(value) for number, value in _fields(data) if number == 1]
    return lambda data: _read(type_, data)


def _read(name: str, data: bytes) -> dict[str, Any]:
    message = _message(name)
    out: dict[str, Any] = {}
    for number, raw in _fields(data):
        field = message.get(number)
        if field is None:
            # Of a newer version than ours; JSON would be pruned in the same way.
            continue
        if field.shape == "[]":
            out.setdefault(field.name, []).append(field.read(raw))
        elif field.embedded:
            out.update(field.read(raw))
        elif field.shape == "{}":
            key, value = _entry(raw, field.read)
            out.setdefault(field.name, {})[key] = value
        else:
            value = field.read(raw)
            if value is not None and not (field.drop and value in ("", 0, False) and not isinstance(value, dict)):
                out[field.name] = value
    return out


def _entry(data: bytes, read: Reader) -> tuple[str, Any]:
    key, value = "", None
    for number, raw in _fields(data):
        if number == 1:
            key = raw.decode()
        elif number == 2:
            value = read(raw)
    return key, read(b"") if value is None else value


def _text(data: bytes) -> str:
    return data.decode()


def _integer(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _seconds_and_nanos(data: bytes) -> datetime | None:
    seconds = nanos = 0
    for number, value in _fields(data):
        if number == 1:
            seconds = _integer(value)
        elif number == 2:
            nanos = _integer(value)
    # Go's zero time, which JSON states as null.
    if not data or seconds == -62135596800:
        return None
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanos // 1000 % 1_000_000)


def _time(data: bytes) -> str | None:
    moment = _seconds_and_nanos(data)
    return format_time(moment) if moment else None


def _micro_time(data: bytes) -> str | None:
    moment = _seconds_and_nanos(data)
    return format_micro_time(moment) if moment else None


def _first_text(data: bytes) -> str:
    return next((value.decode() for number, value in _fields(data) if number == 1), "")


def _int_or_string(data: bytes) -> int | str:
    found = dict(_fields(data))
    if found.get(1):
        return str(found.get(3, b"").decode())
    return _integer(found.get(2, 0))


def _embedded_json(data: bytes) -> Any:
    raw = next((value for number, value in _fields(data) if number == 1), b"")
    return json.loads(raw) if raw else None


def _duration(data: bytes) -> str:
    nanos = _integer(dict(_fields(data)).get(1, 0))
    return f"{nanos / 1e9:g}s"


_SIMPLE: Final[dict[str, Reader]] = {
    "s": _text,
    "b": bool,
    "i": _integer,
    "f": float,
    "y": lambda data: base64.b64encode(data).decode(),
    "meta/v1.Time": _time,
    "meta/v1.MicroTime": _micro_time,
    "meta/v1.Duration": _duration,
    "meta/v1.FieldsV1": _embedded_json,
    "api/resource.Quantity": _first_text,
    "util/intstr.IntOrString": _int_or_string,
    "runtime.RawExtension": _embedded_json,
}
