"""gRPC answered with one thing only: UNIMPLEMENTED and why, in as much of HTTP/2 as that takes.

In: a connection that has begun as HTTP/2.  Out: each call's stream is ended with `grpc-status: 12`, so that a client
says what is wrong instead of that the connection closed.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol
from urllib.parse import quote

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _SETTINGS, _PING, _CONTINUATION = 1, 4, 6, 9
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_FRAME_MAX: Final = 1 << 20


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


def refuse(reader: _Readable, writer: _Writable, why: str) -> None:
    """Until the client closes; the first line of its preface has been read.  Raises OSError."""
    reader.read(len(PREFACE) - len(PREFACE.split(b"\r\n", 1)[0]) - 2)
    writer.write(_frame(_SETTINGS, 0, 0))
    refusal = _fields(
        (":status", "200"),
        ("content-type", "application/grpc"),
        ("grpc-status", "12"),
        ("grpc-message", quote(why, safe=" ,:`;")),
    )
    while len(head := reader.read(9)) == 9:
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        if size > _FRAME_MAX:
            return
        payload = reader.read(size)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_HEADERS, _CONTINUATION) and flags & _END_HEADERS:
            writer.write(_frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, refusal))


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def _fields(*fields: tuple[str, str]) -> bytes:
    """HPACK: each a literal that is not kept."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, out = len(data) - 127, bytearray((127,))
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*out, rest)) + data
