"""Connections to one server, kept open between requests and bounded in number.

Who opens them decides where they lead (`client/http.py`: the API server; webhooks are reached by way of their Service).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from navarch.client.connection import Answer, Connection, NoAnswerError

_KEPT_IDLE_S = 30.0


class Pool:
    """At most `limit` connections to one server; who finds none waits, first come first served."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], limit: int) -> None:
        """`connect` opens one.  Raises OSError, TimeoutError."""
        self._connect = connect
        self._free = limit
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    async def ask(self, method: str, data: bytes, timeout_s: float, *, again: bool) -> Answer:
        """Send a request over one of the connections. With `again` a request is sent once more where a connection that
        had been idle ended before anything of an answer came.  Raises OSError, TimeoutError."""
        while True:
            connection = await self.take()
            once_more = again and connection.used
            try:
                return await connection.ask(method, data, timeout_s)
            except NoAnswerError:
                if not once_more:
                    raise
            finally:
                self.give_back(connection)

    async def take(self) -> Connection:
        """An open connection, to be given back.  Raises OSError, TimeoutError."""
        if not self._free:
            await self._turn()
        else:
            self._free -= 1
        try:
            while self._idle:
                # The one last used, so that those beyond the present need stay idle and go.
                connection = self._idle.pop()
                if not connection.closed:
                    return connection
            return await self._connect()
        except BaseException:
            self._leave()
            raise

    async def _turn(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    def give_back(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
        elif not connection.closed:
            loop = asyncio.get_running_loop()
            connection.idle_since = loop.time()
            self._idle.append(connection)
            if self._sweeping is None:
                self._sweeping = loop.call_later(_KEPT_IDLE_S, self._sweep)
        self._leave()

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _sweep(self) -> None:
        """Close what has been idle for long."""
        loop = asyncio.get_running_loop()
        since = loop.time() - _KEPT_IDLE_S
        kept: list[Connection] = []
        for connection in self._idle:
            if connection.idle_since <= since:
                connection.close()
            elif not connection.closed:
                kept.append(connection)
        self._idle = kept
        self._sweeping = loop.call_later(_KEPT_IDLE_S, self._sweep) if kept else None

    def close(self) -> None:
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in self._idle:
            connection.close()
        self._idle.clear()
