"""Time as the API writes it. What time it is says `navarch.world`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache


def format_time(moment: datetime) -> str:
    """`metav1.Time`: RFC 3339 in UTC, whole seconds."""
    # Every write asks, and of a busy second once would do: `isoformat` costs twenty times what remembering does.
    return _text(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)


@lru_cache(256)
def _text(year: int, month: int, day: int, hour: int, minute: int, second: int) -> str:
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}Z"


def format_micro_time(moment: datetime) -> str:
    """`metav1.MicroTime`: RFC 3339 in UTC with six digits of fraction."""
    return moment.isoformat("T", "microseconds")[:26] + "Z"


def parse_time(text: str) -> datetime:
    """Parse RFC 3339 (with or without fraction and offset).  Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)


def human_duration(age: timedelta) -> str:
    """A duration as kubectl's AGE column shows it: `45s`, `5m10s`, `3h20m`, `2d4h`, `15d`, `2y30d`."""
    seconds = int(age.total_seconds())
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        rest = seconds % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = seconds // 3600
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        rest = hours % 24
        return f"{hours // 24}d{rest}h" if rest else f"{hours // 24}d"
    days = hours // 24
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        rest = days % 365
        return f"{days // 365}y{rest}d" if rest else f"{days // 365}y"
    return f"{days // 365}y"
