"""Header blocks to the heads of requests, and the heads of answers to header blocks.

In: what HPACK says of a block.  Out: method, path, query and headers as the handlers see them, the same that HTTP/1.1
would have brought; what RFC 9113 calls malformed is none. Clients ask the same again and again: what a block meant is
remembered for as long as nothing else has been remembered by HPACK.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from aiohttp.helpers import rfc822_formatted_time

from navarch.api.errors import StatusError
from navarch.apiserver.plain_requests import query_of, together
from navarch.client.transport import Response
from navarch.http2 import hpack
from navarch.http2.hpack import Field
from navarch.http2.receiving import BLOCK_MAX
from navarch.numbers import is_digits

# Of a request's fields together, and how many they may be.
HEAD_MAX: Final = BLOCK_MAX
_FIELDS_MAX: Final = 1000
_KNOWN_MAX: Final = 64
_KNOWN_SIZE: Final = 2048
# A block that names again and again what HPACK remembers stands for a thousand times its length: what is remembered of
# blocks is bounded by what they stand for.
_KNOWN_STANDS_FOR: Final = 8 << 10
_KNOWN_PAIRS: Final = 64
_PSEUDO: Final = frozenset({":method", ":scheme", ":path", ":authority"})
# Of a connection, which in HTTP/2 says so in frames.
_OF_CONNECTIONS: Final = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
_METHOD: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_TARGET: Final = re.compile(r"([/][!\"$->@-~]*)(?:\?([!\"$-~]*))?")
_LINE_ENDS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Malformed(Exception):
    """No request of RFC 9113."""


class TooLong(Exception):
    """Its fields are more than we read; 431."""


class Head(NamedTuple):
    """`length` is -1 where none is stated; `size` is what its fields take, however short the block was."""

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: dict[str, str]
    length: int
    size: int = 0


class Heads:
    """One connection's."""

    __slots__ = ("_decoder", "_known")

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(HEAD_MAX)
        self._known: dict[bytes, Head] = {}

    def request(self, block: bytes) -> Head:
        """Raises CompressionError, FarTooLong; Malformed, TooLong."""
        known = self._known.get(block)
        if known is not None:
            return known
        fields = self._fields(block)
        if fields is None or len(fields) > _FIELDS_MAX:
            raise TooLong
        head = head_of(fields, self._decoder.size)
        if (
            not self._decoder.changed
            and len(self._known) < _KNOWN_MAX
            and len(block) <= _KNOWN_SIZE
            and head.size <= _KNOWN_STANDS_FOR
            and len(head.query) <= _KNOWN_PAIRS
        ):
            self._known[block] = head
        return head

    def trailers(self, block: bytes) -> None:
        """Nobody reads them.  Raises what `request` does."""
        for name, _, _ in self._fields(block) or ():
            if not name or name[0] == ":":
                raise Malformed("a trailer has a name that it must not have")

    def _fields(self, block: bytes) -> list[Field] | None:
        fields = self._decoder.decode(block)
        if self._decoder.changed:
            self._known.clear()
        return fields


def head_of(fields: Sequence[Field], size: int = 0) -> Head:
    """Raises Malformed, TooLong."""
    pseudo: dict[str, str] = {}
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    for name, value, _ in fields:
        if name in headers:
            repeated.setdefault(name, [headers[name]]).append(value)
        elif name[:1] != ":":
            headers[name] = value
        elif headers or name in pseudo or name not in _PSEUDO:
            raise Malformed(f"{name} is unknown, repeated, or comes after other fields")
        else:
            pseudo[name] = value
    for name, values in repeated.items():
        headers[name] = _together(name, values)
    if "" in headers:
        raise Malformed("a field has a name or a value that none may have")
    if not _OF_CONNECTIONS.isdisjoint(headers):
        raise Malformed("a field of a connection is sent with a request")
    if "te" in headers and headers["te"].lower() != "trailers":
        raise Malformed("TE is other than trailers")
    if pseudo.get(":authority"):
        headers["host"] = pseudo[":authority"]
    length = headers.get("content-length")
    if length is not None and not (is_digits(length) and len(length) < 19):
        raise Malformed("Content-Length is no number")
    path, query = _target(pseudo)
    return Head(pseudo[":method"], path, query, headers, -1 if length is None else int(length), size)


def _target(pseudo: dict[str, str]) -> tuple[str, Sequence[tuple[str, str]]]:
    if _METHOD.fullmatch(pseudo.get(":method", "")) is None:
        raise Malformed("there is no :method")
    if pseudo[":method"] == "CONNECT":
        # Nobody is connected to anything here; the handlers say so.
        if pseudo.keys() != {":method", ":authority"}:
            raise Malformed("CONNECT has a :path or a :scheme")
        return "/", ()
    if pseudo.get(":scheme") not in ("https", "http"):
        raise Malformed("there is no :scheme")
    target = pseudo.get(":path", "")
    if target == "*" and pseudo[":method"] == "OPTIONS":
        return target, ()
    matched = _TARGET.fullmatch(target)
    if matched is None:
        raise Malformed(":path is none")
    path, query = matched.groups()
    try:
        return path, query_of(query) if query else ()
    except StatusError:
        raise TooLong from None


def _together(name: str, values: list[str]) -> str:
    if name == "content-length":
        raise Malformed("Content-Length is repeated")
    return "; ".join(values) if name == "cookie" else together(name, *values)


# Answers


@lru_cache(maxsize=256)
def _begun(status: int, content_type: str, *, kept: bool) -> bytes:
    block = hpack.status(status) + field("content-type", content_type)
    if status == 401:
        block += field("www-authenticate", 'Basic realm="kubernetes-master"')
    return block if kept else block + field("cache-control", "no-cache, private")


@lru_cache(maxsize=2)
def _date(text: str) -> bytes:
    return field("date", text)


_LENGTH: Final = hpack.literal("content-length", "")[:-1]


def field(name: str, value: str) -> bytes:
    """A field with what no value may have taken out."""
    return hpack.literal(name, _LINE_ENDS.sub(" ", value).strip(" \t"))


def answer_block(response: Response, length: int | None) -> bytes:
    """The head of an answer; without a length where the body's end tells it."""
    # What may be kept says so itself, and the usual headers do not.
    kept = type(response.headers) is dict and "Cache-Control" in response.headers
    block = _begun(response.status, response.content_type, kept=kept) + _date(rfc822_formatted_time())
    if length is not None:
        digits = b"%d" % length
        block += _LENGTH + bytes((len(digits),)) + digits
    for name, value in response.headers.items():
        name = name.lower()
        if name not in _OF_CONNECTIONS:
            block += field(name, value)
    return block


CONTINUE: Final = hpack.literal(":status", "100")
