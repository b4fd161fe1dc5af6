"""Cron schedules: five fields, ranges, steps, names, `@hourly` and the like, `@every 1h30m`; in a time zone. Pure.

As cron has it, when both day fields are restricted a day that meets either will do.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from navarch.kinds.batch.cron import duration_s
from navarch.numbers import ascii_integer
from navarch.records import frozen

_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_HORIZON_DAYS = 366 * 5


@frozen
class Schedule:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    zone: ZoneInfo
    every_s: float = 0.0

    def next_after(self, moment: datetime) -> datetime | None:
        """The first time later than `moment`; None where there is none within five years."""
        if self.every_s:
            return moment.replace(microsecond=0) + timedelta(seconds=self.every_s)
        local = moment.astimezone(self.zone).replace(second=0, microsecond=0, tzinfo=None)
        day = local.date()
        for _ in range(_HORIZON_DAYS):
            if day.month in self.months and self._is_day(day.day, (day.weekday() + 1) % 7):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        naive = datetime(day.year, day.month, day.day, hour, minute)
                        candidate = naive.replace(tzinfo=self.zone).astimezone(UTC)
                        # A local time that the change to summer time skips does not exist on that day.
                        exists = candidate.astimezone(self.zone).replace(tzinfo=None) == naive
                        if candidate > moment and exists:
                            return candidate
            day += timedelta(days=1)
        return None

    def _is_day(self, day: int, weekday: int) -> bool:
        by_day, by_weekday = day in self.days, weekday in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday


def parse(text: str, zone: str | None = None) -> Schedule:
    """Raises ValueError."""
    text = text.strip()
    for prefix in ("TZ=", "CRON_TZ="):
        if text.startswith(prefix):
            zone, _, text = text[len(prefix) :].partition(" ")
    tz = ZoneInfo(zone) if zone else ZoneInfo("UTC")
    if text.startswith("@every "):
        seconds = duration_s(text.removeprefix("@every "))
        empty: frozenset[int] = frozenset()
        return Schedule(empty, empty, empty, empty, empty, True, True, tz, max(seconds, 1.0))
    fields = _MACROS.get(text, text).split()
    if len(fields) != 5:
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: {text}")
    names: tuple[dict[str, int], ...] = ({}, {}, {}, _MONTHS, _DAYS)
    sets = [_field(field, *bounds, known) for field, bounds, known in zip(fields, _BOUNDS, names, strict=True)]
    weekdays = frozenset(value % 7 for value in sets[4])
    return Schedule(
        sets[0], sets[1], sets[2], sets[3], weekdays,
        fields[2][0] in "*?", fields[4][0] in "*?", tz,
    )  # fmt: skip


def _field(text: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = ascii_integer(step_text) if slash else 1
        if step < 1:
            raise ValueError(f"step of range should be a positive number: {text}")
        if span in ("*", "?"):
            first, last = low, high if high != 7 else 6
        else:
            start, dash, end = span.partition("-")
            first = _number(start, names)
            last = _number(end, names) if dash else (high if slash else first)
        if first < low or last > high or first > last:
            raise ValueError(f"value out of range [{low}, {high}]: {part}")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, names: dict[str, int]) -> int:
    return names[text.lower()] if text.lower() in names else ascii_integer(text)
