"""HTTP/2's frames (RFC 9113): their numbers, how ours are written, and what ends a stream or a connection."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE: Final = 9
# Length (as its upper 16 bits and its lower 8), type, flags, stream.
HEAD: Final = Struct(">HBBBL")
SETTING: Final = Struct(">HL")
WINDOW_MAX: Final = (1 << 31) - 1
STREAM_MAX: Final = (1 << 31) - 1
# What holds until settings say otherwise.
WINDOW: Final = 65_535
FRAME: Final = 16_384
FRAME_MAX: Final = (1 << 24) - 1

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Code(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):
    """The connection ends."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code


class StreamFault(Exception):
    """One stream ends."""

    def __init__(self, stream: int, code: Code, why: str) -> None:
        super().__init__(why)
        self.stream = stream
        self.code = code


def head(length: int, kind: int, flags: int, stream: int) -> bytes:
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def settings(values: dict[Setting, int]) -> bytes:
    payload = b"".join(SETTING.pack(name, value) for name, value in values.items())
    return head(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK: Final = head(0, SETTINGS, ACK, 0)


def rst_stream(stream: int, code: Code) -> bytes:
    return head(4, RST_STREAM, 0, stream) + code.to_bytes(4, "big")


def ping(data: bytes, *, answer: bool = False) -> bytes:
    return head(8, PING, ACK if answer else 0, 0) + data


def goaway(last: int, code: Code, why: str = "") -> bytes:
    payload = last.to_bytes(4, "big") + code.to_bytes(4, "big") + why.encode()
    return head(len(payload), GOAWAY, 0, 0) + payload


def window_update(stream: int, more: int) -> bytes:
    return head(4, WINDOW_UPDATE, 0, stream) + more.to_bytes(4, "big")


def header_block(stream: int, block: bytes, most: int, *, end: bool) -> bytes:
    """HEADERS, and CONTINUATIONs where the block does not fit into one frame."""
    flags = END_STREAM if end else 0
    if len(block) <= most:
        return head(len(block), HEADERS, flags | END_HEADERS, stream) + block
    parts = [head(most, HEADERS, flags, stream), block[:most]]
    for start in range(most, len(block), most):
        part = block[start : start + most]
        last = END_HEADERS if start + most >= len(block) else 0
        parts += head(len(part), CONTINUATION, last, stream), part
    return b"".join(parts)


def without_padding(payload: bytes, flags: int) -> bytes:
    """What a DATA or HEADERS frame carries.  Raises ConnectionFault."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(Code.PROTOCOL_ERROR, "there is more padding than frame")
    return payload[1 : len(payload) - payload[0]]
