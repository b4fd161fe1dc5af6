"""Kubernetes' quantities and semantic versions."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import ClassVar, Final

from navarch.api import quantity
from navarch.api.cel.declarations import declared
from navarch.api.cel.errors import CelError
from navarch.api.cel.values import Opaque
from navarch.api.go_text import quoted
from navarch.numbers import is_digits

# A number of 64 bits, and the power of ten that it is to be multiplied by.
_Scaled = tuple[int, int]


class Quantity(Opaque):
    """`scaled` is how Kubernetes holds it where that is no number of any length: only such a quantity can be an
    integer, whatever its value."""

    __slots__ = ("number", "scaled")
    type_name: ClassVar[str] = "kubernetes.Quantity"

    def __init__(self, number: Fraction, scaled: _Scaled | None) -> None:
        self.number = number
        self.scaled = scaled

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)


def parse_quantity(text: str) -> Quantity:
    """Raises CelError."""
    try:
        return Quantity(quantity.parse(text), _scaled(text))
    except ValueError as error:
        raise CelError(str(error)) from None


def _is_quantity(text: str) -> bool:
    try:
        quantity.parse(text)
    except ValueError:
        return False
    return True


def _sign(number: Fraction | int) -> int:
    return (number > 0) - (number < 0)


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**63


_PARTS: Final = re.compile(r"([+-]?)0*(\d*)(?:\.(\d*))?(.*)", re.ASCII | re.DOTALL)
_DECIMAL: Final = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_MOST_DIGITS: Final = 18
_NANO: Final = -9


def _scaled(text: str) -> _Scaled | None:
    """Of what is a quantity: in a number of 64 bits, where Kubernetes sees from its length that it fits."""
    match = _PARTS.fullmatch(text)
    assert match is not None
    sign, whole, fraction, suffix = match.group(1), match.group(2) or "0", match.group(3) or "", match.group(4)
    factor, scale, digits = 1, 0, len(whole) + len(fraction)
    if (bits := _BINARY.get(suffix)) is not None:
        # A bit is about 0.3 digits.
        room = -1 if fraction else 15 - len(whole) - bits * 3 // 10 - 1
        factor = 1 << bits
    else:
        decimal = _DECIMAL.get(suffix)
        scale = int(suffix[1:]) if decimal is None else decimal
        room = _MOST_DIGITS - digits
    scale -= len(fraction)
    value = int(whole + fraction) * factor if room >= 0 and scale >= _NANO else 2**63
    return (-value if sign == "-" else value, scale) if _fits(value) else None


def _sum(a: _Scaled | None, b: _Scaled | None) -> _Scaled | None:
    if a is None or b is None:
        return None
    if not a[0] or not b[0]:
        return a if not b[0] else b
    scale = min(a[1], b[1])
    parts = [value * 10 ** (own - scale) for value, own in (a, b)]
    return (sum(parts), scale) if all(_fits(part) for part in (*parts, sum(parts))) else None


def _added(a: Quantity, b: Quantity | int) -> Quantity:
    other = b if isinstance(b, Quantity) else Quantity(Fraction(b), (int(b), 0))
    return Quantity(a.number + other.number, _sum(a.scaled, other.scaled))


def _subtracted(a: Quantity, b: Quantity | int) -> Quantity:
    other = b if isinstance(b, Quantity) else Quantity(Fraction(b), (int(b), 0))
    negated = None if other.scaled is None else (-other.scaled[0], other.scaled[1])
    return Quantity(a.number - other.number, _sum(a.scaled, negated))


def _is_integer(each: Quantity) -> bool:
    return each.scaled is not None and each.scaled[1] >= 0 and _fits(each.scaled[0] * 10 ** each.scaled[1])


def _integer(each: Quantity) -> int:
    if not _is_integer(each):
        raise CelError("cannot convert value to integer")
    return each.number.numerator


class Semver(Opaque):
    __slots__ = ("build", "major", "minor", "patch", "pre")
    type_name: ClassVar[str] = "kubernetes.Semver"

    def __init__(self, major: int, minor: int, patch: int, pre: tuple[str, ...], build: tuple[str, ...]) -> None:
        self.major = major
        self.minor = minor
        self.patch = patch
        self.pre = pre
        self.build = build

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Semver) and self.compare(other) == 0

    def __hash__(self) -> int:
        return hash((self.major, self.minor, self.patch, self.pre))

    def compare(self, other: Semver) -> int:
        mine, its = (self.major, self.minor, self.patch), (other.major, other.minor, other.patch)
        if mine != its:
            return 1 if mine > its else -1
        if not self.pre or not other.pre:
            return bool(other.pre) - bool(self.pre)
        for a, b in zip(self.pre, other.pre, strict=False):
            if a != b:
                return _compare_parts(a, b)
        return _sign(len(self.pre) - len(other.pre))


def _compare_parts(a: str, b: str) -> int:
    """Numbers come before words."""
    if is_digits(a) and is_digits(b):
        return _sign((len(a) - len(b)) or (a > b) - (a < b))
    if is_digits(a) or is_digits(b):
        return -1 if is_digits(a) else 1
    return 1 if a > b else -1


_IDENTIFIER: Final = re.compile("[0-9A-Za-z-]+")


def parse_semver(text: str) -> Semver:
    """Raises CelError."""
    if not text:
        raise CelError("Version string empty")
    parts = text.split(".", 2)
    if len(parts) != 3:
        raise CelError("No Major.Minor.Patch elements found")
    patch, build = parts[2], ""
    plus = ""
    if "+" in patch:
        patch, plus, build = patch.partition("+")
    patch, dash, pre = patch.partition("-")
    numbers = [
        _semver_number(each, word) for each, word in zip((*parts[:2], patch), ("Major", "Minor", "Patch"), strict=True)
    ]
    pres = tuple(pre.split(".")) if dash else ()
    builds = tuple(build.split(".")) if plus else ()
    for each in pres:
        _check_pre(each)
    for each in builds:
        if not each:
            raise CelError("Build meta data is empty")
        if not _IDENTIFIER.fullmatch(each):
            raise CelError(f"Invalid character(s) found in build meta data {quoted(each)}")
    return Semver(numbers[0], numbers[1], numbers[2], pres, builds)


def _semver_number(text: str, word: str) -> int:
    if not (is_digits(text)):
        raise CelError(f"Invalid character(s) found in {word.lower()} number {quoted(text)}")
    if len(text) > 1 and text[0] == "0":
        raise CelError(f"{word} number must not contain leading zeroes {quoted(text)}")
    if len(text) > 20 or int(text) >= 2**64:
        raise CelError(f"strconv.ParseUint: parsing {quoted(text)}: value out of range")
    return int(text)


def _check_pre(text: str) -> None:
    if not text:
        raise CelError("Prerelease is empty")
    if is_digits(text):
        if len(text) > 1 and text[0] == "0":
            raise CelError(f"Numeric PreRelease version must not contain leading zeroes {quoted(text)}")
    elif not _IDENTIFIER.fullmatch(text):
        raise CelError(f"Invalid character(s) found in prerelease {quoted(text)}")


def _normalized(text: str) -> str:
    parts = text.removeprefix("v").split(".", 2)
    for index, part in enumerate(parts):
        if len(part) > 1:
            bare = part.lstrip("0")
            parts[index] = bare if is_digits(bare[:1]) else "0" + bare
    if len(parts) < 3:
        if "+" in parts[-1] or "-" in parts[-1]:
            raise CelError("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return ".".join(parts)


def _semver(text: str, normalize: bool = False) -> Semver:
    return parse_semver(_normalized(text) if normalize else text)


def _is_semver(text: str, normalize: bool = False) -> bool:
    try:
        _semver(text, normalize)
    except CelError:
        return False
    return True


FUNCTIONS: Final = declared(
    """
    quantity string_to_quantity (string) kubernetes.Quantity
    isQuantity is_quantity_string (string) bool
    sign quantity_sign (kubernetes.Quantity) int
    isGreaterThan quantity_is_greater_than kubernetes.Quantity.(kubernetes.Quantity) bool
    isLessThan quantity_is_less_than kubernetes.Quantity.(kubernetes.Quantity) bool
    compareTo quantity_compare_to kubernetes.Quantity.(kubernetes.Quantity) int
    asApproximateFloat quantity_get_float kubernetes.Quantity.() double
    asInteger quantity_get_int kubernetes.Quantity.() int
    isInteger quantity_is_integer kubernetes.Quantity.() bool
    add quantity_add kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity
    add quantity_add_int kubernetes.Quantity.(int) kubernetes.Quantity
    sub quantity_sub kubernetes.Quantity.(kubernetes.Quantity) kubernetes.Quantity
    sub quantity_sub_int kubernetes.Quantity.(int) kubernetes.Quantity
    semver string_to_semver (string) kubernetes.Semver
    semver string_bool_to_semver (string, bool) kubernetes.Semver
    isSemver is_semver_string (string) bool
    isSemver is_semver_string_bool (string, bool) bool
    isGreaterThan semver_is_greater_than kubernetes.Semver.(kubernetes.Semver) bool
    isLessThan semver_is_less_than kubernetes.Semver.(kubernetes.Semver) bool
    compareTo semver_compare_to kubernetes.Semver.(kubernetes.Semver) int
    major semver_major kubernetes.Semver.() int
    minor semver_minor kubernetes.Semver.() int
    patch semver_patch kubernetes.Semver.() int
    """,
    {
        "string_to_quantity": parse_quantity,
        "is_quantity_string": _is_quantity,
        "quantity_sign": lambda each: _sign(each.number),
        "quantity_is_greater_than": lambda a, b: a.number > b.number,
        "quantity_is_less_than": lambda a, b: a.number < b.number,
        "quantity_compare_to": lambda a, b: _sign(a.number - b.number),
        "quantity_get_float": lambda each: float(each.number),
        "quantity_get_int": _integer,
        "quantity_is_integer": _is_integer,
        "quantity_add": _added,
        "quantity_add_int": _added,
        "quantity_sub": _subtracted,
        "quantity_sub_int": _subtracted,
        "string_to_semver": _semver,
        "string_bool_to_semver": _semver,
        "is_semver_string": _is_semver,
        "is_semver_string_bool": _is_semver,
        "semver_is_greater_than": lambda a, b: a.compare(b) > 0,
        "semver_is_less_than": lambda a, b: a.compare(b) < 0,
        "semver_compare_to": Semver.compare,
        "semver_major": lambda each: each.major,
        "semver_minor": lambda each: each.minor,
        "semver_patch": lambda each: each.patch,
    },
)
