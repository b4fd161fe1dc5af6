"""One HTTP/2 connection: each stream a request, answered by what answers HTTP/1.1's.

In: frames, from `receiving`.  Out: requests to the same `Answer` as over HTTP/1.1, so that all that a request passes
through is the same; they are answered by `answering`.

Invariant: of heads and bodies that are coming there is no more than `Bodies` allows all clients together, and
strangers.

A connection ends gently, by a GOAWAY that closes nothing (`leave`), when the server stops, where a client does not say
who it is (HTTP/2 is cheap to abuse: such a client gets what it would get without keep-alive), and now and then by
chance, so that clients spread over servers; at once, where its client breaks the protocol or floods.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from navarch.api.errors import StatusError, too_large
from navarch.apiserver import connection as http1
from navarch.apiserver.bodies import too_late, too_much
from navarch.apiserver.decoding import MAX_BODY
from navarch.apiserver.http2.allowance import Allowance
from navarch.apiserver.http2.answering import Answers, Serving
from navarch.apiserver.http2.heads import CONTINUE, HEAD_MAX, Head, Heads, Malformed, TooLong
from navarch.apiserver.http2.sending import Sender, Stream, wake
from navarch.apiserver.negotiation import respond_error
from navarch.client.transport import Request, Response
from navarch.http2 import frames
from navarch.http2.frames import Code, ConnectionFault, Setting, StreamFault
from navarch.http2.hpack import CompressionError, FarTooLong
from navarch.http2.receiving import FRAME_LIMIT, Receiver
from navarch.tls import peer_certificate

# Bytes that a client may send without having been told to go on: as in Kubernetes.
_ROOM: Final = 256 << 10
# Streams that we have ended, whose last frames may be on their way.
_ENDED_MAX: Final = 512
_SMALL: Final = 64
# What a stream's head may take beside its connection: longer ones count with what is still coming, until their stream
# is over.
_HEAD_FREE: Final = 4 << 10
_LEAVE_S: Final = 1.0
_LAST_WORDS: Final = b"goodbye."


class Connection(asyncio.Protocol):
    """The protocol of a transport whose two ends have agreed on HTTP/2."""

    def __init__(self, serving: Serving, loop: asyncio.AbstractEventLoop) -> None:
        self._serving = serving
        self._loop = loop
        self._receiver = Receiver(self)
        self._heads = Heads()
        self._allowance = Allowance(loop.time())
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._room = 0
        self._window = 0
        # Streams ended by us, oldest first, whose frames are passed over.
        self._ended: dict[int, None] = {}
        self._leaving = False
        # The last stream that is served, once that is settled.
        self._final: int | None = None
        self._failed = False
        # Bytes of frames and heads that are not whole; whether somebody has asked here who said who he is.
        self._held = 0
        self._known = False
        self._idle_s = loop.time()
        self._progress = -1
        self._transport: asyncio.Transport
        self._out: Sender
        self._answers: Answers
        self._remote = ""
        self._timer: asyncio.TimerHandle | None = None
        self._leave_timer: asyncio.TimerHandle | None = None
        self._lost = loop.create_future()

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._out = Sender(self._transport, self._loop, self._allowance)
        self._answers = Answers(self, self._serving, self._out, self._loop, peer_certificate(transport))
        name = transport.get_extra_info("peername")
        self._remote = str(name[0]) if isinstance(name, tuple) else ""
        self._serving.connections.add(self)
        self._timer = self._loop.call_later(http1.HEAD_S / 2, self._look)
        most = min(_ROOM * self._serving.streams, frames.WINDOW_MAX)
        self._room = self._window = most
        self._out.write(
            frames.settings({
                Setting.MAX_FRAME_SIZE: FRAME_LIMIT,
                Setting.MAX_CONCURRENT_STREAMS: self._serving.streams,
                Setting.MAX_HEADER_LIST_SIZE: HEAD_MAX,
                Setting.INITIAL_WINDOW_SIZE: _ROOM,
            })
            + frames.window_update(0, most - frames.WINDOW)
        )  # fmt: skip

    def data_received(self, data: bytes) -> None:
        if self._failed:
            return
        try:
            self._receiver.feed(data)
        except ConnectionFault as fault:
            self._fail(fault.code, str(fault))
            return
        if self._held or self._receiver.waits:
            self._count()

    def _count(self) -> None:
        bodies, held = self._serving.bodies, self._receiver.held
        self._held = held
        if held:
            bodies.head(self, held, self._transport.abort, known=self._known)
        else:
            bodies.remove(self)

    def pause_writing(self) -> None:
        self._out.pause()

    def resume_writing(self) -> None:
        self._out.resume()
        self._wake_all()

    def connection_lost(self, error: Exception | None) -> None:
        self._failed = True
        for timer in (self._timer, self._leave_timer):
            if timer is not None:
                timer.cancel()
        self._out.close()
        self._abandon_all()
        self._serving.connections.discard(self)
        self._serving.bodies.remove(self)
        # Each of them knows this, or what does; answers that still run need none of it.
        del self._receiver, self._out, self._answers, self._transport
        if not self._lost.done():
            self._lost.set_result(None)

    def _look(self) -> None:
        """End what does not go on: heads that are not whole, bodies that do not come, connections that ask nothing."""
        self._timer = self._loop.call_later(http1.HEAD_S / 2, self._look)
        now = self._loop.time()
        for stream in list(self._streams.values()):
            if stream.task is None and stream.open_in and stream.began_s and now - stream.began_s >= http1.BODY_S:
                self._refuse(stream, too_late())
        if self._receiver.waits or not self._last:
            if self._progress == self._receiver.progress:
                # Since the last look nothing has become whole.
                self._transport.abort()
                return
            self._progress = self._receiver.progress
        else:
            self._progress = -1
        if not self._streams and not self._answers.running and now - self._idle_s >= http1.IDLE_S:
            self.leave()

    # Frames

    def headers(self, stream: int, block: bytes, end: bool) -> None:
        try:
            known = self._streams.get(stream)
            if known is None and stream > self._last:
                self._open(stream, block, end)
            elif known is None and stream not in self._ended:
                raise ConnectionFault(Code.STREAM_CLOSED, "a stream is over")
            else:
                self._heads.trailers(block)
                if known is not None:
                    self._trailers(known, end)
        except CompressionError as error:
            raise ConnectionFault(Code.COMPRESSION_ERROR, str(error)) from None
        except FarTooLong:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a head is too long") from None
        except Malformed as error:
            raise StreamFault(stream, Code.PROTOCOL_ERROR, str(error)) from None

    def _open(self, number: int, block: bytes, end: bool) -> None:
        if not number & 1:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "clients' streams are odd")
        served = self._final is None
        if served:
            self._last = number
        try:
            head = self._heads.request(block)
        except TooLong:
            if served:
                self._answer_with(self._made(number, _NOTHING, end), Response(431, _TOO_LONG, {}, "text/plain"))
            return
        if not served:
            # It came after we said which is the last one; who sent it knows that it was not looked at.
            return
        if len(self._streams) >= self._serving.streams:
            raise StreamFault(number, Code.REFUSED_STREAM, "there are too many streams")
        if end and head.length > 0:
            raise StreamFault(number, Code.PROTOCOL_ERROR, "the body is shorter than its stated length")
        stream = self._made(number, head, end)
        if head.size > _HEAD_FREE:
            self._count_head(stream, head.size)
            if number not in self._streams:
                return
        if end:
            self._answers.whole(stream)
        elif head.length > MAX_BODY:
            self._refuse(stream, too_large(MAX_BODY))
        else:
            stream.began_s = self._loop.time()
            if "expect" in head.headers and head.headers["expect"].lower() == "100-continue":
                self._out.block(stream, self._answers.first(CONTINUE), end=False)

    def _count_head(self, stream: Stream, size: int) -> None:
        """A short block can stand for a long head, and a hundred streams may stay open for as long as their bodies are
        awaited or their watches last."""
        stream.long_head = object()
        self._serving.bodies.head(
            stream.long_head, size, lambda: self.give_up(stream, Code.ENHANCE_YOUR_CALM), known=self._known
        )

    def _made(self, number: int, head: Head, end: bool) -> Stream:
        request = Request(head.method, head.path, head.query, head.headers, b"", self._remote)
        stream = Stream(number, self._out.stream_window, _ROOM, request, head.length)
        stream.open_in = not end
        self._streams[number] = stream
        return stream

    def _trailers(self, stream: Stream, end: bool) -> None:
        if not stream.open_in:
            raise StreamFault(stream.id, Code.STREAM_CLOSED, "all of the request has come before")
        if not end:
            raise StreamFault(stream.id, Code.PROTOCOL_ERROR, "trailers do not end the request")
        self._ends(stream)

    def data(self, number: int, payload: bytes, size: int, end: bool) -> None:
        self._window -= size
        if self._window < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more is sent than there is room for")
        if self._window < self._room // 2:
            # What comes is taken, or passed over, at once.
            self._out.write(frames.window_update(0, self._room - self._window))
            self._window = self._room
        if len(payload) < _SMALL and not end:
            self.idle_frame()
        stream = self._streams.get(number)
        if stream is None or not stream.open_in:
            self._late(number, stream)
            return
        stream.room -= size
        if stream.room < 0:
            raise StreamFault(number, Code.FLOW_CONTROL_ERROR, "more is sent than there is room for")
        stream.open_in = not end
        self._take(stream, payload, end)
        if not stream.open_out:
            return
        if end:
            self._ends(stream)
        elif stream.room < _ROOM // 2:
            self._out.write(frames.window_update(number, _ROOM - stream.room))
            stream.room = _ROOM

    def _late(self, number: int, stream: Stream | None) -> None:
        """Data on a stream on which none is expected."""
        if stream is None:
            if number > self._last and self._final is None:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream has data before it begins")
            if number in self._ended or number > self._last:
                return
        raise StreamFault(number, Code.STREAM_CLOSED, "a stream is over")

    def _take(self, stream: Stream, payload: bytes, end: bool) -> None:
        before = stream.body
        size = len(payload) + (0 if before is None else len(before))
        if stream.length >= 0 and size > stream.length:
            raise StreamFault(stream.id, Code.PROTOCOL_ERROR, "the body is longer than its stated length")
        if size > MAX_BODY:
            self._refuse(stream, too_large(MAX_BODY))
        elif before is None and end:
            stream.request.body = payload
        else:
            if before is None:
                before = stream.body = bytearray()
            before += payload
            if not end:
                self._serving.bodies.add(
                    stream,
                    len(payload),
                    lambda: self._refuse(stream, too_much()),
                    stream.request,
                    self._answers.peer,
                )

    def _ends(self, stream: Stream) -> None:
        """The client has said all that it has to say."""
        stream.open_in = False
        if stream.body is not None:
            self._serving.bodies.remove(stream)
            stream.request.body, stream.body = bytes(stream.body), None
        if stream.length >= 0 and stream.length != len(stream.request.body):
            raise StreamFault(stream.id, Code.PROTOCOL_ERROR, "the body is shorter than its stated length")
        self._answers.whole(stream)

    def window_update(self, stream: int, more: int) -> None:
        self.idle_frame()
        if not stream:
            self._out.connection_room(more)
            self._wake_all()
            return
        self._check_begun(stream)
        known = self._streams.get(stream)
        if known is not None:
            self._out.room(known, more)

    def reset(self, stream: int, code: int) -> None:
        self._check_begun(stream)
        self.idle_frame()
        known = self._streams.get(stream)
        if known is not None:
            self._end(known)

    def _check_begun(self, stream: int) -> None:
        if stream > self._last and self._final is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream is spoken of before it begins")

    def settings(self, values: list[tuple[int, int]]) -> None:
        self.idle_frame()
        change = self._out.settings(values)
        if change:
            for stream in list(self._streams.values()):
                if stream.window + change > frames.WINDOW_MAX:
                    raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window is too big")
                self._out.room(stream, change)
        self._out.write(frames.SETTINGS_ACK)

    def settled(self) -> None:
        self.idle_frame()

    def ping(self, data: bytes) -> None:
        self.idle_frame()
        self._out.write(frames.ping(data, answer=True))

    def pong(self, data: bytes) -> None:
        self.idle_frame()
        if data == _LAST_WORDS and self._leaving:
            self._settle_last()

    def goes_away(self, last: int, code: int) -> None:
        """The client asks for nothing more."""
        self.idle_frame()
        self.leave()

    def idle_frame(self) -> None:
        self._allowance.spend(1, self._loop.time())

    def stream_fault(self, fault: StreamFault) -> None:
        self.idle_frame()
        self._out.write(frames.rst_stream(fault.stream, fault.code))
        self._remember(fault.stream)
        stream = self._streams.get(fault.stream)
        if stream is not None:
            self._end(stream)

    # Streams

    def _refuse(self, stream: Stream, error: StatusError) -> None:
        """Answer before the request is whole; what else comes of it is passed over."""
        self._serving.bodies.remove(stream)
        stream.body, stream.began_s = None, 0.0
        self._answer_with(stream, respond_error(error, stream.request))

    def _answer_with(self, stream: Stream, response: Response) -> None:
        self._answers.at_once(stream, response)
        self._close(stream)

    def give_up(self, stream: Stream, code: Code) -> None:
        if stream.open_out and stream.id in self._streams:
            self._out.write(frames.rst_stream(stream.id, code))
            self._remember(stream.id)
            self._end(stream)

    def knows(self) -> None:
        self._known = True

    def answered(self, stream: Stream) -> None:
        if stream.id in self._streams:
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        """The answer is sent."""
        if stream.open_in:
            self._out.write(frames.rst_stream(stream.id, Code.NO_ERROR))
            self._remember(stream.id)
        self._end(stream)

    def _end(self, stream: Stream) -> None:
        """Nobody speaks on a stream any more."""
        self._streams.pop(stream.id, None)
        self._idle_s = self._loop.time()
        if stream.body is not None:
            self._serving.bodies.remove(stream)
            stream.body = None
        if stream.long_head is not None:
            self._serving.bodies.remove(stream.long_head)
            stream.long_head = None
        if stream.open_out:
            stream.open_out = False
            self._answers.abandon(stream)
        if not self._streams and self._final is not None:
            self._finish()

    def _abandon_all(self) -> None:
        self._answers.forget_waiting()
        for stream in list(self._streams.values()):
            self._end(stream)

    def _remember(self, stream: int) -> None:
        self._ended[stream] = None
        if len(self._ended) > _ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    def _wake_all(self) -> None:
        for stream in self._streams.values():
            wake(stream)

    # The end

    def leave(self) -> None:
        """Take no new requests, after those that are on their way; then close."""
        if self._leaving or self._failed:
            return
        self._leaving = True
        # Its answer to the ping says that it knows. The ping comes first: to the library h2 a GOAWAY is the end.
        self._out.write(frames.ping(_LAST_WORDS) + frames.goaway(frames.STREAM_MAX, Code.NO_ERROR))
        self._leave_timer = self._loop.call_later(_LEAVE_S, self._settle_last)

    def _settle_last(self) -> None:
        """What the client sent before it heard of our leaving has come, or it does not say so."""
        if self._final is not None or self._failed:
            return
        self._final = self._last
        self._out.write(frames.goaway(self._last, Code.NO_ERROR))
        if not self._streams:
            self._finish()

    def _finish(self) -> None:
        self._failed = True
        self._out.flush()
        self._transport.close()

    def _fail(self, code: Code, why: str) -> None:
        self._failed = True
        self._out.write(frames.goaway(self._last, code, why))
        self._out.flush()
        self._abandon_all()
        self._transport.close()
        self._loop.call_later(http1.LAST_WORDS_S, self._transport.abort)

    async def shutdown(self, timeout_s: float) -> None:
        self.leave()
        await asyncio.wait([self._lost], timeout=timeout_s)
        if not self._lost.done():
            self._transport.abort()
            await asyncio.wait([self._lost], timeout=timeout_s)


_NOTHING: Final = Head("GET", "/", (), {}, -1)
_TOO_LONG: Final = b"Request Header Fields Too Large\n"
