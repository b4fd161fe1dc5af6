"""SPDY/3.1 as Kubernetes uses it for exec, attach and port-forward: many byte streams over one upgraded connection.

Only the client's side: container runtimes offer their streaming server in this protocol, and unlike their WebSocket it
can close standard input alone. There is no flow control of its own; the connection's is enough, because every stream is
read as it comes. https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from navarch.client.upgrade import switch

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS = 1, 2, 3, 4, 6, 7, 8
_FIN: Final = 1
_VERSION: Final = 0x8003
_CANCEL: Final = 5
_BUFFERED_CHUNKS: Final = 64
_MAX_DATA: Final = 64 << 10

# The header compressor's preset dictionary (section 2.6.10.1): words with their lengths, then plain text.
_WORDS: Final = (  # noqa: SIM905 - as the specification lists them
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
).split()
_TAIL: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 "
    "Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 "
    "Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept "
    "Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch"
    "charset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = [*_WORDS, "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
    return b"".join(struct.pack(">I", len(word)) + word.encode() for word in words) + _TAIL.encode()


DICTIONARY: Final = _dictionary()


class SPDYError(ConnectionError):
    """The peer refused the upgrade, or broke the protocol or the connection."""


class Stream:
    """One byte stream in each direction. `read` gives b"" at the end."""

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self._connection = connection
        self.id = stream_id
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(_BUFFERED_CHUNKS)
        self._ended = False

    async def read(self) -> bytes:
        """The next chunk, b"" when the peer has closed its side."""
        if self._ended:
            return b""
        chunk = await self._chunks.get()
        if not chunk:
            self._ended = True
        return chunk

    async def read_all(self) -> bytes:
        """Everything up to the end."""
        parts = []
        while chunk := await self.read():
            parts.append(chunk)
        return b"".join(parts)

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _MAX_DATA):
            await self._connection.send_data(self.id, data[start : start + _MAX_DATA], 0)

    async def close_write(self) -> None:
        """Tell the peer that nothing more is written; reading goes on."""
        await self._connection.send_data(self.id, b"", _FIN)

    async def reset(self) -> None:
        """Give the stream up."""
        await self._connection.send_control(_RST_STREAM, 0, struct.pack(">II", self.id, _CANCEL))

    async def received(self, chunk: bytes) -> None:
        await self._chunks.put(chunk)

    def ended(self) -> None:
        """The peer has closed its side, or the connection has gone."""
        # A full queue still has to give way to the end; its reader gets what is there first.
        if self._chunks.full():
            self._chunks._maxsize = 0  # type: ignore[attr-defined]
        self._chunks.put_nowait(b"")


class Connection:
    """The client's end of an upgraded connection; `run` reads it until it ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._streams: dict[int, Stream] = {}
        self._next_id = 1
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    async def open_stream(self, headers: Mapping[str, str]) -> Stream:
        """Open a stream; header names are sent in lower case, as the protocol has them."""
        stream = Stream(self, self._next_id)
        self._next_id += 2
        self._streams[stream.id] = stream
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                block += struct.pack(">I", len(text)) + text
        packed = self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        await self.send_control(_SYN_STREAM, 0, struct.pack(">IIBB", stream.id, 0, 0, 0) + packed)
        return stream

    async def send_control(self, kind: int, flags: int, payload: bytes) -> None:
        self._writer.write(struct.pack(">HHI", _VERSION, kind, flags << 24 | len(payload)) + payload)
        await self._drain()

    async def send_data(self, stream_id: int, data: bytes, flags: int) -> None:
        self._writer.write(struct.pack(">II", stream_id, flags << 24 | len(data)) + data)
        await self._drain()

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError as error:
            raise SPDYError(f"the stream was cut: {error}") from error

    async def run(self) -> None:
        """Read frames until the peer ends the connection; every stream ends then."""
        try:
            while True:
                header = await self._reader.readexactly(8)
                first, rest = struct.unpack(">II", header)
                flags, length = rest >> 24, rest & 0xFFFFFF
                payload = await self._reader.readexactly(length) if length else b""
                if first & 0x80000000:
                    await self._control(first & 0xFFFF, flags, payload)
                else:
                    await self._data(first & 0x7FFFFFFF, flags, payload)
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            for stream in self._streams.values():
                stream.ended()
            self._streams.clear()

    async def _data(self, stream_id: int, flags: int, payload: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if payload:
            await stream.received(payload)
        if flags & _FIN:
            self._end(stream_id)

    async def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _PING:
            await self.send_control(_PING, 0, payload)
        elif kind in (_SYN_REPLY, _HEADERS, _RST_STREAM):
            stream_id = struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF
            if kind != _RST_STREAM:
                # All blocks share one compressor, so each must be read even if nobody asks what it says.
                self._inflate.decompress(payload[4:])
            if kind == _RST_STREAM or flags & _FIN:
                self._end(stream_id)
        elif kind == _GOAWAY:
            for stream_id in list(self._streams):
                self._end(stream_id)

    def _end(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            stream.ended()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def upgrade(
    url: str, protocols: Sequence[str], *, upgrade_to: str = "SPDY/3.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """POST to a streaming URL and switch protocols; what follows on the connection is the protocol's own bytes.

    Raises SPDYError."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"Host: {parts.netloc}", "Connection: Upgrade", f"Upgrade: {upgrade_to}", "Content-Length: 0"]
    lines += [f"X-Stream-Protocol-Version: {protocol}" for protocol in protocols]
    try:
        answer = await switch(parts.hostname or "127.0.0.1", parts.port or 80, f"POST {path} HTTP/1.1", lines)
    except (OSError, TimeoutError) as error:
        raise SPDYError(f"error dialing backend: {error or 'timed out'}") from error
    if answer.status != 101:
        status = answer.head.split(b"\r\n", 1)[0].decode("latin-1")
        said = (await answer.refusal()).decode(errors="replace").strip()
        raise SPDYError(f"unable to upgrade connection: {said or status}")
    return answer.reader, answer.writer
