"""A client of HTTP/2 that is not ours (the library h2), joined in process to a connection of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import orjson

from navarch.apiserver.bodies import Bodies
from navarch.apiserver.http2 import connection
from navarch.apiserver.http2.answering import Serving
from navarch.client.transport import Request, Response
from navarch.http2 import frames, hpack

WHOLE_S = 20.0


def GET(stream: int, path: str = "/", *, end: bool = True) -> bytes:
    """The frame of a request."""
    head = ((":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", path))
    block = b"".join(hpack.literal(name, value) for name, value in head)
    return frames.header_block(stream, block, frames.FRAME, end=end)


class Pipe(asyncio.Transport):
    """Takes what the server writes; `full` is a client that does not read."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 1)})
        self.written = bytearray()
        self.protocol: asyncio.Protocol | None = None
        self.closing = False

    def write(self, data: Any) -> None:
        assert not self.closing
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def taken(self) -> bytes:
        data = bytes(self.written)
        self.written.clear()
        return data


async def nothing(request: Request, certificate: bytes | None) -> Response:
    return Response(200, b"{}")


class Wire:
    """A connection of the server, and its bytes."""

    def __init__(self, answer: connection.http1.Answer = nothing, **options: Any) -> None:
        self.serving = Serving(answer, Bodies(), **options)
        self.pipe = Pipe()
        self.server = connection.Connection(self.serving, asyncio.get_running_loop())
        self.pipe.protocol = self.server
        self.server.connection_made(self.pipe)

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.server.data_received(piece)
            await turns()

    async def hear(self) -> list[tuple[int, int, int, bytes]]:
        """The frames that came: kind, flags, stream, payload."""
        await turns()
        data, at, found = self.pipe.taken(), 0, []
        while at < len(data):
            upper, lower, kind, flags, stream = frames.HEAD.unpack_from(data, at)
            at += frames.HEAD_SIZE + (upper << 8 | lower)
            found.append((kind, flags, stream, data[at - (upper << 8 | lower) : at]))
        assert at == len(data)
        return found

    def drop(self) -> None:
        """The client is gone."""
        self.pipe.close()


async def turns(number: int = 12) -> None:
    """Let what is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], bool], each: Callable[[], None] = lambda: None) -> None:
    async with asyncio.timeout(WHOLE_S):
        while True:
            each()
            if condition():
                return
            await asyncio.sleep(0.001)


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    informational: list[int] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Client(Wire):
    """`reads` off: what comes is not made room for."""

    def __init__(self, answer: connection.http1.Answer = nothing, *, window: int | None = None, **options: Any) -> None:
        super().__init__(answer, **options)
        self.reads = True
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.pump()

    def pump(self) -> None:
        """Bytes both ways, as far as there are any."""
        while True:
            data = self.h2.data_to_send()
            if data and not self.pipe.closing:
                self.server.data_received(data)
            came = self.pipe.taken()
            for event in self.h2.receive_data(came) if came else ():
                self._take(event)
            if not data and not came:
                return

    def _take(self, event: h2.events.Event) -> None:
        answer = self.answers.setdefault(getattr(event, "stream_id", 0) or 0, Answer())
        if isinstance(event, h2.events.InformationalResponseReceived):
            answer.informational.append(int(dict(event.headers or ())[":status"]))
        elif isinstance(event, h2.events.ResponseReceived):
            answer.headers = dict(event.headers or ())
            answer.status = int(answer.headers[":status"])
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data or b""
            if self.reads and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            # What comes after the answer only says that no more of the request is wanted.
            if not answer.ended:
                answer.reset = int(event.error_code or 0)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaways.append((event.last_stream_id or 0, int(event.error_code or 0)))

    def begin(self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), *, end: bool = True) -> int:
        """Send a request's head; returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "x"), (":path", path), *headers]
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, head, end_stream=end)
        self.pump()
        return stream

    async def send(self, stream: int, data: bytes, *, piece: int = 16_384, end: bool = True) -> None:
        """As far as the server makes room."""
        while True:
            size = min(len(data), piece, self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if size or not data:
                now, data = data[:size], data[size:]
                self.h2.send_data(stream, now, end_stream=end and not data)
            self.pump()
            if not data:
                return
            await asyncio.sleep(0)

    async def ended(self, stream: int) -> Answer:
        await eventually(lambda: self.answers[stream].over, self.pump)
        return self.answers[stream]

    async def ask(self, method: str, path: str, body: Any = None, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        if body is None:
            return await self.ended(self.begin(method, path, headers))
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        typed = [("content-type", "application/json"), ("content-length", str(len(data))), *headers]
        stream = self.begin(method, path, typed, end=False)
        await self.send(stream, data)
        return await self.ended(stream)
