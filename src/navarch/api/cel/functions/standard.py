"""The language's own functions: sizes, conversions, times, and searching in strings."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Final
from zoneinfo import ZoneInfo

from navarch.api.cel.declarations import declared
from navarch.api.cel.errors import CelError
from navarch.api.cel.regex import found_in
from navarch.api.cel.times import parse_duration, parse_timestamp
from navarch.api.cel.values import (
    Duration,
    Timestamp,
    TypeValue,
    Uint,
    checked_int,
    checked_uint,
    go_float,
    type_name,
)
from navarch.api.cel.values import size as size_of
from navarch.api.go_text import quoted
from navarch.numbers import ascii_integer, is_digits

_NANO: Final = 10**9


def _to_int(value: Any) -> int:
    if isinstance(value, str):
        try:
            return ascii_integer(value)
        except ValueError as error:
            raise CelError(f"strconv.ParseInt: parsing {quoted(value)}: {error}") from None
    if isinstance(value, float):
        # The bounds themselves are not exact as doubles and are refused.
        if not -(2.0**63) < value < 2.0**63:
            raise CelError("integer overflow")
        return int(value)
    if isinstance(value, Timestamp):
        return value.nanos // _NANO
    if isinstance(value, Duration):
        return value.nanos
    return checked_int(int(value))


def _to_uint(value: Any) -> Uint:
    if isinstance(value, str):
        if not is_digits(value):
            raise CelError(f"strconv.ParseUint: parsing {quoted(value)}: invalid syntax")
        digits = value.lstrip("0") or "0"
        if len(digits) > 20 or int(digits) >= 2**64:
            raise CelError(f"strconv.ParseUint: parsing {quoted(value)}: value out of range")
        return Uint(int(digits))
    if isinstance(value, float) and not 0 <= value < 2.0**64:
        raise CelError("unsigned integer overflow")
    return checked_uint(int(value))


def _to_double(value: Any) -> float:
    if isinstance(value, str):
        try:
            if value != value.strip() or "_" in value:
                raise ValueError
            return float(value)
        except ValueError:
            raise CelError(f"strconv.ParseFloat: parsing {quoted(value)}: invalid syntax") from None
    return float(value)


_TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def _to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise CelError(f"strconv.ParseBool: parsing {quoted(value)}: invalid syntax")


def _to_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return go_float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise CelError("invalid UTF-8 in bytes, cannot convert to string") from None
    return str(value)


def _to_timestamp(value: Any) -> Timestamp:
    if isinstance(value, str):
        return parse_timestamp(value)
    return Timestamp(int(value) * _NANO) if isinstance(value, int) else value


def _to_duration(value: Any) -> Duration:
    if isinstance(value, str):
        return parse_duration(value)
    return Duration(int(value)) if isinstance(value, int) else value


def _type(value: Any) -> TypeValue:
    return TypeValue(type_name(value))


def _matches(text: str, pattern: str) -> bool:
    return found_in(pattern, text)


def _in_zone(stamp: Timestamp, zone: str) -> datetime:
    moment = stamp.moment()
    sign = -1 if zone.startswith("-") else 1
    hours, colon, minutes = zone.lstrip("+-").partition(":")
    if colon and is_digits(hours) and is_digits(minutes) and len(hours + minutes) <= 4:
        return moment.astimezone(timezone(sign * timedelta(hours=int(hours), minutes=int(minutes))))
    if zone in ("", "UTC"):
        return moment
    try:
        return moment.astimezone(ZoneInfo(zone))
    except (KeyError, ValueError, OSError):
        raise CelError(f"unknown time zone {zone}") from None


_GETTERS: Final[dict[str, Callable[[datetime, int], int]]] = {
    "getFullYear": lambda at, _: at.year,
    "getMonth": lambda at, _: at.month - 1,
    "getDayOfYear": lambda at, _: at.timetuple().tm_yday - 1,
    "getDayOfMonth": lambda at, _: at.day - 1,
    "getDate": lambda at, _: at.day,
    "getDayOfWeek": lambda at, _: at.isoweekday() % 7,
    "getHours": lambda at, _: at.hour,
    "getMinutes": lambda at, _: at.minute,
    "getSeconds": lambda at, _: at.second,
    "getMilliseconds": lambda _, nanos: nanos // 10**6,
}
_OF_DURATION: Final[dict[str, Callable[[int], int]]] = {
    "getHours": lambda nanos: int(nanos / 3.6e12),
    "getMinutes": lambda nanos: int(nanos / 6e10),
    "getSeconds": lambda nanos: int(nanos / 1e9),
    "getMilliseconds": lambda nanos: int(math.fmod(nanos, 10**9) / 1e6),
}


def _getter(name: str) -> Callable[..., int]:
    read = _GETTERS[name]

    def get(stamp: Timestamp, zone: str = "") -> int:
        return read(_in_zone(stamp, zone), stamp.nanos % _NANO)

    return get


def _duration_getter(name: str) -> Callable[[Duration], int]:
    read = _OF_DURATION[name]
    return lambda value: read(value.nanos)


_CONVERSIONS: Final = (
    ("bool", "bool", "string"),
    ("bytes", "bytes", "string"),
    ("double", "double", "int", "string", "uint"),
    ("duration", "duration", "int", "string"),
    ("int", "int", "double", "duration", "string", "timestamp", "uint"),
    ("string", "string", "bool", "bytes", "double", "duration", "int", "timestamp", "uint"),
    ("timestamp", "timestamp", "int", "string"),
    ("uint", "uint", "double", "int", "string"),
)
_ID: Final = {"int": "int64", "uint": "uint64"}
_CONVERT: Final[dict[str, Callable[[Any], Any]]] = {
    "bool": _to_bool,
    "bytes": lambda value: value if isinstance(value, bytes) else value.encode(),
    "double": _to_double,
    "duration": _to_duration,
    "int": _to_int,
    "string": _to_string,
    "timestamp": _to_timestamp,
    "uint": _to_uint,
}
_LINES = """
size size_bytes (bytes) int
size bytes_size bytes.() int
size size_list (list<A>) int
size list_size list<A>.() int
size size_map (map<A, B>) int
size map_size map<A,B>.() int
size size_string (string) int
size string_size string.() int
dyn to_dyn (A) dyn
type type (A) type<A>
matches matches (string, string) bool
matches matches_string string.(string) bool
contains contains_string string.(string) bool
startsWith starts_with_string string.(string) bool
endsWith ends_with_string string.(string) bool
"""


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "to_dyn": lambda value: value,
    "type": _type,
    "matches": _matches,
    "matches_string": _matches,
    "contains_string": lambda text, part: part in text,
    "starts_with_string": lambda text, part: text.startswith(part),
    "ends_with_string": lambda text, part: text.endswith(part),
}
for _name in ("bytes", "list", "map", "string"):
    _FUNCTIONS[f"size_{_name}"] = _FUNCTIONS[f"{_name}_size"] = size_of
for _name, *_sources in _CONVERSIONS:
    for _source in _sources:
        _overload = f"{_ID.get(_source, _source)}_to_{_ID.get(_name, _name)}"
        _LINES += f"{_name} {_overload} ({_source}) {_name}\n"
        _FUNCTIONS[_overload] = _CONVERT[_name]
for _name in _GETTERS:
    _LINES += f"{_name} timestamp_to_{_name} timestamp.() int\n"
    _LINES += f"{_name} timestamp_to_{_name}_with_tz timestamp.(string) int\n"
    _FUNCTIONS[f"timestamp_to_{_name}"] = _FUNCTIONS[f"timestamp_to_{_name}_with_tz"] = _getter(_name)
for _name in _OF_DURATION:
    _LINES += f"{_name} duration_to_{_name} duration.() int\n"
    _FUNCTIONS[f"duration_to_{_name}"] = _duration_getter(_name)

FUNCTIONS: Final = declared(_LINES, _FUNCTIONS)
