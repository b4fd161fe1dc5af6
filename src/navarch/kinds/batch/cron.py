"""Cron schedules: whether a schedule can be read, and what is wrong with it in the words of Kubernetes' cron library.

The rules are those of the five-field form (minute, hour, day of month, month, day of week) with `*`, ranges, steps and
lists, names of months and days, `@every DURATION`, and the descriptors `@hourly`, `@daily` and so on.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from navarch.api.memo import memo
from navarch.numbers import ascii_integer, integer_or

_MONTHS: Final = "jan feb mar apr may jun jul aug sep oct nov dec"
_DAYS: Final = "sun mon tue wed thu fri sat"
_DESCRIPTORS: Final = frozenset(
    ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"),
)
_PART: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)"
_match_duration: Final = re.compile(f"[-+]?(?:{_PART})+").fullmatch
_DURATION_PARTS: Final = re.compile(r"([0-9]*)\.?([0-9]*)(ns|us|µs|μs|ms|s|m|h)")
_UNITS_NS: Final = {
    "ns": 1, "us": 1000, "µs": 1000, "μs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_LARGEST_NS: Final = 2**63 - 1


class _Field(NamedTuple):
    low: int
    high: int
    names: dict[str, int]


_FIELDS: Final = (
    _Field(0, 59, {}),
    _Field(0, 23, {}),
    _Field(1, 31, {}),
    _Field(1, 12, {name: number for number, name in enumerate(_MONTHS.split(), 1)}),
    _Field(0, 6, {name: number for number, name in enumerate(_DAYS.split())}),
)


@memo(64)
def zone_problem(name: str) -> str:
    """Why no zone has the name; empty if one has. `Local`, spelt so, is the machine's."""
    if name == "Local":
        return ""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return f"unknown time zone {name}"
    return ""


def schedule_problem(schedule: str) -> str:
    """What is wrong with a schedule; empty if nothing is."""
    if not schedule:
        return "empty spec string"
    if schedule.startswith(("TZ=", "CRON_TZ=")):
        zone, _, schedule = schedule.partition(" ")
        name = zone.partition("=")[2]
        if problem := zone_problem(name):
            return f"provided bad location {name}: {problem}"
        schedule = schedule.strip()
    if schedule.startswith("@"):
        return _descriptor_problem(schedule)
    words = schedule.split()
    if len(words) != len(_FIELDS):
        return f"expected exactly {len(_FIELDS)} fields, found {len(words)}: [{' '.join(words)}]"
    for word, field in zip(words, _FIELDS, strict=True):
        for part in word.split(","):
            if part and (problem := _part_problem(part, field)):
                return problem
    return ""


def _descriptor_problem(schedule: str) -> str:
    if schedule in _DESCRIPTORS:
        return ""
    if schedule.startswith("@every "):
        duration = schedule.removeprefix("@every ")
        try:
            duration_s(duration)
        except ValueError as error:
            return f"failed to parse duration {schedule}: {error}"
        return ""
    return f"unrecognized descriptor: {schedule}"


def _part_problem(part: str, field: _Field) -> str:
    """One `start[-end][/step]`."""
    span, *steps = part.split("/")
    bounds = span.split("-")
    if len(steps) > 1:
        return f"too many slashes: {part}"
    if bounds[0] in ("*", "?"):
        start, end = field.low, field.high
    else:
        if len(bounds) > 2:
            return f"too many hyphens: {part}"
        numbers: list[int] = []
        for bound in bounds:
            number = _number(bound, field)
            if isinstance(number, str):
                return _unreadable(bound, number)
            if number < 0:
                return f"negative number ({number}) not allowed: {bound}"
            numbers.append(number)
        start = numbers[0]
        end = numbers[-1] if len(bounds) == 2 or not steps else field.high
    if start < field.low:
        return f"beginning of range ({start}) below minimum ({field.low}): {part}"
    if end > field.high:
        return f"end of range ({end}) above maximum ({field.high}): {part}"
    if start > end:
        return f"beginning of range ({start}) beyond end of range ({end}): {part}"
    return _step_problem(part, steps[0]) if steps else ""


def _step_problem(part: str, step: str) -> str:
    try:
        number = ascii_integer(step)
    except ValueError as error:
        return _unreadable(step, str(error))
    if number < 0:
        return f"negative number ({number}) not allowed: {step}"
    return f"step of range should be a positive number: {part}" if number == 0 else ""


def _number(text: str, field: _Field) -> int | str:
    """The number, or what is wrong with it."""
    named = field.names.get(text.lower())
    if named is not None:
        return named
    try:
        return ascii_integer(text)
    except ValueError as error:
        return str(error)


def _unreadable(text: str, why: str) -> str:
    return f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": {why}'


def duration_s(text: str) -> float:
    """Go's `time.ParseDuration`, in seconds.  Raises ValueError."""
    if not _match_duration(text):
        raise ValueError(f'time: invalid duration "{text}"')
    total_ns = 0
    for whole, fraction, unit in _DURATION_PARTS.findall(text):
        # Digits below a nanosecond count nothing, whatever the unit.
        scaled = integer_or(whole or "0", _LARGEST_NS + 1) * _UNITS_NS[unit]
        total_ns += scaled + int((fraction[:15] or "0").ljust(15, "0")) * _UNITS_NS[unit] // 10**15
    if total_ns > _LARGEST_NS:
        raise ValueError(f'time: invalid duration "{text}"')
    return (-total_ns if text[0] == "-" else total_ns) / 1e9
