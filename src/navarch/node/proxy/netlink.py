"""netfilter's netlink: one socket, its messages and attributes, as far as conntrack and nftables need them.

Answers to a message are in the socket's queue when `send` returns, because the kernel works within the call; so nothing
here waits for long, except where another process has the kernel's lock on its rules. Call it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

_NETLINK_NETFILTER: Final = 12
_DONE, _ERROR = 3, 2
_NESTED: Final = 0x8000
_FORCE_SEND_BUFFER: Final = 32
_HEADER: Final = struct.Struct("=IHHII")
REQUEST, ACK, DUMP, CREATE = 0x1, 0x4, 0x300, 0x400
_LIMIT_S: Final = 60

Message = tuple[int, int, bytes]
"""Type, flags, and the body after the header."""


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def nested(kind: int, data: bytes) -> bytes:
    return attribute(kind | _NESTED, data)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in a netlink message or in a nested attribute."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & ~_NESTED, data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def about(family: int, resource: int = 0) -> bytes:
    """What each of netfilter's messages begins with; `family` is 4, 6 or 0."""
    number = {4: socket.AF_INET, 6: socket.AF_INET6, 0: socket.AF_UNSPEC}[family]
    return struct.pack(">BBH", number, 0, resource)


class Netlink:
    """A socket in the network namespace of the thread that makes it.  Raises OSError where there is no netfilter."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.settimeout(_LIMIT_S)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        """Send one message and yield the body of each answer.  Raises OSError."""
        self._send([(kind, flags, body)])
        for answer, message in self._answers(self._sequence):
            if answer == _ERROR:
                refusal = _refusal(message)
                if refusal is not None:
                    raise refusal
                return
            yield message

    def batch(self, messages: Sequence[Message], end: Message) -> None:
        """Send messages and their `end` at once; the last one asks to be acknowledged.  Raises OSError."""
        self._send([*messages, end])
        last = self._sequence - 1
        for answer, message in self._answers(None):
            if answer == _ERROR:
                refusal = _refusal(message)
                if refusal is not None:
                    self._drain()
                    raise refusal
                if _HEADER.unpack_from(message, 4)[3] == last:
                    return

    def _drain(self) -> None:
        """Throw away what else was said of a batch: all of it is here by now."""
        self._socket.setblocking(False)
        try:
            with contextlib.suppress(BlockingIOError):
                while self._socket.recv(1 << 18):
                    pass
        finally:
            self._socket.settimeout(_LIMIT_S)

    def _send(self, messages: list[Message]) -> None:
        parts = []
        for kind, flags, body in messages:
            self._sequence += 1
            parts.append(_HEADER.pack(len(body) + 16, kind, REQUEST | flags, self._sequence, 0) + body)
        data = b"".join(parts)
        if len(data) > 100_000:
            self._socket.setsockopt(socket.SOL_SOCKET, _FORCE_SEND_BUFFER, 2 * len(data))
        self._socket.send(data)

    def _answers(self, sequence: int | None) -> Iterator[tuple[int, bytes]]:
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, answer, _, answered, _ = _HEADER.unpack_from(data, offset)
                message = data[offset + 16 : offset + length]
                offset += length + 3 & ~3
                if sequence is not None and answered != sequence:
                    continue
                if answer == _DONE:
                    return
                yield answer, message


def _refusal(message: bytes) -> OSError | None:
    code = -struct.unpack_from("=i", message)[0]
    return OSError(code, os.strerror(code)) if code else None
