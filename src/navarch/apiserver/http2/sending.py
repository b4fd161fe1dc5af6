"""What goes to a client: frames gathered per turn of the loop, bodies as far as its windows and its reading let them.

Answers of many streams that are ready in one turn go out as one TLS record and one system call. A body waits in its
stream's task: until the client has room for it on the stream and on the connection, and until what was sent before has
left. Who has made no room for `STALLED_S` is cut off: one stream, or all of a connection that does not read at all.
"""

from __future__ import annotations

import asyncio
from typing import Final

from navarch.apiserver.connection import STALLED_S
from navarch.apiserver.http2.allowance import Allowance
from navarch.client.transport import Request
from navarch.http2 import frames
from navarch.http2.frames import Code, ConnectionFault, StreamFault
from navarch.records import mutable

# Bytes of bodies that go out before others have their turn.
_AT_ONCE: Final = 256 << 10
# What waits in the transport: the rest waits as objects, which all readers share.
_BUFFER: Final = 64 << 10


@mutable(eq=False)
class Stream:
    """A request and its answer. `window` is what the client has room for, `room` what we have."""

    id: int
    window: int
    room: int
    request: Request
    # The length of the body that is stated, or -1; what has come of it; since when it has been awaited.
    length: int
    # By what its head is counted, if it is a long one.
    long_head: object | None = None
    body: bytearray | None = None
    began_s: float = 0.0
    # Whether the client may still send, and whether we may.
    open_in: bool = True
    open_out: bool = True
    # Whether its task has begun, and whether it is sending by now.
    begun: bool = False
    sending: bool = False
    task: asyncio.Task[None] | None = None
    waiter: asyncio.Future[None] | None = None


class Gone(ConnectionError):
    """Nobody reads this stream any more."""


class Sender:
    """One connection's way out."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, allowance: Allowance) -> None:
        self._transport = transport
        self._loop = loop
        self._allowance = allowance
        self._parts: list[bytes | memoryview] = []
        # Bytes of bodies among them.
        self._gathered = 0
        self._flushing: asyncio.Handle | None = None
        self._paused = False
        self._cut: asyncio.TimerHandle | None = None
        # What the client has room for, on the connection and on a new stream, and how long its frames may be.
        self._window = frames.WINDOW
        self.stream_window = frames.WINDOW
        self._frame = frames.FRAME
        transport.set_write_buffer_limits(_BUFFER)

    # Frames

    def write(self, data: bytes) -> None:
        """Goes out at the end of this turn of the loop."""
        self._parts.append(data)
        if self._flushing is None:
            self._flushing = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._parts:
            parts, self._parts, self._gathered = self._parts, [], 0
            if not self._transport.is_closing():
                self._transport.write(b"".join(parts) if len(parts) > 1 else parts[0])

    def block(self, stream: Stream, block: bytes, *, end: bool) -> None:
        self.write(frames.header_block(stream.id, block, self._frame, end=end))

    # Bodies

    def at_once(self, stream: Stream, block: bytes, body: bytes) -> bool:
        """A whole answer with a body, if the client has room for it now."""
        size = len(body)
        if self._paused or size > self._frame or size > self._window or size > stream.window:
            return False
        self._window -= size
        stream.window -= size
        self._allowance.earn(size)
        self.block(stream, block, end=False)
        self._parts += frames.head(size, frames.DATA, frames.END_STREAM, stream.id), body
        return True

    async def body(self, stream: Stream, body: bytes, *, end: bool) -> None:
        """Send a body or a piece of it, as the client makes room.  Raises Gone, TimeoutError."""
        left = memoryview(body)
        if not left:
            await self._ready(stream)
            if end:
                self.write(frames.head(0, frames.DATA, frames.END_STREAM, stream.id))
            return
        while left:
            await self._ready(stream)
            size = min(len(left), self._window, stream.window, _AT_ONCE)
            if size <= 0:
                await self._wait(stream)
                continue
            self._window -= size
            stream.window -= size
            self._allowance.earn(size)
            now, left = left[:size], left[size:]
            self._data(stream.id, now, end=end and not left)
            self._gathered += size
            if self._gathered > _BUFFER:
                # The transport says at once whether it has enough: what follows, such as all that waits for a watch,
                # may be ready in this same turn.
                self.flush()

    def _data(self, stream: int, data: memoryview, *, end: bool) -> None:
        frame = self._frame
        for start in range(0, len(data), frame):
            part = data[start : start + frame]
            flags = frames.END_STREAM if end and start + frame >= len(data) else 0
            self.write(frames.head(len(part), frames.DATA, flags, stream))
            self._parts.append(part)

    async def _ready(self, stream: Stream) -> None:
        while self._paused:
            await self._wait(stream)
        if not stream.open_out:
            raise Gone("the client does not want it any more")

    async def _wait(self, stream: Stream) -> None:
        """Until there may be room."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        stream.waiter = waiter
        stalled = self._loop.call_later(STALLED_S, _stall, waiter)
        try:
            await waiter
        finally:
            stalled.cancel()
            stream.waiter = None

    # Room

    def room(self, stream: Stream, more: int) -> None:
        """Raises StreamFault."""
        stream.window += more
        if stream.window > frames.WINDOW_MAX:
            raise StreamFault(stream.id, Code.FLOW_CONTROL_ERROR, "a window is too big")
        wake(stream)

    def connection_room(self, more: int) -> None:
        """Raises ConnectionFault."""
        self._window += more
        if self._window > frames.WINDOW_MAX:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "the connection's window is too big")

    def settings(self, values: list[tuple[int, int]]) -> int:
        """Take over what a client says; returns by how much the windows of open streams change.  Raises
        ConnectionFault."""
        before = self.stream_window
        for name, value in values:
            if name == frames.Setting.INITIAL_WINDOW_SIZE:
                if value > frames.WINDOW_MAX:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window is too big")
                self.stream_window = value
            elif name == frames.Setting.MAX_FRAME_SIZE:
                if not frames.FRAME <= value <= frames.FRAME_MAX:
                    raise ConnectionFault(Code.PROTOCOL_ERROR, "there are no frames of that size")
                self._frame = min(value, _AT_ONCE)
            elif name == frames.Setting.ENABLE_PUSH and value > 1:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a switch is neither on nor off")
        return self.stream_window - before

    def pause(self) -> None:
        """The client does not read fast enough."""
        self._paused = True
        if self._cut is None:
            self._cut = self._loop.call_later(STALLED_S, self._transport.abort)

    def resume(self) -> None:
        self._paused = False
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def close(self) -> None:
        self.resume()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._parts = []


def wake(stream: Stream) -> None:
    waiter = stream.waiter
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _stall(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError("the client makes no room"))
