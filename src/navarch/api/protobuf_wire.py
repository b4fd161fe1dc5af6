"""Protobuf's wire format: numbers of varying length, and fields with their tags."""

from __future__ import annotations

from functools import cache
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2

_LIMIT: Final = 1 << 63
_SMALL: Final = 4096


def _varint(value: int) -> bytes:
    if not -_LIMIT <= value < _LIMIT:
        raise OverflowError(f"{value} is no number of 64 bits")
    rest = value % (2 * _LIMIT)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


# Of one byte and of two, said at once: a module is loaded at every start.
_VARINTS: Final = (
    *(bytes((value,)) for value in range(128)),
    *(bytes((value & 0x7F | 0x80, value >> 7)) for value in range(128, _SMALL)),
)


def varint(value: int) -> bytes:
    """Raises OverflowError, and TypeError for what is no integer."""
    return _VARINTS[value] if 0 <= value < _SMALL else _varint(value)


@cache
def tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def delimited(number: int, data: bytes) -> bytes:
    """A field that is text, bytes or a message."""
    return tag(number, BYTES) + varint(len(data)) + data
