"""Completion indexes in the compact form that Jobs show."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from navarch.controllers.job.indexes import first_free, parse, show


@given(st.sets(st.integers(0, 200)))
def test_what_is_shown_reads_back(numbers: set[int]) -> None:
    assert parse(show(numbers)) == numbers


def test_runs_are_shortened() -> None:
    assert show({0, 1, 2, 5, 7, 8}) == "0-2,5,7,8"


def test_the_lowest_free_indexes_come_first() -> None:
    assert first_free(2, 5, {0, 2}) == [1, 3]
