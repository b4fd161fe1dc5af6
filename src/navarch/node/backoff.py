"""Back-off per key, as the kubelet counts it for crashing containers and failing pulls: the first retry is immediate,
each further one waits twice as long as the one before, and a key that stayed well for long starts over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

INITIAL: Final = timedelta(seconds=10)
MAXIMUM: Final = timedelta(minutes=5)


class _Entry(NamedTuple):
    delay: timedelta
    updated: datetime


class Backoff:
    """Delays by key. Ten minutes (twice the maximum) without failure reset a key."""

    def __init__(self, initial: timedelta = INITIAL, maximum: timedelta = MAXIMUM) -> None:
        self._initial = min(initial, maximum)
        self._maximum = maximum
        self._entries: dict[str, _Entry] = {}

    def remaining(self, key: str, failed_at: datetime, now: datetime) -> timedelta:
        """How long the next attempt must still wait; zero or less where it need not."""
        entry = self._entries.get(key)
        if entry is None or failed_at - entry.updated > 2 * self._maximum:
            return timedelta(0)
        return failed_at + entry.delay - now

    def delay(self, key: str) -> timedelta:
        """The delay in force, for messages (`back-off 20s restarting …`)."""
        entry = self._entries.get(key)
        return entry.delay if entry else timedelta(0)

    def attempted(self, key: str, failed_at: datetime, now: datetime) -> None:
        """An attempt is made now, after a failure at `failed_at`: the next waits longer."""
        entry = self._entries.get(key)
        if entry is None or failed_at - entry.updated > 2 * self._maximum:
            delay = self._initial
        else:
            delay = min(entry.delay * 2, self._maximum)
        self._entries[key] = _Entry(delay, now)

    def forget(self, prefix: str) -> None:
        """Drop every key that begins with `prefix`."""
        for key in [key for key in self._entries if key.startswith(prefix)]:
            del self._entries[key]


def go_duration(delay: timedelta) -> str:
    """`10s`, `1m20s`, `5m0s`: as Go prints durations, and so as messages carry them."""
    seconds = int(delay.total_seconds())
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s"
