"""Quantities: exact, canonical, rounded up."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import quantity

SUFFIXES = ["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "E-2", "e+1"]
QUANTITIES = st.builds(
    lambda sign, number, suffix: f"{sign}{number}{suffix}",
    st.sampled_from(["", "-", "+"]),
    st.integers(0, 10**6).map(str) | st.decimals(0, 10**4, places=3, allow_nan=False).map(lambda d: f"{d:f}"),
    st.sampled_from(SUFFIXES),
)


@pytest.mark.parametrize(
    ("given_as", "stored_as"),
    [
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("5.", "5"),
        (1, "1"),
        (0.1, "100m"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Mi", "512Ki"),
        ("0.5Ki", "512"),
        ("0.9765625Ki", "1k"),
        ("1.0005Ki", "1024512m"),
        ("1025", "1025"),
        ("100Mi", "100Mi"),
        ("1000Mi", "1000Mi"),
        ("1000000", "1M"),
        ("1500000", "1500k"),
        ("1e3", "1e3"),
        ("12345e-3", "12345e-3"),
        ("1E3", "1e3"),
        ("0", "0"),
        ("0Gi", "0"),
        ("-1000m", "-1"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1E", "1E"),
    ],
)
def test_the_canonical_spelling_is_that_of_kubernetes(given_as: str | int | float, stored_as: str) -> None:
    assert quantity.canonical(given_as) == stored_as


@pytest.mark.parametrize(
    "text", ["", "abc", "1.2.3", "1 Gi", "--1", "1gi", "1KI", ".", "1e", "Gi", "1ee3", "1/2", "１"]
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantit"):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("text", "milli", "value"), [("1m", 1, 1), ("1500m", 1500, 2), ("100u", 1, 1), ("-1500m", -1500, -1)]
)
def test_milli_and_value_round_up(text: str, milli: int, value: int) -> None:
    assert (quantity.milli(text), quantity.value(text)) == (milli, value)


def test_a_sum_keeps_the_format_of_its_first_part() -> None:
    assert quantity.add("1Gi", "512Mi") == "1536Mi"
    assert quantity.add("0", "1Ki") == "1Ki"
    assert quantity.sub("1", "250m") == "750m"
    assert quantity.sub("1Gi", "1Gi") == "0"


@given(QUANTITIES)
def test_canonical_means_the_same_and_is_stable(text: str) -> None:
    spelt = quantity.canonical(text)
    assert quantity.parse(spelt) == quantity.parse(text)
    assert quantity.canonical(spelt) == spelt


@given(QUANTITIES, QUANTITIES)
def test_sums_and_order_are_exact(left: str, right: str) -> None:
    total = quantity.add(left, right)
    assert quantity.parse(total) == quantity.parse(left) + quantity.parse(right)
    assert quantity.compare(quantity.sub(total, right), left) == 0
    exact = Fraction(quantity.parse(left)) - Fraction(quantity.parse(right))
    assert quantity.compare(left, right) == (exact > 0) - (exact < 0)


@pytest.mark.parametrize(
    ("given", "stored"),
    [("0.1m", "1m"), ("100u", "1m"), ("1n", "1m"), ("1500u", "2m"), ("1.5", "1500m"), ("1Gi", "1Gi")],
)
def test_the_amount_of_a_resource_has_no_parts_below_thousandths(given: str, stored: str) -> None:
    assert quantity.canonical_resource(given) == stored
    assert quantity.canonical_resource(stored) == stored
