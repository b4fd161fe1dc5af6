"""Durations and timestamps from text, as CEL reads them, with Go's words for what is wrong with one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from navarch.api.cel.errors import CelError
from navarch.api.cel.values import EPOCH, INT_LIMIT, NANO, Duration, Timestamp
from navarch.api.go_text import quoted

_UNITS: Final = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": NANO, "m": 60 * NANO, "h": 3600 * NANO
}  # fmt: skip
_DURATION: Final = re.compile(r"(?:([0-9]*)(?:\.([0-9]*))?)(ns|us|µs|μs|ms|s|m|h)")
_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]+))?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def parse_duration(text: str) -> Duration:
    """Raises CelError."""
    wrong = CelError(f"time: invalid duration {quoted(text)}")
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return Duration(0)
    nanos, at = 0, 0
    while at < len(body):
        match = _DURATION.match(body, at)
        if match is None or not (match.group(1) or match.group(2)):
            raise wrong
        whole, fraction, unit = match.groups()
        nanos += int(whole or "0") * _UNITS[unit]
        if fraction:
            nanos += int(fraction) * _UNITS[unit] // 10 ** len(fraction)
        at = match.end()
    if at == 0 or nanos >= INT_LIMIT:
        raise wrong
    return Duration(-nanos if text[:1] == "-" else nanos)


def parse_timestamp(text: str) -> Timestamp:
    """RFC 3339.  Raises CelError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise CelError(_time_error(text))
    *parts, fraction, zone = match.groups()
    try:
        moment = datetime(*(int(each) for each in parts), tzinfo=UTC)  # type: ignore[arg-type, misc]
    except ValueError:
        raise CelError(f"parsing time {quoted(text)}: {_out_of_range(parts)} out of range") from None
    seconds = (moment - EPOCH) // timedelta(seconds=1)
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        seconds -= offset if zone[0] == "+" else -offset
    return Timestamp(seconds * NANO + int((fraction or "0")[:9].ljust(9, "0")))


def _out_of_range(parts: list[str]) -> str:
    month, day, hour, minute = (int(each) for each in parts[1:5])
    if not 1 <= month <= 12:
        return "month"
    if not 1 <= day <= 31:
        return "day"
    return "hour" if hour > 23 else "minute" if minute > 59 else "second" if int(parts[5]) > 59 else "day"


_PIECES: Final = (("2006", r"[0-9]{4}"), ("-", "-"), ("01", "[0-9]{2}"), ("-", "-"), ("02", "[0-9]{2}"), ("T", "T"),
                  ("15", "[0-9]{2}"), (":", ":"), ("04", "[0-9]{2}"), (":", ":"), ("05", "[0-9]{2}"))  # fmt: skip


def _time_error(text: str) -> str:
    rest, start = text, f'parsing time {quoted(text)} as "2006-01-02T15:04:05Z07:00": '
    for layout, pattern in _PIECES:
        match = re.match(pattern, rest)
        if match is None:
            return f"{start}cannot parse {quoted(rest)} as {quoted(layout)}"
        rest = rest[match.end() :]
    fraction = re.match(r"[.,][0-9]+", rest)
    rest = rest[fraction.end() :] if fraction else rest
    zone = re.match(r"Z|[+-][0-9]{2}:[0-9]{2}", rest)
    if zone is None:
        return f"{start}cannot parse {quoted(rest)} as {quoted('Z07:00')}"
    return f"parsing time {quoted(text)}: extra text: {quoted(rest[zone.end() :])}"
