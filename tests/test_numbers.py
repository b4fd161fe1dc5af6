"""Numbers in text are what Go reads as numbers, wherever a client's text is read as one."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.schema_scalars import ScalarError, canonical_time
from navarch.controllers.job.schedule import parse
from navarch.controllers.pods import int_or_percent
from navarch.kinds.batch.cron import schedule_problem
from navarch.kinds.core.node_match import tolerates
from navarch.numbers import ascii_integer, integer_or, is_digits, saturated
from tests.kinds.writing import refused

LONG = "9" * 5000
ARABIC = "٣"


@pytest.mark.parametrize(
    ("text", "bits", "number"),
    [("0", 64, 0), ("+7", 64, 7), ("-7", 64, -7), ("0" * 5000 + "7", 64, 7), ("9223372036854775807", 64, 2**63 - 1),
     ("-9223372036854775808", 64, -(2**63)), ("-2147483648", 32, -(2**31))],
)  # fmt: skip
def test_a_number_is_read(text: str, bits: int, number: int) -> None:
    assert ascii_integer(text, bits) == number


@pytest.mark.parametrize(
    ("text", "bits", "why"),
    [("", 64, "syntax"), ("1_0", 64, "syntax"), (ARABIC, 64, "syntax"), ("²", 64, "syntax"), (" 1", 64, "syntax"),
     ("1\n", 64, "syntax"), ("--1", 64, "syntax"), (LONG, 64, "range"), (str(2**63), 64, "range"),
     (str(2**31), 32, "range"), ("-" + LONG, 64, "range")],
)  # fmt: skip
def test_what_is_none_is_refused_in_gos_words(text: str, bits: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ascii_integer(text, bits)
    assert integer_or(text, None, bits) is None


def test_digits_are_ascii_and_large_numbers_are_the_largest() -> None:
    assert is_digits("07")
    assert not any(map(is_digits, ("", ARABIC, "²")))
    assert saturated(LONG, 32) == 2**31 - 1


@pytest.mark.parametrize("schedule", [f"*/{LONG} * * * *", f"{LONG} * * * *", f"1-{LONG} * * * *",
                                      f"{ARABIC} * * * *", f"*/{ARABIC} * * * *", "1_0 * * * *",
                                      f"@every 1{'0' * 5000}h", "@every 2562048h", f"@every {ARABIC}h"])  # fmt: skip
def test_a_schedule_of_other_numbers_is_refused(schedule: str) -> None:
    assert schedule_problem(schedule)


@pytest.mark.parametrize(
    ("schedule", "every_s"),
    [("@every 1h30m", 5400), ("@every 1.5h", 5400), ("@every .5h", 1800), ("@every 90000ms", 90), ("@every -1h", 1),
     ("@every 1ns", 1), ("@every 2562047h", 2562047 * 3600)],
)  # fmt: skip
def test_what_the_server_takes_the_controller_can_read(schedule: str, every_s: float) -> None:
    assert schedule_problem(schedule) == ""
    assert parse(schedule).every_s == every_s


def test_a_budget_of_too_many_percent_is_refused() -> None:
    (problem,) = refused("policy", "PodDisruptionBudget", {"spec": {"minAvailable": f"{LONG}%"}})
    assert "must not be greater than 100%" in problem


def test_a_surge_of_any_size_can_be_counted() -> None:
    assert int_or_percent(f"{LONG}%", 3, round_up=True) > 2**31


@pytest.mark.parametrize("value", ["²", "--5", ARABIC, LONG])
def test_a_toleration_compares_numbers_alone(value: str) -> None:
    toleration: dict[str, Any] = {"key": "k", "operator": "Gt", "value": value, "effect": "NoSchedule"}
    assert not tolerates(toleration, {"key": "k", "value": "7", "effect": "NoSchedule"})


def test_a_time_has_ascii_digits() -> None:
    with pytest.raises(ScalarError, match="cannot parse"):
        canonical_time("٢020-01-01T00:00:00Z")
