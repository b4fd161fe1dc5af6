"""One HTTP/2 connection of a client: many requests at a time, watches among them.

In: requests.  Out: their answers, as a whole (`ask`) or as they come (`follow`). What is asked in one turn of the loop
goes out together, as one TLS record and one system call; so do a server's events for all watches of the connection.

Invariant: of an answer that is followed no more is kept than `_ROOM` bytes that nobody has taken; a request that is
given up leaves nothing behind but what is remembered of headers. A server that has said nothing for long is asked
whether it is there, and the connection ends where it does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, cast

from navarch.client.connection import Answer, NoAnswerError, unpacked
from navarch.http2 import frames, hpack
from navarch.http2.frames import Code, ConnectionFault, Setting, StreamFault
from navarch.http2.receiving import BLOCK_MAX, FRAME_LIMIT, Receiver
from navarch.numbers import is_digits

# Bytes that a server may send without having been told to go on, of one answer and of all together.
_ROOM: Final = 1 << 20
_ROOM_OF_ALL: Final = 64 << 20
# A server that has said nothing for between one and two of these is asked, and has one to answer.
_LOOK_S: Final = 15.0
_PING: Final = b"there?.."


class NotLookedAtError(NoAnswerError):
    """The server says that it has done nothing with the request, which so may be sent again whatever it is."""


class Stream:
    """A request and its answer. `room` is what the server has room for, `ours` what it may still send."""

    __slots__ = ("answer", "body", "chunks", "ended", "error", "headers", "id", "ours", "room", "status", "waiter")

    def __init__(self, number: int, room: int, answer: asyncio.Future[Answer] | None) -> None:
        self.id = number
        self.room = room
        self.ours = _ROOM
        # Of the request's body, what has not been sent.
        self.body: memoryview | None = None
        # Of an answer that is wanted as a whole.
        self.answer = answer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.ended = False
        self.error: Exception | None = None
        self.waiter: asyncio.Future[None] | None = None


class Connection(asyncio.Protocol):
    """The protocol of a transport whose two ends have agreed on HTTP/2. It can be asked once it is `ready`, for as long
    as it `has_room`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.ready: asyncio.Future[None] = loop.create_future()
        self.used = False
        self.closed = False
        # No more requests: it is to end, or the server is slow to answer.
        self._leaving = False
        self._receiver = Receiver(self, preface=False)
        self._decoder = hpack.Decoder(BLOCK_MAX)
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._transport: asyncio.Transport | None = None
        self._parts: list[bytes | memoryview] = []
        self._flushing: asyncio.Handle | None = None
        # What the server allows: streams at a time, bytes of each and of all, bytes of a frame.
        self._most = 100
        self._stream_room = frames.WINDOW
        self._room = frames.WINDOW
        self._frame = frames.FRAME
        self._ours = _ROOM_OF_ALL
        self._heard = True
        self._asked = False
        self._looking: asyncio.TimerHandle | None = None

    @property
    def has_room(self) -> bool:
        return not (self.closed or self._leaving) and len(self._streams) < self._most

    # Asking

    async def ask(self, block: bytes, body: bytes, timeout_s: float) -> Answer:
        """Send a request (`block`: of `request_block`), return the answer.  Raises ConnectionError (NoAnswerError),
        TimeoutError."""
        answer: asyncio.Future[Answer] = self._loop.create_future()
        stream = self._send(block, body, answer)
        expiry = self._loop.call_later(timeout_s, self._expire, stream)
        try:
            return await answer
        finally:
            expiry.cancel()
            self._give_up(stream)

    async def follow(self, block: bytes, timeout_s: float) -> tuple[int, dict[str, str], Chunks]:
        """Send a request without a body; return status, headers and what comes of the body, which has to be closed.
        Raises as `ask`, where no head comes in time."""
        stream = self._send(block, b"", None)
        chunks = Chunks(self, stream)
        try:
            async with asyncio.timeout(timeout_s):
                while not stream.status:
                    if stream.error is not None:
                        raise stream.error
                    await chunks.wait()
        except BaseException:
            self._give_up(stream)
            raise
        return stream.status, stream.headers, chunks

    def retire(self) -> None:
        """Take no more requests, and end with the last of those that there are."""
        self._leaving = True
        self._end_if_done()

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _send(self, block: bytes, body: bytes, answer: asyncio.Future[Answer] | None) -> Stream:
        if not self.has_room:
            raise NotLookedAtError("the connection is closed")
        stream = Stream(self._next, self._stream_room, answer)
        self._next += 2
        if self._next > frames.STREAM_MAX:
            self._leaving = True
        self._streams[stream.id] = stream
        self.used = True
        self._write(frames.header_block(stream.id, block, self._frame, end=not body))
        if body:
            stream.body = memoryview(body)
            self._send_body(stream)
        return stream

    def _send_body(self, stream: Stream) -> None:
        """As much as the server has room for."""
        left = stream.body
        while left:
            size = min(len(left), self._room, stream.room, self._frame)
            if size <= 0:
                break
            self._room -= size
            stream.room -= size
            last = size == len(left)
            self._write(frames.head(size, frames.DATA, frames.END_STREAM if last else 0, stream.id))
            self._parts.append(left[:size])
            left = left[size:]
        stream.body = left or None

    def _write(self, data: bytes) -> None:
        """Goes out at the end of this turn of the loop."""
        self._parts.append(data)
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = None
        parts, self._parts = self._parts, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(parts) if len(parts) > 1 else parts[0])

    # Giving up

    def _expire(self, stream: Stream) -> None:
        # Others may wait in vain as well; whoever asks next does so elsewhere.
        self._leaving = True
        self._fail(stream, TimeoutError("no answer in time"))

    def _give_up(self, stream: Stream) -> None:
        """Nobody wants any more of it."""
        if self._streams.pop(stream.id, None) is None:
            return
        if not self.closed:
            self._write(frames.rst_stream(stream.id, Code.CANCEL))
            self._end_if_done()

    def _fail(self, stream: Stream, error: Exception) -> None:
        stream.error = error
        stream.ended = True
        if stream.answer is not None:
            if not stream.answer.done():
                stream.answer.set_exception(error)
        else:
            _wake(stream)

    def _drop(self, stream: Stream, error: Exception) -> None:
        """The server has ended it."""
        self._streams.pop(stream.id, None)
        self._fail(stream, error)

    def _end_if_done(self) -> None:
        if self._leaving and not self._streams and not self.closed:
            self.closed = True
            if self._transport is not None:
                if self._flushing is not None:
                    self._flushing.cancel()
                    self._flush()
                self._transport.close()

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        said = {
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: _ROOM,
            Setting.MAX_FRAME_SIZE: FRAME_LIMIT,
            Setting.MAX_HEADER_LIST_SIZE: BLOCK_MAX,
        }
        more = frames.window_update(0, _ROOM_OF_ALL - frames.WINDOW)
        self._transport.write(frames.PREFACE + frames.settings(said) + more)
        self._looking = self._loop.call_later(_LOOK_S, self._look)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._looking is not None:
            self._looking.cancel()
        if self._flushing is not None:
            self._flushing.cancel()
        why = str(error or "the server closed the connection")
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))
        streams = list(self._streams.values())
        self._streams.clear()
        for stream in streams:
            if stream.status:
                self._fail(stream, ConnectionError(f"the connection ended in the middle of an answer: {why}"))
            else:
                self._fail(stream, NoAnswerError(why))

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self.closed:
            return
        try:
            self._receiver.feed(data)
        except ConnectionFault as fault:
            self._break_off(fault.code, str(fault))

    def _break_off(self, code: Code, why: str) -> None:
        if self._transport is not None:
            self._transport.write(frames.goaway(0, code, why))
        self.close()

    def _look(self) -> None:
        """See whether the server is there."""
        self._looking = self._loop.call_later(_LOOK_S, self._look)
        if self._heard:
            self._heard = self._asked = False
        elif self._asked:
            self.close()
        elif self._streams:
            self._asked = True
            self._write(frames.ping(_PING))

    # What the receiver calls

    def headers(self, number: int, block: bytes, end: bool) -> None:
        try:
            fields = self._decoder.decode(block)
        except (hpack.CompressionError, hpack.FarTooLong) as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, str(error)) from None
        stream = self._streams.get(number)
        if stream is None:
            return
        if not stream.status:
            self._begin(stream, fields)
        if end:
            self._end(stream)

    def _begin(self, stream: Stream, fields: list[hpack.Field] | None) -> None:
        headers: dict[str, str] = {}
        for name, value, _ in fields or ():
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        status = headers.pop(":status", "")
        if len(status) != 3 or not is_digits(status):
            raise StreamFault(stream.id, Code.PROTOCOL_ERROR, "the answer has no status")
        if status[0] != "1":
            stream.status, stream.headers = int(status), headers
            _wake(stream)

    def data(self, number: int, payload: bytes, size: int, end: bool) -> None:
        self._ours -= size
        if self._ours < _ROOM_OF_ALL // 2:
            self._write(frames.window_update(0, _ROOM_OF_ALL - self._ours))
            self._ours = _ROOM_OF_ALL
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.ours -= size
        if stream.ours < 0 or not stream.status:
            raise StreamFault(number, Code.FLOW_CONTROL_ERROR, "more is sent than was asked for")
        if payload:
            stream.chunks.append(payload)
        if end:
            self._end(stream)
        elif stream.answer is not None:
            self._make_room(stream)
        else:
            _wake(stream)

    def _make_room(self, stream: Stream) -> None:
        if stream.ours < _ROOM // 2:
            self._write(frames.window_update(stream.id, _ROOM - stream.ours))
            stream.ours = _ROOM

    def taken(self, stream: Stream) -> None:
        """What has come of it has been taken."""
        if not (stream.ended or self.closed):
            self._make_room(stream)

    def _end(self, stream: Stream) -> None:
        del self._streams[stream.id]
        stream.ended = True
        if not stream.status:
            self._fail(stream, ConnectionError("the answer has no status"))
        elif stream.answer is None:
            _wake(stream)
        elif not stream.answer.done():
            try:
                body = unpacked(stream.headers, b"".join(stream.chunks))
            except ValueError as error:
                self._fail(stream, ConnectionError(f"the answer cannot be read: {error}"))
            else:
                stream.answer.set_result(Answer(stream.status, stream.headers, body))
        if stream.body is not None and not self.closed:
            # The answer did not wait for all of the request.
            self._write(frames.rst_stream(stream.id, Code.NO_ERROR))
        self._end_if_done()

    def window_update(self, number: int, more: int) -> None:
        if number:
            stream = self._streams.get(number)
            if stream is not None:
                stream.room += more
                self._send_body(stream)
            return
        self._room += more
        for stream in self._streams.values():
            if stream.body is not None:
                self._send_body(stream)

    def reset(self, number: int, code: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if code == Code.REFUSED_STREAM:
            self._drop(stream, NotLookedAtError("the server has too much to do on this connection"))
        elif stream.status:
            self._drop(stream, ConnectionError(f"the server broke off its answer ({code})"))
        else:
            self._drop(stream, NoAnswerError(f"the server broke off the request ({code})"))
        self._end_if_done()

    def settings(self, values: list[tuple[int, int]]) -> None:
        for name, value in values:
            if name == Setting.MAX_CONCURRENT_STREAMS:
                self._most = value
            elif name == Setting.MAX_FRAME_SIZE:
                self._frame = min(max(value, frames.FRAME), FRAME_LIMIT)
            elif name == Setting.INITIAL_WINDOW_SIZE:
                change, self._stream_room = value - self._stream_room, value
                for stream in self._streams.values():
                    stream.room += change
                    self._send_body(stream)
        self._write(frames.SETTINGS_ACK)
        if not self.ready.done():
            self.ready.set_result(None)

    def settled(self) -> None:
        pass

    def ping(self, data: bytes) -> None:
        self._write(frames.ping(data, answer=True))

    def pong(self, data: bytes) -> None:
        pass

    def goes_away(self, last: int, code: int) -> None:
        self._leaving = True
        for stream in [stream for stream in self._streams.values() if stream.id > last]:
            self._drop(stream, NotLookedAtError("the server is leaving"))
        self._end_if_done()

    def idle_frame(self) -> None:
        pass

    def stream_fault(self, fault: StreamFault) -> None:
        self._write(frames.rst_stream(fault.stream, fault.code))
        stream = self._streams.get(fault.stream)
        if stream is not None:
            self._drop(stream, ConnectionError(f"the answer is no HTTP/2: {fault}"))


class Chunks:
    """What comes of an answer's body, as it comes; a server that goes away in the middle ends it."""

    def __init__(self, connection: Connection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        stream = self._stream
        while not stream.chunks:
            if stream.ended:
                raise StopAsyncIteration
            await self.wait()
        chunks, stream.chunks = stream.chunks, []
        self._connection.taken(stream)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def wait(self) -> None:
        """Until there is something new."""
        stream = self._stream
        stream.waiter = asyncio.get_running_loop().create_future()
        try:
            await stream.waiter
        finally:
            stream.waiter = None

    async def aclose(self) -> None:
        stream = self._stream
        stream.ended = True
        stream.chunks.clear()
        self._connection._give_up(stream)


def _wake(stream: Stream) -> None:
    waiter = stream.waiter
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


@lru_cache(maxsize=256)
def _fields(fields: tuple[tuple[str, str], ...]) -> bytes:
    for name, value in fields:
        _check(name + value)
    return b"".join([hpack.literal(name.lower(), value) for name, value in fields])


def request_block(method: str, authority: str, path: str, headers: Mapping[str, str], length: int) -> bytes:
    """The header block of a request whose body has so many bytes; -1 for none.  Raises ValueError where a line break
    would make more of it than was meant."""
    _check(path)
    block = _fields(((":method", method), (":scheme", "https"), (":authority", authority)))
    block += hpack.literal(":path", path) + _fields(tuple(headers.items()))
    return block + hpack.literal("content-length", str(length)) if length >= 0 else block


def _check(text: str) -> None:
    if "\n" in text or "\r" in text or "\0" in text:
        raise ValueError("a line break in a request's path or headers")
