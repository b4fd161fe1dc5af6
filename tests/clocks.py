"""Clocks that tests move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from navarch.world import SystemClock


class SetClock:
    """Stands still but for what passes by `pass_s`."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def pass_s(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class SteppedClock:
    """The machine's clock, put forward by `ahead`."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return SystemClock().now() + self.ahead


class HalfPastClock:
    """Stands in the middle of the minute in which it was made, put forward by `ahead`: no minute begins by itself."""

    def __init__(self) -> None:
        self._made = SystemClock().now().replace(second=30, microsecond=0)
        self.ahead = timedelta()

    def now(self) -> datetime:
        return self._made + self.ahead
