"""Header compression (RFC 7541): reading clients' header blocks, and writing our own, which need no memory.

In: a header block, whole.  Out: its fields in order, as text. A field whose name or value no header may have comes out
with an empty name: it makes a request malformed, but what is remembered on the connection must follow all the same.

Invariant: whatever a block says, no more is remembered than `TABLE_MAX` bytes, and no more comes out than the decoder's
limit, counted as the RFC counts (a field is its name, its value and 32 bytes).

Our own blocks use the static table and literals alone, so that they can be put together from pieces that are made once.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from navarch.api.memo import memo
from navarch.http2 import huffman

# Name, value and size.
Field = tuple[str, str, int]

TABLE_MAX: Final = 4096
_OVERHEAD: Final = 32
# Longer texts, and what is made of them, are not remembered.
_REMEMBERED_MAX: Final = 2048
_NAME: Final = re.compile(r":?[a-z0-9!#$%&'*+.^_`|~-]+")
# A value has no space at either end, and no control character but a tab within.
_NO_VALUE: Final = re.compile(r"[\x00\r\n]|\A[ \t]|[ \t]\Z")
# What the first byte of a field says, and how many of its bits begin a number.
_INDEXED: Final = 0x80
_REMEMBERED: Final = 0x40
_RESIZED: Final = 0x20

_STATIC: Final[tuple[tuple[str, str], ...]] = (
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
)  # fmt: skip
_STATIC_FIELDS: Final[tuple[Field, ...]] = (
    ("", "", 0),
    *((name, value, len(name) + len(value) + _OVERHEAD) for name, value in _STATIC),
)
_FIRST_REMEMBERED: Final = len(_STATIC_FIELDS)


class CompressionError(Exception):
    """What is remembered on the connection is lost: it cannot go on."""


class FarTooLong(Exception):
    """The fields of a block are more than twice what is allowed."""


def _integer(block: bytes, at: int, most: int) -> tuple[int, int]:
    """The number that goes on at `at` because its first bits were `most`, and where it ends."""
    value, shift = most, 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 28:
            raise CompressionError("a number is too long")


def _decoded(data: bytes, packed: bool) -> str:
    try:
        return (huffman.decode(data) if packed else data).decode("utf-8", "replace")
    except ValueError as error:
        raise CompressionError(str(error)) from None


_remembered_decoded = lru_cache(maxsize=2048)(_decoded)


def _text(block: bytes, at: int) -> tuple[str, int, int]:
    """A text, its size, and where it ends."""
    first = block[at]
    at += 1
    length = first & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    end = at + length
    if end > len(block):
        raise CompressionError("a text is cut short")
    data, packed = block[at:end], first >= 0x80
    text = _remembered_decoded(data, packed) if length <= _REMEMBERED_MAX else _decoded(data, packed)
    return text, len(text) if text.isascii() else len(text.encode()), end


class Decoder:
    """One connection's."""

    __slots__ = ("_fields", "_limit", "_most", "_size", "changed", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Oldest first.
        self._fields: list[Field] = []
        self._size = 0
        self._most = TABLE_MAX
        # Whether the last block has left something behind: then those before it would mean something else now.
        self.changed = False
        # What the fields of the last block take, were each sent as it is.
        self.size = 0

    def decode(self, block: bytes) -> list[Field] | None:
        """The fields; None where they are more than is allowed.  Raises CompressionError, FarTooLong."""
        self.changed = False
        try:
            return self._read(block)
        except IndexError:
            raise CompressionError("a header block is cut short") from None

    def _read(self, block: bytes) -> list[Field] | None:
        found: list[Field] = []
        at, end, size = 0, len(block), 0
        while at < end:
            first = block[at]
            at += 1
            if first & _INDEXED:
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, 0x7F)
                field = self._field(index)
            elif first & _REMEMBERED:
                field, at = self._literal(block, at, first & 0x3F, 0x3F)
                self._remember(field)
            elif first & _RESIZED:
                if found:
                    raise CompressionError("the table is resized within a header block")
                at = self._resize(block, at, first & 0x1F)
                continue
            else:
                field, at = self._literal(block, at, first & 0x0F, 0x0F)
            size += field[2]
            if size <= self._limit:
                found.append(field)
            elif size > 2 * self._limit:
                raise FarTooLong
        self.size = size
        return found if size <= self._limit else None

    def _field(self, index: int) -> Field:
        if index < _FIRST_REMEMBERED:
            if not index:
                raise CompressionError("there is no field 0")
            return _STATIC_FIELDS[index]
        back = index - _FIRST_REMEMBERED + 1
        if back > len(self._fields):
            raise CompressionError("a field is named that is not remembered")
        return self._fields[-back]

    def _literal(self, block: bytes, at: int, index: int, most: int) -> tuple[Field, int]:
        if index:
            if index == most:
                index, at = _integer(block, at, most)
            name = self._field(index)[0]
            name_size = len(name)
        else:
            name, name_size, at = _text(block, at)
            if not _is_name(name):
                name = ""
        value, value_size, at = _text(block, at)
        if _NO_VALUE.search(value):
            name = ""
        return (name, value, name_size + value_size + _OVERHEAD), at

    def _remember(self, field: Field) -> None:
        self.changed = True
        if field[2] > self._most:
            self._fields.clear()
            self._size = 0
            return
        self._fields.append(field)
        self._size += field[2]
        if self._size > self._most:
            self._forget()

    def _forget(self) -> None:
        gone = 0
        while self._size > self._most:
            self._size -= self._fields[gone][2]
            gone += 1
        del self._fields[:gone]

    def _resize(self, block: bytes, at: int, value: int) -> int:
        if value == 0x1F:
            value, at = _integer(block, at, 0x1F)
        if value > TABLE_MAX:
            raise CompressionError("the table would be too big")
        self.changed = True
        self._most = value
        self._forget()
        return at


@memo(1024)
def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


# Writing

_INDEX_OF_NAME: Final = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
# The first block of a connection says that nothing will be remembered, whatever the other side allows.
NOTHING_REMEMBERED: Final = bytes((_RESIZED,))


def _number(value: int, most: int, first: int) -> bytes:
    if value < most:
        return bytes((first | value,))
    out = bytearray((first | most,))
    value -= most
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: str, value: str) -> bytes:
    """A field that the other side does not remember; `name` is in lower case."""
    index = _INDEX_OF_NAME.get(name, 0)
    head = _number(index, 0x0F, 0)
    if not index:
        data = name.encode()
        head += _number(len(data), 0x7F, 0) + data
    data = value.encode("utf-8", "surrogateescape")
    return head + _number(len(data), 0x7F, 0) + data


def status(code: int) -> bytes:
    text = str(code)
    for index, (name, value) in enumerate(_STATIC, 1):
        if name == ":status" and value == text:
            return bytes((_INDEXED | index,))
    return literal(":status", text)
