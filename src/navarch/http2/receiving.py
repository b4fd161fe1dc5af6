"""Bytes of a connection to frames: their sizes, their order, and header blocks put together.

In: what came, in any pieces.  Out: one call of the `Receiver`'s owner per whole frame or header block, whose form is
right; what it means is the owner's.

Invariant: what is kept is less than one frame of `FRAME_LIMIT` bytes and one header block of `BLOCK_MAX` bytes; a byte
is looked at once, however small the pieces are.
"""

from __future__ import annotations

from typing import Final, Protocol

from navarch.http2 import frames
from navarch.http2.frames import Code, ConnectionFault, StreamFault

# As Kubernetes says it in its settings: most requests are one DATA frame.
FRAME_LIMIT: Final = 256 << 10
# Of a header block: as Kubernetes has it.
BLOCK_MAX: Final = 1 << 20
# A client that cuts a block smaller than frames may be, does so on purpose.
_CONTINUATIONS_MAX: Final = 2 * BLOCK_MAX // frames.FRAME
_PRIORITY_SIZE: Final = 5
_HAS_STREAM: Final = frozenset({
    frames.DATA, frames.HEADERS, frames.PRIORITY, frames.RST_STREAM, frames.PUSH_PROMISE, frames.CONTINUATION,
})  # fmt: skip
_HAS_NO_STREAM: Final = frozenset({frames.SETTINGS, frames.PING, frames.GOAWAY})
_SIZES: Final = {frames.PRIORITY: 5, frames.RST_STREAM: 4, frames.PING: 8, frames.WINDOW_UPDATE: 4}


class Owner(Protocol):
    """Each may raise ConnectionFault and StreamFault."""

    def headers(self, stream: int, block: bytes, end: bool) -> None: ...

    def data(self, stream: int, payload: bytes, size: int, end: bool) -> None:
        """`size` is what the frame takes of the windows."""
        ...

    def window_update(self, stream: int, more: int) -> None: ...

    def reset(self, stream: int, code: int) -> None: ...

    def settings(self, values: list[tuple[int, int]]) -> None: ...

    def settled(self) -> None:
        """Our settings are known."""
        ...

    def ping(self, data: bytes) -> None: ...

    def pong(self, data: bytes) -> None: ...

    def goes_away(self, last: int, code: int) -> None: ...

    def idle_frame(self) -> None:
        """A frame that asks for nothing."""
        ...

    def stream_fault(self, fault: StreamFault) -> None: ...


