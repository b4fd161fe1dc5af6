"""Cron schedules: whether a schedule can be read, and what is wrong with it in the words of Kubernetes' cron library.

The rules are those of the five-field form (minute, hour, day of month, month, day of week) with `*`, ranges, steps and
lists, names of months and days, `@every DURATION`, and the descriptors `@hourly`, `@daily` and so on.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_MONTHS: Final = "jan feb mar apr may jun jul aug sep oct nov dec"
_DAYS: Final = "sun mon tue wed thu fri sat"
_DESCRIPTORS: Final = frozenset(
    ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"),
)
_match_duration: Final = re.compile(
    r"[-+]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))*"
)


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


def schedule_problem(schedule: str) -> str:
    """What is wrong with a schedule; empty if nothing is."""
    if not schedule:
        return "empty spec string"
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
        if _match_duration.fullmatch(duration):
            return ""
        return f'failed to parse duration {schedule}: time: invalid duration "{duration}"'
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
        numbers = [_number(bound, field) for bound in bounds]
        for bound, number in zip(bounds, numbers, strict=True):
            if number is None:
                return f'failed to parse int from {bound}: strconv.Atoi: parsing "{bound}": invalid syntax'
            if number < 0:
                return f"negative number ({number}) not allowed: {bound}"
        start = numbers[0] or 0
        end = (numbers[-1] or 0) if len(bounds) == 2 or not steps else field.high
    if start < field.low:
        return f"beginning of range ({start}) below minimum ({field.low}): {part}"
    if end > field.high:
        return f"end of range ({end}) above maximum ({field.high}): {part}"
    if start > end:
        return f"beginning of range ({start}) beyond end of range ({end}): {part}"
    return _step_problem(part, steps[0]) if steps else ""


def _step_problem(part: str, step: str) -> str:
    if not step.isdigit():
        return f'failed to parse int from {step}: strconv.Atoi: parsing "{step}": invalid syntax'
    return f"step of range should be a positive number: {part}" if int(step) == 0 else ""


def _number(text: str, field: _Field) -> int | None:
    named = field.names.get(text.lower())
    if named is not None:
        return named
    try:
        return int(text)
    except ValueError:
        return None
