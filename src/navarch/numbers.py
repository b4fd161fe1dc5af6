"""Whole numbers that somebody wrote as text, read as Go's `strconv` reads them: ASCII digits, within so many bits.

Python's own `int()` and `str.isdigit()` take digits of every script and underscores, and refuse to read a text of
thousands of digits with an error that looks like any other; so text goes through here (`tools/check_numbers.py`).
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

_T = TypeVar("_T")

INVALID: Final = "invalid syntax"
OUT_OF_RANGE: Final = "value out of range"
_matches_integer: Final = re.compile(r"[+-]?[0-9]+").fullmatch


def ascii_integer(text: str, bits: int = 64) -> int:
    """A signed number of `bits`, with or without sign.  Raises ValueError with Go's words."""
    if not _matches_integer(text):
        raise ValueError(INVALID)
    digits = text.lstrip("+-0")
    # No number of 64 bits is longer, and Python does not read much longer ones at all.
    number = int(digits or "0") if len(digits) < 20 else 1 << 64
    if text[0] == "-":
        number = -number
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise ValueError(OUT_OF_RANGE)
    return number


def integer_or(text: str, default: _T, bits: int = 64) -> int | _T:
    """The number, or `default` for what is none."""
    try:
        return ascii_integer(text, bits)
    except ValueError:
        return default


def saturated(digits: str, bits: int = 64) -> int:
    """A number without sign; the largest of `bits` for a larger one, which is what Go's Atoi gives beside its error."""
    return integer_or(digits, (1 << (bits - 1)) - 1, bits)


def is_digits(text: str) -> bool:
    """Whether it is digits and nothing else."""
    return text.isascii() and text.isdecimal()
