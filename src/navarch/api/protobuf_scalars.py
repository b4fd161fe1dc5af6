"""What is a message in protobuf, and a text, a number or anything in JSON: times, quantities, embedded JSON.

`READERS` make of a message what JSON states, `WRITERS` of that the arguments of the message's class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import orjson

from navarch.api.memo import memo
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


@memo(4096)
def _time(text: str) -> tuple[int, int]:
    moment = parse_time(text) - _EPOCH
    return moment // _SECOND, moment.microseconds * 1000


def _write_time(text: str) -> dict[str, int]:
    return {"seconds": _time(text)[0], "nanos": 0}


def _write_micro_time(text: str) -> dict[str, int]:
    seconds, nanos = _time(text)
    return {"seconds": seconds, "nanos": nanos}


def _read_int_or_string(value: Any) -> int | str:
    return str(value.StrVal) if value.Type else int(value.IntVal)


def _write_int_or_string(value: int | str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"Type": 1, "IntVal": 0, "StrVal": value}
    return {"Type": 0, "IntVal": value, "StrVal": ""}


def _read_json(value: Any) -> Any:
    return orjson.loads(value.raw) if value.raw else None


def _write_json(value: Any) -> dict[str, bytes]:
    return {"raw": orjson.dumps(value)}


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


def _write_duration(text: str) -> dict[str, int]:
    rest, nanos = text.lstrip("+-"), 0.0
    while rest and rest != "0":
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("hmsuµn"))]
        nanos += float(number) * _UNITS[unit]
        rest = rest[len(unit) :]
    return {"Duration": round(-nanos if text.startswith("-") else nanos)}


READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "meta/v1.Time": partial(_read_time, format_time),
    "meta/v1.MicroTime": partial(_read_time, format_micro_time),
    "meta/v1.Duration": _read_duration,
    "meta/v1.FieldsV1": _read_json,
    "api/resource.Quantity": lambda value: str(value.string),
    "util/intstr.IntOrString": _read_int_or_string,
    "runtime.RawExtension": _read_json,
}
WRITERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "meta/v1.Time": _write_time,
    "meta/v1.MicroTime": _write_micro_time,
    "meta/v1.Duration": _write_duration,
    "meta/v1.FieldsV1": _write_json,
    "api/resource.Quantity": lambda text: {"string": text},
    "util/intstr.IntOrString": _write_int_or_string,
    "runtime.RawExtension": _write_json,
}
