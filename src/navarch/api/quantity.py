"""Quantities: exact numbers with Kubernetes' suffixes (`100m`, `1.5Gi`, `2e3`), and their one canonical spelling.

In: the text or JSON number of a client.  Out: exact `Fraction`s, integers rounded up as Kubernetes rounds them, or the
canonical text that the API server stores.  Invariant: `canonical(canonical(q)) == canonical(q)` and both mean the same
number, up to the nano precision to which Kubernetes rounds (away from zero).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from navarch.api.memo import memo

_FORMAT: Final = re.compile(r"([+-]?[0-9]*(?:\.[0-9]*)?)([eEinumkKMGTP]*[-+]?[0-9]*)")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_EXPONENT: Final = re.compile("[eE]([+-]?[0-9]+)")
_LARGEST: Final = 2**63 - 1
_NANO: Final = 10**9

WRONG_FORMAT: Final = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
WRONG_NUMBER: Final = "unable to parse numeric part of quantity"
WRONG_SUFFIX: Final = "unable to parse quantity's suffix"

Quantity = str | int | float


def _split(text: str) -> tuple[Fraction, str, int, str]:
    """The number, its format (`binary`, `decimal`, `exponent`), the exponent, and the suffix."""
    match = _FORMAT.fullmatch(text)
    if match is None or not text:
        raise ValueError(WRONG_FORMAT)
    number, suffix = match.groups()
    if _NUMBER.fullmatch(number) is None:
        raise ValueError(WRONG_NUMBER)
    if suffix in _DECIMAL:
        exponent = _DECIMAL[suffix]
        return Fraction(number) * Fraction(10) ** exponent, "decimal", exponent, suffix
    if suffix in _BINARY:
        power = _BINARY.index(suffix)
        return Fraction(number) * 1024**power, "binary", power, suffix
    scientific = _EXPONENT.fullmatch(suffix)
    if scientific is None or abs(int(scientific.group(1))) > 1000:
        raise ValueError(WRONG_SUFFIX)
    exponent = int(scientific.group(1))
    return Fraction(number) * Fraction(10) ** exponent, "exponent", exponent, suffix


def _text(quantity: Quantity) -> str:
    if isinstance(quantity, str):
        return quantity
    if isinstance(quantity, bool):
        raise ValueError(WRONG_FORMAT)
    return repr(quantity)


@memo(8192)
def _parse_text(text: str) -> Fraction:
    number, _, _, _ = _split(text)
    if (number * _NANO).denominator != 1:
        number = Fraction(_away_from_zero(number * _NANO), _NANO)
    return max(-Fraction(_LARGEST), min(Fraction(_LARGEST), number))


def parse(quantity: Quantity) -> Fraction:
    """The exact number, rounded away from zero to nano precision and capped at ±(2⁶³-1).  Raises ValueError."""
    return _parse_text(_text(quantity))


def _away_from_zero(number: Fraction) -> int:
    return -(-number.numerator // number.denominator) if number >= 0 else number.numerator // number.denominator


def _ceil(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)


@memo(8192)
def _milli_text(text: str) -> int:
    return _ceil(_parse_text(text) * 1000)


@memo(8192)
def _value_text(text: str) -> int:
    return _ceil(_parse_text(text))


def milli(quantity: Quantity | Fraction) -> int:
    """In thousandths, rounded up: milli-CPUs.  Raises ValueError."""
    return _ceil(quantity * 1000) if isinstance(quantity, Fraction) else _milli_text(_text(quantity))


def value(quantity: Quantity | Fraction) -> int:
    """In whole units, rounded up: bytes, counts.  Raises ValueError."""
    return _ceil(quantity) if isinstance(quantity, Fraction) else _value_text(_text(quantity))


@memo(8192)
def _canonical_text(text: str) -> str:
    number = _parse_text(text)
    return _spell(number, _split(text)[1])


def canonical(quantity: Quantity) -> str:
    """The spelling that Kubernetes stores: `1000m` → `1`, `1024Ki` → `1Mi`, `0.5` → `500m`.  Raises ValueError."""
    return _canonical_text(_text(quantity))


@memo(8192)
def _resource_text(text: str) -> str:
    number = _parse_text(text)
    if (number * 1000).denominator != 1:
        number = Fraction(_away_from_zero(number * 1000), 1000)
    return _spell(number, _split(text)[1])


def canonical_resource(quantity: Quantity) -> str:
    """The same for an amount of a resource, which is rounded away from zero to thousandths: `0.1m` → `1m`.  Raises
    ValueError."""
    return _resource_text(_text(quantity))


def _spell(number: Fraction, form: str) -> str:
    """`number` with the largest suffix of its format that leaves an integer; binary suffixes only from 1Ki on."""
    if number == 0:
        return "0"
    if form == "binary" and abs(number) >= 1024 and number.denominator == 1:
        whole, power = number.numerator, 0
        while whole % 1024 == 0 and power < 6:
            whole //= 1024
            power += 1
        return f"{whole}{_BINARY[power]}"
    nanos = int(number * _NANO)
    exponent = -9
    while nanos % 1000 == 0 and exponent < 18:
        nanos //= 1000
        exponent += 3
    if form == "exponent":
        return f"{nanos}e{exponent}" if exponent else str(nanos)
    return f"{nanos}{_DECIMAL_SUFFIX[exponent]}"


def form_of(quantity: Quantity) -> str:
    """How the quantity is written: `binary`, `decimal` or `exponent`.  Raises ValueError."""
    return _split(_text(quantity))[1]


def render(number: Fraction | int, form: str = "decimal") -> str:
    """A number in canonical spelling of a format (`binary` for bytes, `decimal` for the rest)."""
    exact = Fraction(number)
    if (exact * _NANO).denominator != 1:
        exact = Fraction(_away_from_zero(exact * _NANO), _NANO)
    return _spell(exact, form)


def render_milli(milli_units: int) -> str:
    """Thousandths as a decimal quantity: 1500 → `1500m`, 2000 → `2`."""
    return render(Fraction(milli_units, 1000))


def add(left: Quantity, right: Quantity) -> str:
    """The sum in canonical spelling, in the format of `left` unless that is zero.  Raises ValueError."""
    total = parse(left)
    form = form_of(left if total else right)
    return render(total + parse(right), form)


def sub(left: Quantity, right: Quantity) -> str:
    """The difference in canonical spelling, in the format of `left` unless that is zero.  Raises ValueError."""
    whole = parse(left)
    form = form_of(left if whole else right)
    return render(whole - parse(right), form)


def compare(left: Quantity, right: Quantity) -> int:
    """-1, 0 or 1 as `left` is less than, equal to or greater than `right`.  Raises ValueError."""
    first, second = parse(left), parse(right)
    return (first > second) - (first < second)