class Receiver:
    """One connection's end; with `preface` that of the server, whose client begins with one."""

    __slots__ = ("_block", "_block_end", "_block_parts", "_block_stream", "_need", "_owner", "_partial", "_settled",
                 "progress")  # fmt: skip

    def __init__(self, owner: Owner, *, preface: bool = True) -> None:
        self._owner = owner
        # What came of a frame that is not whole yet, and how much of it there must be to go on.
        self._partial = bytearray()
        self._need = len(frames.PREFACE) if preface else frames.HEAD_SIZE
        self._settled = False
        # The header block that CONTINUATIONs go on with.
        self._block = bytearray()
        self._block_stream = 0
        self._block_end = False
        self._block_parts = 0
        # Frames and header blocks that were whole, and the preface.
        self.progress = 0 if preface else 1

    @property
    def waits(self) -> bool:
        """Whether something has begun to come that is not whole."""
        return bool(self._partial or self._block_stream)

    @property
    def held(self) -> int:
        """Bytes of what has begun to come."""
        return len(self._partial) + len(self._block)

    def feed(self, data: bytes) -> None:
        """Raises ConnectionFault."""
        if self._partial:
            self._partial += data
            if len(self._partial) < self._need:
                return
            data = bytes(self._partial)
            self._partial.clear()
        at = 0
        if not self.progress:
            at = self._preface(data)
            if not at:
                return
        end, unpack = len(data), frames.HEAD.unpack_from
        while end - at >= frames.HEAD_SIZE:
            upper, lower, kind, flags, stream = unpack(data, at)
            length = upper << 8 | lower
            if length > FRAME_LIMIT:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame is longer than the settings allow")
            start = at + frames.HEAD_SIZE
            if end - start < length:
                self._need = frames.HEAD_SIZE + length
                self._partial += data[at:]
                return
            at = start + length
            try:
                self._frame(kind, flags, stream & frames.STREAM_MAX, data[start:at])
            except StreamFault as fault:
                self._owner.stream_fault(fault)
        if at < end:
            self._need = frames.HEAD_SIZE
            self._partial += data[at:]

    def _preface(self, data: bytes) -> int:
        size = len(frames.PREFACE)
        if data[:size] != frames.PREFACE[: len(data)]:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "this is no HTTP/2")
        if len(data) < size:
            self._partial += data
            return 0
        self.progress += 1
        return size

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block_stream and (kind != frames.CONTINUATION or stream != self._block_stream):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block is not continued")
        if kind == frames.CONTINUATION:
            self._continuation(flags, payload)
            return
        self.progress += 1
        if kind == frames.HEADERS and stream and self._settled:
            self._headers(flags, stream, payload)
        elif kind == frames.DATA and stream and self._settled:
            end = flags & frames.END_STREAM
            self._owner.data(stream, frames.without_padding(payload, flags), len(payload), bool(end))
        else:
            self._check(kind, stream, len(payload))
            self._other(kind, flags, stream, payload)

    def _check(self, kind: int, stream: int, size: int) -> None:
        if not self._settled and kind != frames.SETTINGS:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the settings do not come first")
        if (not stream and kind in _HAS_STREAM) or (stream and kind in _HAS_NO_STREAM):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a frame has a stream where it must not, or none")
        if size != _SIZES.get(kind, size):
            if kind == frames.PRIORITY:
                raise StreamFault(stream, Code.FRAME_SIZE_ERROR, "a frame has not the size of its kind")
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame has not the size of its kind")

    def _other(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        owner = self._owner
        if kind == frames.WINDOW_UPDATE:
            more = int.from_bytes(payload, "big") & frames.WINDOW_MAX
            if not more:
                raise _fault(stream, Code.PROTOCOL_ERROR, "a window grows by nothing")
            owner.window_update(stream, more)
        elif kind == frames.SETTINGS:
            self._settings(flags, payload)
        elif kind == frames.PING:
            (owner.pong if flags & frames.ACK else owner.ping)(payload)
        elif kind == frames.RST_STREAM:
            owner.reset(stream, int.from_bytes(payload, "big"))
        elif kind == frames.PRIORITY:
            _check_priority(stream, payload)
            owner.idle_frame()
        elif kind == frames.GOAWAY:
            if len(payload) < 8:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a GOAWAY is cut short")
            owner.goes_away(int.from_bytes(payload[:4], "big") & frames.STREAM_MAX, int.from_bytes(payload[4:8], "big"))
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "nobody may promise anything")
        else:
            owner.idle_frame()

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            if payload or not self._settled:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "an acknowledgement of settings has some")
            self._owner.settled()
            return
        if len(payload) % frames.SETTING.size:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "settings are cut short")
        self._settled = True
        self._owner.settings(list(frames.SETTING.iter_unpack(payload)))

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        fragment = frames.without_padding(payload, flags)
        if flags & frames.WITH_PRIORITY:
            if len(fragment) < _PRIORITY_SIZE:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "there is no room for the priority")
            priority, fragment = fragment[:_PRIORITY_SIZE], fragment[_PRIORITY_SIZE:]
        end = bool(flags & frames.END_STREAM)
        if not flags & frames.END_HEADERS:
            self._block_stream, self._block_end, self._block_parts = stream, end, 0
            self._block += fragment
            return
        self._owner.headers(stream, fragment, end)
        if flags & frames.WITH_PRIORITY:
            _check_priority(stream, priority)

    def _continuation(self, flags: int, payload: bytes) -> None:
        if not self._block_stream:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "there is no header block to be continued")
        self._block += payload
        self._block_parts += 1
        if len(self._block) > BLOCK_MAX or self._block_parts > _CONTINUATIONS_MAX:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header block is too long")
        if flags & frames.END_HEADERS:
            self.progress += 1
            block, stream = bytes(self._block), self._block_stream
            self._block.clear()
            self._block_stream = 0
            self._owner.headers(stream, block, self._block_end)


def _check_priority(stream: int, priority: bytes) -> None:
    if int.from_bytes(priority[:4], "big") & frames.STREAM_MAX == stream:
        raise StreamFault(stream, Code.PROTOCOL_ERROR, "a stream depends on itself")


def _fault(stream: int, code: Code, why: str) -> ConnectionFault | StreamFault:
    return StreamFault(stream, code, why) if stream else ConnectionFault(code, why)
