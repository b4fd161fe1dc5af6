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


class Quantity(Opaque):
    __slots__ = ("number",)
    type_name: ClassVar[str] = "kubernetes.Quantity"

    def __init__(self, number: Fraction) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.number == other.number

    def __hash__(self) -> int:
        return hash(self.number)


def _quantity(text: str) -> Quantity:
    try:
        return Quantity(quantity.parse(text))
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


def _fits(number: Fraction) -> bool:
    return number.denominator == 1 and -(2**63) <= number.numerator < 2**63


def _integer(each: Quantity) -> int:
    if not _fits(each.number):
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
        "string_to_quantity": _quantity,
        "is_quantity_string": _is_quantity,
        "quantity_sign": lambda each: _sign(each.number),
        "quantity_is_greater_than": lambda a, b: a.number > b.number,
        "quantity_is_less_than": lambda a, b: a.number < b.number,
        "quantity_compare_to": lambda a, b: _sign(a.number - b.number),
        "quantity_get_float": lambda each: float(each.number),
        "quantity_get_int": _integer,
        "quantity_is_integer": lambda each: _fits(each.number),
        "quantity_add": lambda a, b: Quantity(a.number + b.number),
        "quantity_add_int": lambda a, b: Quantity(a.number + b),
        "quantity_sub": lambda a, b: Quantity(a.number - b.number),
        "quantity_sub_int": lambda a, b: Quantity(a.number - b),
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
