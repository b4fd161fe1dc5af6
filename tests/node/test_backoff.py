"""Back-off per key."""

from __future__ import annotations

from datetime import timedelta

import pytest

from navarch.node.backoff import Backoff, go_duration
from tests.node.objects import NOW


def test_backoff_doubles_and_starts_over() -> None:
    backoff = Backoff()
    now = NOW
    delays = []
    for _ in range(7):
        delays.append(backoff.remaining("k", now, now))
        backoff.attempted("k", now, now)
        now += timedelta(minutes=1)
    assert [int(delay.total_seconds()) for delay in delays] == [0, 10, 20, 40, 80, 160, 300]
    assert backoff.remaining("k", now + timedelta(hours=1), now + timedelta(hours=1)) == timedelta(0)


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3661, "1h1m1s")])
def test_durations_as_go_prints_them(seconds: int, text: str) -> None:
    assert go_duration(timedelta(seconds=seconds)) == text
