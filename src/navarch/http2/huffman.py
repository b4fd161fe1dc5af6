"""HPACK's Huffman code (RFC 7541, appendix B), read a byte at a time.

The code is canonical, so that its lengths say all of it. An automaton whose states are the inner nodes of the tree
takes whole bytes: for a state and a byte it says which text comes out and which state follows. Its transitions are made
when they are first needed; clients' texts need some hundreds of the 65,536.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

# The symbols of each length, in order.
_SYMBOLS: Final = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: bytes.fromhex("5cc3d0"),
    20: bytes.fromhex("808283a2b8c2e0e2"),
    21: bytes.fromhex("99a1a7acb0b1b3d1d8d9e3e5e6"),
    22: bytes.fromhex("8184858688929a9ca0a3a4a9aaadb2b5b9babbbdbec4c6e4e8e9"),
    23: bytes.fromhex("0187898a8b8c8d8f93959697989b9d9ea5a6a8aeafb4b6b7bcbfc5e7ef"),
    24: bytes.fromhex("098e9091949fabced7e1eced"),
    25: bytes.fromhex("c7cfeaeb"),
    26: bytes.fromhex("c0c1c8c9cacdd2d5dadbeef0f2f3ff"),
    27: bytes.fromhex("cbccd3d4d6dddedff1f4f5f6f7f8fafbfcfdfe"),
    28: bytes.fromhex("020304050607080b0c0e0f1011121314151718191a1b1c1d1e1f7fdcf9"),
    30: bytes.fromhex("0a0d16"),
}
# Never sent; the beginning of its code fills up the last byte.
_END_OF_STRING: Final = 256
# Bytes of a text whose meaning is remembered: 30 characters.
_BEGINNING: Final = 24


class _Tree:
    """Inner nodes are pairs of what follows a 0 and a 1: a node's number, or a symbol as its complement."""

    def __init__(self) -> None:
        self.nodes: list[list[int | None]] = [[None, None]]
        code, before = 0, 5
        for length, symbols in _SYMBOLS.items():
            for symbol in symbols:
                code <<= length - before
                before = length
                self._put(code, length, symbol)
                code += 1
        self._put(code, before, _END_OF_STRING)
        # Where a text may end: at most seven bits, all ones, have come since the last symbol.
        self.final = {0}
        node = 0
        for _ in range(7):
            following = self.nodes[node][1]
            assert following is not None
            node = following
            self.final.add(node)

    def _put(self, code: int, length: int, symbol: int) -> None:
        node = 0
        for position in range(length - 1, 0, -1):
            bit = code >> position & 1
            following = self.nodes[node][bit]
            if following is None:
                following = len(self.nodes)
                self.nodes[node][bit] = following
                self.nodes.append([None, None])
            node = following
        self.nodes[node][code & 1] = ~symbol


_tree: Final = _Tree()


class _State(dict[int, "tuple[_State, bytes]"]):
    """By the next byte, the state that follows and what comes out."""

    __slots__ = ("node",)

    def __init__(self, node: int) -> None:
        super().__init__()
        self.node = node

    def __missing__(self, byte: int) -> tuple[_State, bytes]:
        node, text = self.node, bytearray()
        for position in range(7, -1, -1):
            following = _tree.nodes[node][byte >> position & 1]
            if following is None or following == ~_END_OF_STRING:
                raise ValueError("a text has the end of string within")
            if following < 0:
                text.append(~following)
                following = 0
            node = following
        self[byte] = made = (_states[node], bytes(text))
        return made


_states: Final = [_State(node) for node in range(len(_tree.nodes))]


def _run(state: _State, data: bytes) -> tuple[_State, bytes]:
    parts: list[bytes] = []
    add = parts.append
    for byte in data:
        state, text = state[byte]
        add(text)
    return state, b"".join(parts)


@lru_cache(maxsize=1024)
def _beginning(data: bytes) -> tuple[_State, bytes]:
    return _run(_states[0], data)


def decode(data: bytes) -> bytes:
    """Raises ValueError."""
    if len(data) > _BEGINNING:
        # Paths are the long texts that are new each time, and begin alike.
        state, begun = _beginning(data[:_BEGINNING])
        state, text = _run(state, data[_BEGINNING:])
        text = begun + text
    else:
        state, text = _run(_states[0], data)
    if state.node not in _tree.final:
        raise ValueError("a text ends within a symbol")
    return text
