"""Why a text is no JSON, in the words of Go's decoder, which Kubernetes' users know.

In: bytes that a JSON parser has refused.  Out: one line, such as `invalid character '}' looking for beginning of object
key string`. Parsers word their complaints differently from version to version; this reads the text again instead, and
gives up after so many tokens that the answer is there in some milliseconds.
"""

from __future__ import annotations

import re
from typing import Final

_MAX_TOKENS: Final = 20_000
_MAX_DEPTH: Final = 10_000
_END: Final = "unexpected end of JSON input"
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
# As much of a scalar as is right: what comes next tells what is wrong.
_STRING: Final = re.compile(rb'"(?:[^"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')
_HALF_ESCAPE: Final = re.compile(rb"\\u[0-9a-fA-F]{0,3}")
_NUMBER: Final = re.compile(rb"(-?)(?:(0|[1-9][0-9]*)(?:(\.)([0-9]*))?(?:([eE][+-]?)([0-9]*))?)?")
_LITERALS: Final = {b"t": b"true", b"f": b"false", b"n": b"null"}

_VALUE, _FIRST_ITEM, _FIRST_KEY, _KEY, _COLON, _AFTER = range(6)
_CLOSES: Final = {(_FIRST_ITEM, b"]"): b"[", (_FIRST_KEY, b"}"): b"{"}


class _BadError(Exception):
    pass


def why_no_json(data: bytes) -> str:
    """What Go says of `data`; empty if it is JSON after all. Far down in a long text nothing particular is said."""
    try:
        return _Reader(data).read()
    except _BadError as error:
        return str(error)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._open: list[bytes] = []
        self._state = _VALUE

    def read(self) -> str:
        for _ in range(_MAX_TOKENS):
            self._at = _space_after(self._data, self._at)
            if self._at == len(self._data):
                return "" if self._state == _AFTER and not self._open else _END
            self._take(self._next())
        return f"invalid JSON text after the first {_MAX_TOKENS} tokens"

    def _next(self) -> bytes:
        return self._data[self._at : self._at + 1]

    def _bad(self, where: str) -> _BadError:
        character = self._next()
        return _BadError(f"invalid character {_quoted(character[0])} {where}" if character else _END)

    def _take(self, character: bytes) -> None:
        state = self._state
        if state == _AFTER:
            self._take_after(character)
        elif (opener := _CLOSES.get((state, character))) is not None:
            assert self._open[-1] == opener
            self._close()
        elif state in (_FIRST_KEY, _KEY):
            if character != b'"':
                raise self._bad("looking for beginning of object key string")
            self._string()
            self._state = _COLON
        elif state == _COLON:
            if character != b":":
                raise self._bad("after object key")
            self._at += 1
            self._state = _VALUE
        elif character in b"{[":
            if len(self._open) >= _MAX_DEPTH:
                raise _BadError("exceeded max depth")
            self._open.append(character)
            self._at += 1
            self._state = _FIRST_KEY if character == b"{" else _FIRST_ITEM
        else:
            self._scalar(character)
            self._state = _AFTER

    def _take_after(self, character: bytes) -> None:
        if not self._open:
            raise self._bad("after top-level value")
        in_object = self._open[-1] == b"{"
        if character == (b"}" if in_object else b"]"):
            self._close()
        elif character == b",":
            self._at += 1
            self._state = _KEY if in_object else _VALUE
        else:
            raise self._bad("after object key:value pair" if in_object else "after array element")

    def _close(self) -> None:
        self._open.pop()
        self._at += 1
        self._state = _AFTER

    def _scalar(self, character: bytes) -> None:
        if character == b'"':
            self._string()
        elif character in b"-0123456789":
            self._number()
        elif character in _LITERALS:
            word = _LITERALS[character]
            for expected in word:
                if self._next() != bytes([expected]):
                    raise self._bad(f"in literal {word.decode()} (expecting {_quoted(expected)})")
                self._at += 1
        else:
            raise self._bad("looking for beginning of value")

    def _string(self) -> None:
        found = _STRING.match(self._data, self._at)
        assert found is not None
        self._at = found.end()
        character = self._next()
        if character == b"\\":
            half = _HALF_ESCAPE.match(self._data, self._at)
            self._at = half.end() if half is not None else self._at + 1
            raise self._bad("in \\u hexadecimal character escape" if half is not None else "in string escape code")
        if character != b'"':
            raise self._bad("in string literal")
        self._at += 1

    def _number(self) -> None:
        found = _NUMBER.match(self._data, self._at)
        assert found is not None
        self._at = found.end()
        sign, whole, point, digits, exponent, power = found.groups()
        if sign and whole is None:
            raise self._bad("in numeric literal")
        if point and not digits and not exponent:
            raise self._bad("after decimal point in numeric literal")
        if point and not digits:
            self._at = found.start(5)
            raise self._bad("after decimal point in numeric literal")
        if exponent and not power:
            raise self._bad("in exponent of numeric literal")


def _space_after(data: bytes, at: int) -> int:
    found = _SPACE.match(data, at)
    assert found is not None
    return found.end()


def _quoted(character: int) -> str:
    """As Go shows a byte: the letter of that number."""
    if character == ord("'"):
        return "'\\''"
    if character == ord('"'):
        return "'\"'"
    shown = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 92: "\\\\"}.get(character)
    if shown is None:
        text = chr(character)
        shown = text if text.isprintable() else f"\\x{character:02x}" if character < 0x80 else f"\\u{character:04x}"
    return f"'{shown}'"
