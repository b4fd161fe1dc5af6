"""What literals stand for. In: a token's text.  Out: the value.  Raises ValueError with cel-go's words."""

from __future__ import annotations

import re
from typing import Final

from navarch.api.cel.values import Uint

_ESCAPES: Final = re.compile(
    r"\\(?:([abfnrtv\"'`?\\])|[xX]([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)
_NAMED: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


def _whole(digits: str) -> int:
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16)
    # Far longer numbers than any that fits are nothing that Python reads.
    bare = digits.lstrip("0") or "0"
    return int(bare) if len(bare) <= 20 else 2**64


def number(text: str) -> int:
    """Raises ValueError."""
    negative = text.startswith("-")
    digits = text.removeprefix("-")
    value = _whole(digits)
    value = -value if negative else value
    if not -(2**63) <= value < 2**63:
        raise ValueError("invalid int literal")
    return value


def unsigned(text: str) -> Uint:
    """Raises ValueError."""
    digits = text[:-1]
    value = _whole(digits)
    if value >= 2**64:
        raise ValueError("invalid uint literal")
    return Uint(value)


def double(text: str) -> float:
    """Raises ValueError."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("invalid double literal")
    return value


def _body(text: str) -> tuple[str, bool]:
    raw = text[0] in "rR"
    if raw:
        text = text[1:]
    width = 3 if len(text) >= 6 and text[:3] in ('"""', "'''") else 1
    return text[width:-width].replace("\r\n", "\n").replace("\r", "\n"), raw


def string(text: str) -> str:
    """Raises ValueError."""
    body, raw = _body(text)
    if raw or "\\" not in body:
        return body

    def unescape(match: re.Match[str]) -> str:
        named, byte, octal, short, long = match.groups()
        if named is not None:
            return chr(_NAMED[named]) if named in _NAMED else named
        code = int(byte or short or long, 16) if octal is None else int(octal, 8)
        if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
            raise ValueError("invalid unicode code point")
        return chr(code)

    return _ESCAPES.sub(unescape, body)


def octets(text: str) -> bytes:
    """Raises ValueError."""
    body, raw = _body(text[1:])
    if raw or "\\" not in body:
        return body.encode()
    parts: list[bytes] = []
    last = 0
    for match in _ESCAPES.finditer(body):
        parts.append(body[last : match.start()].encode())
        last = match.end()
        named, byte, octal, short, long = match.groups()
        if named is not None:
            parts.append(bytes([_NAMED[named]]) if named in _NAMED else named.encode())
        elif short is not None or long is not None:
            parts.append(chr(int(short or long, 16)).encode())
        else:
            parts.append(bytes([int(byte, 16) if byte is not None else int(octal, 8)]))
    parts.append(body[last:].encode())
    return b"".join(parts)
