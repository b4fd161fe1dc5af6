"""HTTP/1.1 as text: the head of a request, the head of an answer, and bodies in chunks.

For those who speak it themselves, because a general client costs too much (`client/connection.py`) or because the
connection is to become something else (`client/upgrade.py`). Nothing here does I/O, and everything is read once,
however small the pieces in which it comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from navarch.numbers import is_digits

HEAD_MAX = 1 << 20
_CHUNK_HEAD_MAX = 4096


class Head(NamedTuple):
    """The head of an answer; header names are lower case, several of one name are joined by commas."""

    status: int
    headers: dict[str, str]


def request_head(method: str, target: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """Raises ValueError where a line break would make more of it than was meant."""
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers]]
    head = "\r\n".join(lines)
    breaks = len(lines) - 1
    if head.count("\n") != breaks or head.count("\r") != breaks or "\0" in head:
        raise ValueError("a line break in a request's path or headers")
    return head.encode("latin-1", "replace") + b"\r\n\r\n"


def answer_head(data: bytes) -> Head:
    """The head of an answer, without the empty line at its end.  Raises ValueError."""
    first, *lines = data.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/1.") or not is_digits(first[9:12]):
        raise ValueError("it has no status line")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Head(int(first[9:12]), headers)


def is_chunked(headers: Mapping[str, str]) -> bool:
    return headers.get("transfer-encoding", "").lower() == "chunked"


def length_of(headers: Mapping[str, str]) -> int | None:
    """The body's length as it is stated; None where it is not.  Raises ValueError."""
    text = headers.get("content-length")
    if text is None:
        return None
    if not is_digits(text):
        raise ValueError(f"a body of length {text[:20]!r}")
    return int(text)


class HeadReader:
    """Gathers a head; what comes after it is the body's."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.started = False

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and what came behind it, once it is whole.  Raises ValueError."""
        self.started = True
        seen = max(len(self._data) - 3, 0)
        self._data += data
        end = self._data.find(b"\r\n\r\n", seen)
        if end < 0:
            if len(self._data) > HEAD_MAX:
                raise ValueError("the head is too long")
            return None
        head, rest = answer_head(bytes(self._data[:end])), bytes(self._data[end + 4 :])
        self._data.clear()
        self.started = False
        return head, rest


class Chunks:
    """A body in chunks."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._line = bytearray()
        # Bytes of the chunk that are still to come, its line break included; below 0 a line is expected.
        self._missing = -1
        self._last = False

    @property
    def size(self) -> int:
        """Bytes of the body so far."""
        return len(self._body)

    def feed(self, data: bytes) -> bytes | None:
        """The body once it is whole; what comes after it is dropped.  Raises ValueError."""
        at = 0
        while at < len(data):
            if self._missing < 0:
                end = data.find(b"\n", at)
                self._line += data[at : end + 1 if end >= 0 else len(data)]
                if len(self._line) > _CHUNK_HEAD_MAX:
                    raise ValueError("a chunk's line is too long")
                if end < 0:
                    return None
                at = end + 1
                if self._take_line():
                    return bytes(self._body)
                continue
            part = data[at : at + self._missing]
            at += len(part)
            # The line break at the end is not the body's.
            self._body += part[: max(self._missing - 2, 0)] if self._missing - len(part) < 2 else part
            self._missing -= len(part)
            if self._missing == 0:
                self._missing = -1
        return None

    def _take_line(self) -> bool:
        """Whether it was the body's last."""
        line = bytes(self._line).strip()
        self._line.clear()
        if self._last:
            # Trailers, up to an empty line.
            return not line
        size = line.split(b";", 1)[0].strip()
        if not size or size.strip(b"0123456789abcdefABCDEF"):
            raise ValueError(f"a chunk of size {size[:20]!r}")
        length = int(size, 16)
        if length:
            self._missing = length + 2
        else:
            self._last = True
        return False
