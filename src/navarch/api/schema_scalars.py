"""Scalars with a format of their own: times and base64, checked and spelt as Kubernetes' encoder would spell them.

In: a client's string.  Out: the string to store; the very same object where nothing is to change.  Raises `ScalarError`
with the words of Go's own parsers.
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from navarch.api.memo import memo

_RFC3339: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_LAYOUT: Final = "2006-01-02T15:04:05Z07:00"
_STEPS: Final = (
    ("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"), ("T", "T"), ("15", r"\d\d"),
    (":", ":"), ("04", r"\d\d"), (":", ":"), ("05", r"\d\d(?:[.,]\d+)?"), ("Z07:00", r"Z|[+-]\d\d:\d\d"),
)  # fmt: skip
# Exactly six digits of fraction, no fewer and no more.
_MICRO_LAYOUT: Final = "2006-01-02T15:04:05.000000Z07:00"
_MICRO_STEPS: Final = (*_STEPS[:-2], ("05", r"\d\d"), (".000000", r"[.,]\d{6}"), _STEPS[-1])
_BASE64_ALPHABET: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


class ScalarError(ValueError):
    """The text does not have the format; the message is for the client."""


def _time_error(text: str, *, micro: bool = False) -> ScalarError:
    """Where Go's time.Parse would give up."""
    layout, steps = (_MICRO_LAYOUT, _MICRO_STEPS) if micro else (_LAYOUT, _STEPS)
    shown, rest = f'parsing time "{text}" as "{layout}"', text
    for element, pattern in steps:
        match = re.match(pattern, rest, re.ASCII)
        if match is None:
            return ScalarError(f'{shown}: cannot parse "{rest}" as "{element}"')
        rest = rest[match.end() :]
    if rest:
        return ScalarError(f'parsing time "{text}": extra text: "{rest}"')
    return ScalarError(f'parsing time "{text}": {_out_of_range(text)} out of range')


def _out_of_range(text: str) -> str:
    match = _RFC3339.fullmatch(text)
    assert match is not None
    _, month, day, hour, minute, second, _, _ = match.groups()
    limits = (("month", month, 1, 12), ("hour", hour, 0, 23), ("minute", minute, 0, 59), ("second", second, 0, 59))
    for name, digits, low, high in limits:
        if not low <= int(digits) <= high:
            return name
    return "day" if day else "time"


def _parse(text: str, *, micro: bool = False) -> tuple[datetime, str]:
    """The moment to the second, in UTC, and the digits of its fraction."""
    match = _RFC3339.fullmatch(text)
    if match is None or (micro and len(match[7] or "") != 6):
        raise _time_error(text, micro=micro)
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
        if zone != "Z":
            offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
            moment = moment - offset if zone[0] == "+" else moment + offset
    except (ValueError, OverflowError):
        raise _time_error(text, micro=micro) from None
    return moment, fraction or ""


def _stamp(moment: datetime) -> str:
    # strftime does not pad years below 1000 everywhere.
    return moment.replace(tzinfo=None).isoformat(timespec="seconds")


@memo(4096)
def canonical_time(text: str) -> str:
    """`metav1.Time`: RFC 3339, UTC, whole seconds.  Raises ScalarError."""
    moment, _ = _parse(text)
    spelt = f"{_stamp(moment)}Z"
    return text if spelt == text else spelt


@memo(1024)
def canonical_micro_time(text: str) -> str:
    """`metav1.MicroTime`: RFC 3339, UTC, six digits of fraction.  Raises ScalarError."""
    moment, fraction = _parse(text, micro=True)
    spelt = f"{_stamp(moment)}.{fraction}Z"
    return text if spelt == text else spelt


def check_base64(text: str) -> str:
    """Standard base64 with padding; line breaks are dropped.  Raises ScalarError."""
    if "\n" in text or "\r" in text:
        text = text.replace("\n", "").replace("\r", "")
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise ScalarError(f"illegal base64 data at input byte {_first_illegal(text)}") from None
    return text


def _first_illegal(text: str) -> int:
    data = text.encode()
    for index, byte in enumerate(data):
        if byte in _BASE64_ALPHABET:
            continue
        if byte == 61 and index % 4 >= 2:  # "="
            rest = data[index:]
            if index % 4 == 2 and rest[:2] == b"=":
                return len(data)
            padding = 2 if index % 4 == 2 else 1
            if rest[:padding] == b"=" * padding:
                return index + padding if len(rest) > padding else index
        return index
    # Go counts back to the start of the incomplete last group of four.
    return len(data) - len(data) % 4
