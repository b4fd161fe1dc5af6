"""The answers of one HTTP/2 connection: which requests run, which wait for others to end, and what is sent for each.

In: streams whose request is whole.  Out: frames, through `sending`; to the connection, that a stream is answered or
given up. A stream's answer is a task. What is only read, or is being streamed, is cancelled when its client does not
want it any more; a write that has begun goes on.

Invariant: at most `streams` requests run for one connection, those included whose client has reset them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import field
from typing import Final, Protocol

from navarch.api.errors import StatusError
from navarch.apiserver.bodies import Bodies, readable
from navarch.apiserver.connection import Answer
from navarch.apiserver.http2.heads import answer_block
from navarch.apiserver.http2.sending import Gone, Sender, Stream, wake
from navarch.apiserver.negotiation import respond_error
from navarch.apiserver.pieces import Pieces
from navarch.apiserver.tunnel import Tunnel
from navarch.client.transport import Request, Response
from navarch.http2 import hpack
from navarch.http2.frames import Code
from navarch.records import mutable

# Streams at a time of one connection, unless a flag says otherwise.
STREAMS: Final = 100
# Answers' bytes that one connection has not read yet: beyond, its further requests wait.
_UNREAD_MAX: Final = 64 << 20
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Owner(Protocol):
    """The connection."""

    def leave(self) -> None:
        """This was the last request."""
        ...

    def knows(self) -> None:
        """Somebody has asked who said who he is."""
        ...

    def give_up(self, stream: Stream, code: Code) -> None: ...

    def answered(self, stream: Stream) -> None: ...

    async def shutdown(self, timeout_s: float) -> None: ...


@mutable
class Serving:
    """What the HTTP/2 connections of a server share."""

    answer: Answer
    bodies: Bodies
    streams: int = STREAMS
    # Whether a request is the last of its connection, by chance.
    parts: Callable[[], bool] | None = None
    connections: set[Owner] = field(default_factory=set)


class Answers:
    """One connection's."""

    def __init__(
        self, owner: Owner, serving: Serving, out: Sender, loop: asyncio.AbstractEventLoop, peer: bytes | None
    ) -> None:
        self._owner = owner
        self._serving = serving
        self._out = out
        self.peer = peer
        self._loop = loop
        # Requests that run, also those that nobody waits for any more; and those that wait for others to end.
        self.running = 0
        self._waiting: deque[Stream] = deque()
        self._unread = 0
        self._settings_told = False

    def whole(self, stream: Stream) -> None:
        """A request is there."""
        stream.began_s = 0.0
        if self._may_begin():
            self._begin(stream)
        else:
            self._waiting.append(stream)

    def _may_begin(self) -> bool:
        return self.running < self._serving.streams and self._unread < _UNREAD_MAX

    def _begin(self, stream: Stream) -> None:
        self.running += 1
        stream.task = self._loop.create_task(self._respond(stream))

    async def _respond(self, stream: Stream) -> None:
        stream.begun = True
        request = stream.request
        try:
            try:
                if "content-encoding" in request.headers:
                    request = readable(request)
                response = await self._serving.answer(request, self.peer)
            except StatusError as error:
                response = respond_error(error, request)
            stream.sending = True
            await self._send(stream, request, response)
        except (Gone, TimeoutError):
            self._owner.give_up(stream, Code.CANCEL)
        except BaseException:
            self._owner.give_up(stream, Code.INTERNAL_ERROR)
            raise
        finally:
            self._done(stream)

    async def _send(self, stream: Stream, request: Request, response: Response) -> None:
        """Raises Gone, TimeoutError."""
        body, parts = response.body, self._serving.parts
        last = request.last or response.status == 401
        if not last:
            self._owner.knows()
        last = last or (parts is not None and parts())
        if not isinstance(body, bytes):
            if last:
                self._owner.leave()
            await self._stream(stream, response, body)
        elif isinstance(response, Tunnel):
            # Only HTTP/1.1 can ask for one; nobody does so here.
            if response.writer is not None:
                response.writer.close()
            self._owner.give_up(stream, Code.HTTP_1_1_REQUIRED)
        elif stream.open_out:
            # To a HEAD it says the length that the body would have.
            length = None if request.method == "HEAD" or response.status in (204, 304) else len(body)
            block = self.first(answer_block(response, length))
            if not body:
                self._out.block(stream, block, end=True)
            elif not self._out.at_once(stream, block, body):
                self._out.block(stream, block, end=False)
                self._unread += len(body)
                try:
                    await self._out.body(stream, body, end=True)
                finally:
                    self._unread -= len(body)
            stream.open_out = False
        if last:
            self._owner.leave()

    async def _stream(self, stream: Stream, response: Response, chunks: AsyncIterator[bytes]) -> None:
        length = chunks.length if isinstance(chunks, Pieces) else None
        self._unread += length or 0
        try:
            if not stream.open_out:
                raise Gone
            self._out.block(stream, self.first(answer_block(response, length)), end=False)
            async for chunk in chunks:
                if chunk:
                    await self._out.body(stream, chunk, end=False)
            await self._out.body(stream, b"", end=True)
            stream.open_out = False
        finally:
            self._unread -= length or 0
            await chunks.aclose()  # type: ignore[attr-defined]

    def first(self, block: bytes) -> bytes:
        """A header block; before the connection's first one, what it has to say of header compression."""
        if self._settings_told:
            return block
        self._settings_told = True
        return hpack.NOTHING_REMEMBERED + block

    def at_once(self, stream: Stream, response: Response) -> None:
        """Send a short answer without waiting for the client's window."""
        assert isinstance(response.body, bytes)
        block = self.first(answer_block(response, len(response.body)))
        if not self._out.at_once(stream, block, response.body):
            # Without the words, which there is no room for.
            self._out.block(stream, answer_block(response, 0), end=True)
        stream.open_out = False

    def _done(self, stream: Stream) -> None:
        """A request is answered, or given up."""
        self.running -= 1
        stream.task = None
        self._owner.answered(stream)
        while self._waiting and self._may_begin():
            self._begin(self._waiting.popleft())

    def abandon(self, stream: Stream) -> None:
        """Stop the work for a request, unless it is a write."""
        task = stream.task
        if task is None:
            if stream in self._waiting:
                self._waiting.remove(stream)
        elif task is asyncio.current_task(self._loop):
            return
        elif stream.sending or stream.request.method not in _WRITES:
            task.cancel()
            if not stream.begun:
                # None of it will run.
                self._done(stream)
        else:
            wake(stream)

    def forget_waiting(self) -> None:
        self._waiting.clear()
