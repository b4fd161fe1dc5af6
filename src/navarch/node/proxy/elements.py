"""Changes of sets and maps, sent to the kernel without `nft`: one batch, which is one transaction.

`nft` reads the whole table before it changes it and is a process; a batch of our own costs what it changes. Keys and
values are the words that are in scripts for nft, too; `rules.SETS` says what they stand for.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from navarch.node.proxy.base import ProxierConfig
from navarch.node.proxy.netlink import ACK, CREATE, Message, Netlink, about, attribute, nested
from navarch.node.proxy.rules import declared

_SUBSYSTEM: Final = 10
_BEGIN, _END = 0x10, 0x11
_NEW, _DELETE = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_TABLE, _SET, _ELEMENTS, _ELEMENT = 1, 2, 3, 1
_KEY, _DATA = 1, 2
_VALUE, _VERDICT = 1, 2
_CODE, _CHAIN = 1, 2
_CODES: Final = {"goto": -4, "jump": -3, "drop": 0}
_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
# A nested attribute has 64 kB at most, an element of two IPv6 addresses and a chain's name about 200 bytes.
_PER_MESSAGE: Final = 250


@dataclass(slots=True)
class ElementChanges:
    """By set or map: keys that go, and keys with values (empty in a set) that come. Who changes goes and comes."""

    removed: dict[str, list[str]] = field(default_factory=dict)
    added: dict[str, dict[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.removed or self.added)

    def script(self, table: ProxierConfig) -> list[str]:
        """The same for nft."""
        at = f"{table.ip} {table.name}"
        lines = [f"delete element {at} {where} {{ {', '.join(keys)} }}" for where, keys in self.removed.items()]
        for where, entries in self.added.items():
            texts = [f"{key} : {value}" if value else key for key, value in entries.items()]
            lines.append(f"add element {at} {where} {{ {', '.join(texts)} }}")
        return lines


def apply_elements(netlink: Netlink, table: ProxierConfig, changes: ElementChanges) -> None:
    """All of it or nothing.  Raises OSError."""
    messages = list(_messages(table, changes))
    kind, flags, body = messages[-1]
    messages[-1] = kind, flags | ACK, body
    edge = about(0, _SUBSYSTEM)
    netlink.batch([(_BEGIN, 0, edge), *messages], (_END, 0, edge))


def _messages(table: ProxierConfig, changes: ElementChanges) -> Iterator[Message]:
    for where, keys in changes.removed.items():
        fields = declared(where).key
        yield from _lists(table, where, _DELETE, 0, [nested(_KEY, _data(fields, key)) for key in keys])
    for where, entries in changes.added.items():
        made = declared(where)
        elements = []
        for key, value in entries.items():
            element = nested(_KEY, _data(made.key, key))
            if made.value:
                element += nested(_DATA, _data(made.value, value))
            elements.append(element)
        yield from _lists(table, where, _NEW, CREATE, elements)


def _lists(table: ProxierConfig, where: str, kind: int, flags: int, elements: Sequence[bytes]) -> Iterator[Message]:
    head = about(table.family) + attribute(_TABLE, _text(table.name)) + attribute(_SET, _text(where))
    for start in range(0, len(elements), _PER_MESSAGE):
        listed = b"".join(nested(_ELEMENT, each) for each in elements[start : start + _PER_MESSAGE])
        yield kind, flags, head + nested(_ELEMENTS, listed)


def _data(fields: Sequence[str], text: str) -> bytes:
    """A key or a value. Each field of a concatenation begins at a multiple of four bytes."""
    if fields == ("verdict",):
        word, _, chain = text.partition(" ")
        code = attribute(_CODE, struct.pack(">i", _CODES[word]))
        return nested(_VERDICT, code + (attribute(_CHAIN, _text(chain)) if chain else b""))
    return attribute(_VALUE, b"".join(map(_field, fields, text.split(" . "))))


def _field(kind: str, word: str) -> bytes:
    if kind == "address":
        return socket.inet_pton(socket.AF_INET6 if ":" in word else socket.AF_INET, word)
    if kind == "protocol":
        return struct.pack("B3x", _PROTOCOLS[word])
    return struct.pack(">H2x", int(word))


def _text(word: str) -> bytes:
    return word.encode() + b"\0"
