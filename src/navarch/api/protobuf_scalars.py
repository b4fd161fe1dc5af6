"""What is a message in protobuf, and a text, a number or anything in JSON: times, quantities, embedded JSON.

`READERS` make of a message what JSON states, `WRITERS` of that the message's bytes; `ZEROS` are the bytes where nothing
is stated. `UNIONS` say in the message's fields what JSON states in one of several ways, `FROM_UNIONS` the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import orjson

from navarch.api.memo import memo
from navarch.api.protobuf_wire import VARINT, delimited, tag, varint
from navarch.api.time import format_micro_time, format_time, parse_time

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Go's zero time, which JSON states as null.
_ZERO_SECONDS: Final = -62135596800
_SECOND: Final = timedelta(seconds=1)
_UNITS: Final[Mapping[str, float]] = {"h": 3600e9, "m": 60e9, "s": 1e9, "ms": 1e6, "us": 1e3, "µs": 1e3, "ns": 1}


def _moment(value: Any) -> datetime | None:
    if not value.ListFields() or (value.seconds == _ZERO_SECONDS and not value.nanos):
        return None
    try:
        return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError:
        # As Go says it; Python's words differ with how far out the time is.
        raise OverflowError("Time.MarshalJSON: year outside of range [0,9999]") from None


def _read_time(form: Callable[[datetime], str], value: Any) -> str | None:
    moment = _moment(value)
    return form(moment) if moment is not None else None


def _time(text: str) -> tuple[int, int]:
    moment = parse_time(text) - _EPOCH
    return moment // _SECOND, moment.microseconds * 1000


@memo(4096)
def _write_time(text: str) -> bytes:
    # Seconds alone, as Kubernetes does it.
    return _timestamp(_time(text)[0], 0)


@memo(4096)
def _write_micro_time(text: str) -> bytes:
    return _timestamp(*_time(text))


def _timestamp(seconds: int, nanos: int) -> bytes:
    return tag(1, VARINT) + varint(seconds) + tag(2, VARINT) + varint(nanos)


def _read_int_or_string(value: Any) -> int | str:
    return str(value.StrVal) if value.Type else int(value.IntVal)


def _write_int_or_string(value: int | str) -> bytes:
    is_text = isinstance(value, str)
    number, text = (0, value) if isinstance(value, str) else (value, "")
    return tag(1, VARINT) + varint(is_text) + tag(2, VARINT) + varint(number) + delimited(3, text.encode())


def _read_json(value: Any) -> Any:
    return orjson.loads(value.raw) if value.raw else None


def _write_json(value: Any) -> bytes:
    return delimited(1, orjson.dumps(value))


def _read_duration(value: Any) -> str:
    """As Go shows it: `1h2m3.5s`."""
    nanos = abs(value.Duration)
    sign = "-" if value.Duration < 0 else ""
    if nanos == 0:
        return "0s"
    if nanos < 1_000_000_000:
        unit = next(unit for unit in ("ms", "µs", "ns") if nanos >= _UNITS[unit])
        return f"{sign}{nanos / _UNITS[unit]:.9g}{unit}"
    minutes, rest = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    whole, part = divmod(rest, 1_000_000_000)
    fraction = f".{part:09}".rstrip("0") if part else ""
    return f"{sign}{f'{hours}h' if hours else ''}{f'{minutes}m' if minutes or hours else ''}{whole}{fraction}s"


def _write_duration(text: str) -> bytes:
    rest, nanos = text.lstrip("+-"), 0.0
    while rest and rest != "0":
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("hmsuµn"))]
        nanos += float(number) * _UNITS[unit]
        rest = rest[len(unit) :]
    return tag(1, VARINT) + varint(round(-nanos if text.startswith("-") else nanos))


def _write_quantity(text: str) -> bytes:
    return delimited(1, text.encode())


# Schemas of custom resources


def _schema_or_list(value: Any) -> dict[str, Any]:
    return {"jSONSchemas": value} if isinstance(value, list) else {"schema": value}


def _schema_or_bool(value: Any) -> dict[str, Any]:
    return {"allows": value} if isinstance(value, bool) else {"allows": True, "schema": value}


def _schema_or_texts(value: Any) -> dict[str, Any]:
    return {"property": value} if isinstance(value, list) else {"schema": value}


def _from_schema_or_bool(fields: dict[str, Any]) -> Any:
    return fields.get("schema", fields.get("allows", False))


READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "meta/v1.Time": partial(_read_time, format_time),
    "meta/v1.MicroTime": partial(_read_time, format_micro_time),
    "meta/v1.Duration": _read_duration,
    "meta/v1.FieldsV1": _read_json,
    "api/resource.Quantity": lambda value: str(value.string),
    "util/intstr.IntOrString": _read_int_or_string,
    "runtime.RawExtension": _read_json,
    "apiextensions/v1.JSON": _read_json,
}
WRITERS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "meta/v1.Time": _write_time,
    "meta/v1.MicroTime": _write_micro_time,
    "meta/v1.Duration": _write_duration,
    "meta/v1.FieldsV1": _write_json,
    "api/resource.Quantity": _write_quantity,
    "util/intstr.IntOrString": _write_int_or_string,
    "runtime.RawExtension": _write_json,
    "apiextensions/v1.JSON": _write_json,
}
ZEROS: Final[Mapping[str, bytes]] = {
    "meta/v1.Time": b"",
    "meta/v1.MicroTime": b"",
    "meta/v1.Duration": _write_duration("0"),
    "meta/v1.FieldsV1": b"",
    "api/resource.Quantity": _write_quantity("0"),
    "util/intstr.IntOrString": _write_int_or_string(0),
    "runtime.RawExtension": b"",
    "apiextensions/v1.JSON": b"",
}
UNIONS: Final[Mapping[str, Callable[[Any], dict[str, Any]]]] = {
    "apiextensions/v1.JSONSchemaPropsOrArray": _schema_or_list,
    "apiextensions/v1.JSONSchemaPropsOrBool": _schema_or_bool,
    "apiextensions/v1.JSONSchemaPropsOrStringArray": _schema_or_texts,
}
FROM_UNIONS: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "apiextensions/v1.JSONSchemaPropsOrArray": lambda fields: fields.get("jSONSchemas", fields.get("schema")),
    "apiextensions/v1.JSONSchemaPropsOrBool": _from_schema_or_bool,
    "apiextensions/v1.JSONSchemaPropsOrStringArray": lambda fields: fields.get("property", fields.get("schema")),
}
