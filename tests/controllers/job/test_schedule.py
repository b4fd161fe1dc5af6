"""Cron schedules as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from navarch.controllers.job.schedule import parse

_START = datetime(2026, 11, 23, 20, 29, 30, tzinfo=UTC)  # a Monday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", datetime(2026, 11, 23, 20, 30, tzinfo=UTC)),
        ("*/15 * * * *", datetime(2026, 11, 23, 20, 30, tzinfo=UTC)),
        ("@hourly", datetime(2026, 11, 23, 21, 0, tzinfo=UTC)),
        ("0 3 * * sun", datetime(2026, 11, 29, 3, 0, tzinfo=UTC)),
        ("0 3 * * 7", datetime(2026, 11, 29, 3, 0, tzinfo=UTC)),
        ("5 0 1 jan,feb *", datetime(2027, 1, 1, 0, 5, tzinfo=UTC)),
        ("0 0 13 * 5", datetime(2026, 11, 27, 0, 0, tzinfo=UTC)),
        ("0 12-14/2 * * *", datetime(2026, 11, 24, 12, 0, tzinfo=UTC)),
        ("@every 90s", datetime(2026, 11, 23, 20, 31, 0, tzinfo=UTC)),
        ("0 0 29 2 *", datetime(2028, 2, 29, 0, 0, tzinfo=UTC)),
    ],
)
def test_next_time(text: str, expected: datetime) -> None:
    assert parse(text).next_after(_START) == expected


def test_next_time_in_a_time_zone() -> None:
    assert parse("0 9 * * *", "Europe/Berlin").next_after(_START) == datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected exactly 5 fields, found 0"),
        ("* * * *", "expected exactly 5 fields, found 4"),
        ("60 * * * *", "value out of range"),
        ("a * * * *", "invalid syntax"),
        ("*/0 * * * *", "step of range should be a positive number"),
        ("5-1 * * * *", "value out of range"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        parse(text)
