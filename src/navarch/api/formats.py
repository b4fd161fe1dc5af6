"""String formats that schemas of custom kinds may ask for, as Kubernetes checks them.

In: a format's name (`date-time`, `ipv4` …) and a text.  Out: whether the text is of that format. Names are compared
without hyphens. A name that is not known here asks for nothing, as in Kubernetes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from navarch.api import quantity
from navarch.api.patterns import search_of
from navarch.api.validation import dns_label_problems, dns_subdomain_problems

Test = Callable[[str], object]


def _matching(pattern: str) -> Test:
    """Compiled when the first text is looked at: most formats are never asked for."""

    @cache
    def compiled() -> Test:
        return re.compile(pattern, re.ASCII).fullmatch

    return lambda text: compiled()(text)


_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_TIME: Final = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|[+|-][0-9]{2}:[0-9]{2})").fullmatch
_GO_DURATION: Final = re.compile(r"[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)").fullmatch
_LONG_DURATION: Final = re.compile(r"([0-9]+)\s*([A-Za-zµ]+)", re.ASCII).findall
# A unit is one of these, or begins with the last of its row.
_UNITS: Final = (
    ("ns", "nano"),
    ("us", "µs", "micro"),
    ("ms", "milli"),
    ("s", "sec"),
    ("m", "min"),
    ("h", "hr", "hour"),
    ("d", "day"),
    ("w", "week"),
)
_HOSTNAME: Final = (
    r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|"
    r"([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z0-9-\p{L}]){2,63})$"
)
_MAC: Final = _matching(
    r"(([0-9a-fA-F]{2}([:-]))([0-9a-fA-F]{2}\3){4}(([0-9a-fA-F]{2}\3){2}|([0-9a-fA-F]{2}\3){14})?[0-9a-fA-F]{2})"
    r"|([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}|([0-9a-fA-F]{4}\.){3}[0-9a-fA-F]{4}|([0-9a-fA-F]{4}\.){9}[0-9a-fA-F]{4}"
)
_CARD: Final = _matching(
    r"4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}"
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11}"
)
_BYTE: Final = r"(0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"


def _date(text: str) -> bool:
    if not _DATE(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _date_time(text: str) -> bool:
    day, _, time = text.lower().partition("t")
    matched = _TIME(time.split("t", 1)[0])
    return _date(day) and matched is not None and matched[1] <= "23" and matched[2] <= "59" and matched[3] <= "59"


def _duration(text: str) -> bool:
    if _GO_DURATION(text):
        return True
    for _, unit in _LONG_DURATION(text):
        unit = unit.lower()
        if any(unit in variants or unit.startswith(variants[-1]) for variants in _UNITS):
            return True
    return False


def _uri(text: str) -> bool:
    if not text or any(ord(character) < 0x21 or character == "\x7f" for character in text):
        return False
    if re.search(r"%(?![0-9a-fA-F]{2})", text):
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    # A scheme, or a path from the root.
    return text.startswith("/") or re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", text) is not None


def _email(text: str) -> bool:
    from email.utils import parseaddr

    address = parseaddr(text)[1]
    local, at, domain = address.rpartition("@")
    return bool(local and at and domain) and " " not in address and not domain.startswith((".", "-"))


def _hostname(text: str) -> bool:
    if len(text) > 255 or not search_of(_HOSTNAME)(text):
        return False
    return all(len(label) <= 63 for label in text.split("."))


def _ip(version: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> Test:
    def test(text: str) -> bool:
        try:
            version(text)
        except ValueError:
            return False
        return "%" not in text

    return test


def _cidr(text: str) -> bool:
    address, slash, bits = text.partition("/")
    if not slash or not re.fullmatch(r"[0-9]{1,3}", bits, re.ASCII):
        return False
    try:
        return int(bits) <= ipaddress.ip_address(address).max_prefixlen and "%" not in address
    except ValueError:
        return False


def _isbn10(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text, flags=re.ASCII)
    if not re.fullmatch(r"[0-9]{9}[0-9X]", digits, re.ASCII):
        return False
    values = [10 if digit == "X" else int(digit) for digit in digits]
    return sum((index + 1) * value for index, value in enumerate(values)) % 11 == 0


def _isbn13(text: str) -> bool:
    digits = re.sub(r"[\s-]+", "", text, flags=re.ASCII)
    if not re.fullmatch(r"[0-9]{13}", digits, re.ASCII):
        return False
    return sum((3 if index % 2 else 1) * int(digit) for index, digit in enumerate(digits)) % 10 == 0


def _credit_card(text: str) -> bool:
    digits = re.sub(r"[^0-9]+", "", text)
    if not _CARD(digits):
        return False
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _quantity(text: str) -> bool:
    try:
        quantity.canonical(text)
    except ValueError:
        return False
    return True


_TESTS: Final[Mapping[str, Test]] = {
    "bsonobjectid": _matching(r"[0-9a-fA-F]{24}"),
    "uri": _uri,
    "email": _email,
    "hostname": _hostname,
    "ipv4": _ip(ipaddress.IPv4Address),
    "ipv6": _ip(ipaddress.IPv6Address),
    "cidr": _cidr,
    "mac": _MAC,
    "uuid": _matching(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"),
    "uuid3": _matching(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}"),
    "uuid4": _matching(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}"),
    "uuid5": _matching(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}"),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "creditcard": _credit_card,
    "ssn": _matching(r"[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}"),
    "hexcolor": _matching(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "rgbcolor": _matching(rf"rgb\(\s*{_BYTE}\s*,\s*{_BYTE}\s*,\s*{_BYTE}\s*\)"),
    "byte": _matching(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"),
    "password": lambda text: True,
    "date": _date,
    "duration": _duration,
    "datetime": _date_time,
    "quantity": _quantity,
    "k8sshortname": lambda text: not dns_label_problems(text),
    "k8slongname": lambda text: not dns_subdomain_problems(text),
}
_NUMBERS: Final = {"integer": ("int32", "int64"), "number": ("float", "double")}


def is_recognized(name: str, type_: str) -> bool:
    """Whether the format means anything for values of the type (empty: of any)."""
    if type_ in ("", "string"):
        return name.replace("-", "") in _TESTS
    return name in _NUMBERS.get(type_, ())


def test_of(name: str) -> Test | None:
    """What decides whether a text is of the format; None for one that is not known."""
    return _TESTS.get(name.replace("-", ""))
