"""Durations as Go writes and reads them (`1h15m30.918s`), in nanoseconds: the form of those in configuration files."""

from __future__ import annotations

import re
from typing import Final

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_MOST: Final = 1 << 63


def parse_ns(text: str) -> int:
    """Raises ValueError with Go's words."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    total, at = 0, 0
    while at < len(body):
        match = _PART.match(body, at)
        if match is None or not (match[1] or match[2]):
            raise ValueError(_why(text, body, at))
        total += int(match[1] or "0") * _UNITS[match[3]]
        if match[2]:
            total += int(match[2]) * _UNITS[match[3]] // 10 ** len(match[2])
        at = match.end()
    if at == 0 or total >= _MOST:
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if text[:1] == "-" else total


def _why(text: str, body: str, at: int) -> str:
    number = re.match(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+", body[at:])
    if number is None:
        return f'time: invalid duration "{text}"'
    unit = re.match(r"[^0-9.]*", body[at + number.end() :])
    if unit is None or not unit[0]:
        return f'time: missing unit in duration "{text}"'
    return f'time: unknown unit "{unit[0]}" in duration "{text}"'


def parse_s(text: str) -> float:
    """In seconds.  Raises ValueError."""
    return parse_ns(text) / 1e9


def text_of(nanoseconds: int) -> str:
    """`2m0s`, `100ms`, `1.5s`, `0s`."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if not rest:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if rest < size * 1000 and rest < 1_000_000_000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, rest = divmod(rest, _UNITS["m"])
    seconds = f"{_decimal(rest, _UNITS['s'])}s"
    if not minutes:
        return sign + seconds
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{f'{hours}h' if hours else ''}{minutes}m{seconds}"


def _decimal(amount: int, size: int) -> str:
    whole, part = divmod(amount, size)
    if not part:
        return str(whole)
    digits = len(str(size)) - 1
    return f"{whole}.{part:0{digits}d}".rstrip("0")
