"""SPDY/3.1 as the runtime's streaming server speaks it."""

from __future__ import annotations

import asyncio
import struct
import zlib

from navarch.node.server import spdy


class _Writer:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None: ...


def test_the_dictionary_is_the_specifications() -> None:
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


async def test_a_stream_opens_with_compressed_headers_and_reads_to_its_end() -> None:
    reader, writer = asyncio.StreamReader(), _Writer()
    connection = spdy.Connection(reader, writer)  # type: ignore[arg-type]

    stream = await connection.open_stream({"streamType": "data"})

    version, kind, length = struct.unpack_from(">HHI", writer.data)
    assert (version, kind, length & 0xFFFFFF) == (0x8003, 1, len(writer.data) - 8)
    block = zlib.decompressobj(zdict=spdy.DICTIONARY).decompress(writer.data[18:])
    assert block == struct.pack(">II", 1, 10) + b"streamtype" + struct.pack(">I", 4) + b"data"
    reader.feed_data(struct.pack(">II", stream.id, 3) + b"abc" + struct.pack(">II", stream.id, 1 << 24 | 2) + b"de")
    reader.feed_eof()
    await connection.run()
    assert await stream.read_all() == b"abcde"


async def test_a_ping_is_answered() -> None:
    reader, writer = asyncio.StreamReader(), _Writer()
    connection = spdy.Connection(reader, writer)  # type: ignore[arg-type]
    ping = struct.pack(">HHII", 0x8003, 6, 4, 2)
    reader.feed_data(ping)
    reader.feed_eof()

    await connection.run()

    assert writer.data == ping
