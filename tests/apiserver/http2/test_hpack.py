"""Header compression, against the library hpack, which is not ours."""

from __future__ import annotations

import hpack as peer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.http2 import hpack, huffman

NAMES = st.sampled_from([":path", ":authority", "accept", "user-agent", "authorization", "x-a", "x-b", "cookie"])
VALUES = st.one_of(
    st.sampled_from(["", "a", "gzip", "application/json", "x" * 900]),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=40).map(lambda text: text.strip(" \t")),
)
LISTS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=12)
BLOCKS = st.lists(st.tuples(LISTS, st.booleans(), st.sampled_from([None, 0, 60, 1000, 4096])), min_size=1, max_size=8)


@given(BLOCKS)
@settings(max_examples=150, deadline=None)
def test_what_another_writes_is_read(
    blocks: list[tuple[list[tuple[str, str, bool]], bool, int | None]],
) -> None:
    encoder, decoder = peer.Encoder(), hpack.Decoder(1 << 20)
    for fields, packed, table in blocks:
        if table is not None:
            encoder.header_table_size = table
        block = encoder.encode(
            [
                peer.NeverIndexedHeaderTuple(name, value) if secret else peer.HeaderTuple(name, value)
                for name, value, secret in fields
            ],
            huffman=packed,
        )
        read = decoder.decode(block)
        assert read is not None
        assert [(name, value) for name, value, _ in read] == [(name, value) for name, value, _ in fields]
        assert decoder._size <= hpack.TABLE_MAX


@given(LISTS, st.integers(100, 599))
@settings(max_examples=100, deadline=None)
def test_what_we_write_is_read_by_another(fields: list[tuple[str, str, bool]], status: int) -> None:
    block = hpack.NOTHING_REMEMBERED + hpack.status(status)
    block += b"".join(hpack.literal(name, value) for name, value, _ in fields)

    read = peer.Decoder().decode(block)

    assert [tuple(field) for field in read] == [(":status", str(status)), *((n, v) for n, v, _ in fields)]


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_anything_is_read_or_refused(block: bytes) -> None:
    decoder = hpack.Decoder(10_000)
    for _ in range(2):
        try:
            fields = decoder.decode(block)
        except hpack.CompressionError as error:
            why = str(error)
            assert why
            return
        except hpack.FarTooLong:
            # Of so few bytes only references to long entries can make so much.
            assert len(block) > 1
            return
        assert sum(size for _, _, size in fields or ()) <= 10_000


@given(st.binary(max_size=100))
@settings(max_examples=200, deadline=None)
def test_texts_are_unpacked_as_another_packs_them(data: bytes) -> None:
    packed = peer.huffman.HuffmanEncoder(
        peer.huffman_constants.REQUEST_CODES, peer.huffman_constants.REQUEST_CODES_LENGTH
    ).encode(data)

    assert huffman.decode(packed) == data


@pytest.mark.parametrize("data", [b"\xff", b"\x00\x00", b"\xff\xff\xff\xff", b"\x07\xff", b"\x1f\xff\xff"])
def test_a_text_that_does_not_end_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^a text (ends within a symbol|has the end of string within)$"):
        huffman.decode(data)
