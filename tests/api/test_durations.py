"""Durations as Go writes and reads them."""

from __future__ import annotations

import re

import pytest

from navarch.api.durations import parse_ns, parse_s, text_of


@pytest.mark.parametrize(
    "text", ["0s", "1ns", "1.5µs", "100ms", "1.5s", "30s", "2m0s", "1h0m0s", "4h0m0.25s", "-1m30s"]
)
def test_what_is_read_is_written_the_same(text: str) -> None:
    assert text_of(parse_ns(text)) == text


def test_other_spellings_mean_the_same() -> None:
    assert parse_s("1h") == parse_s("60m") == 3600
    assert parse_s("1.5m") == 90
    assert parse_ns("0") == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'time: invalid duration ""'),
        ("10", 'time: missing unit in duration "10"'),
        ("10x", 'time: unknown unit "x" in duration "10x"'),
        ("s", 'time: invalid duration "s"'),
    ],
)
def test_what_is_no_duration_is_refused_in_gos_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        parse_ns(text)
