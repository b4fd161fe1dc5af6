"""HTTP/2 connections to one server: as few as carry what is asked, each kept while it is of use.

In: requests.  Out: their answers, over a connection that has room, or a new one where none has. What a server says it
has not looked at is asked again; so is what may be repeated, where a connection ended before an answer began.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from navarch.client.connection import Answer, NoAnswerError
from navarch.client.http2 import Chunks, Connection, NotLookedAtError

_TRIES = 5


class Connections:
    """At most `limit` whole answers are waited for at a time, and as many others as anybody follows."""

    def __init__(self, connect: Callable[[], Awaitable[Connection | None]], limit: int) -> None:
        """`connect` opens a connection; None where the server does not speak HTTP/2.  Raises OSError, TimeoutError."""
        self._connect = connect
        self._turns = asyncio.Semaphore(limit)
        self._open: list[Connection] = []
        self._opening: asyncio.Task[Connection | None] | None = None
        self._not_spoken = False
        self._closed = False

    async def are_there(self) -> bool:
        """Whether the server speaks HTTP/2.  Raises OSError, TimeoutError."""
        if self._not_spoken:
            return False
        if not self._open:
            await self._another()
        return not self._not_spoken

    def look_again(self) -> None:
        """The server speaks HTTP/2 by now."""
        self._not_spoken = False

    async def ask(self, block: bytes, body: bytes, timeout_s: float, *, again: bool) -> Answer:
        """`again` says that it may be repeated.  Raises OSError, TimeoutError."""
        async with self._turns:
            for tries in range(_TRIES):
                connection = await self._with_room()
                used = connection.used
                try:
                    return await connection.ask(block, body, timeout_s)
                except NoAnswerError as error:
                    if not _once_more(error, tries, again=again and used):
                        raise
        raise AssertionError

    async def follow(self, block: bytes, timeout_s: float, *, again: bool) -> tuple[int, dict[str, str], Chunks]:
        """Raises OSError, TimeoutError."""
        for tries in range(_TRIES):
            connection = await self._with_room()
            used = connection.used
            try:
                return await connection.follow(block, timeout_s)
            except NoAnswerError as error:
                if not _once_more(error, tries, again=again and used):
                    raise
        raise AssertionError

    async def _with_room(self) -> Connection:
        """Nothing may be waited for before the request is sent."""
        while True:
            for connection in self._open:
                if connection.has_room:
                    return connection
            if await self._another() is None:
                raise ConnectionError("the server does not speak HTTP/2 any more")

    async def _another(self) -> Connection | None:
        """Open one, once for all who need it."""
        if self._closed:
            raise ConnectionError("it is closed")
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._connect_one(), name="connection")
            self._opening.add_done_callback(_seen)
        return await asyncio.shield(self._opening)

    async def _connect_one(self) -> Connection | None:
        try:
            connection = await self._connect()
            self._open = [each for each in self._open if not each.closed]
            if connection is None:
                self._not_spoken = True
            elif self._closed:
                connection.close()
            else:
                # The newest last: what the older have room for goes to them, so that others end.
                self._open.append(connection)
            return connection
        finally:
            self._opening = None

    def retire(self) -> None:
        """Ask no more over those that there are; who follows something goes on."""
        retired, self._open = self._open, []
        for connection in retired:
            connection.retire()

    def close(self) -> None:
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        for connection in self._open:
            connection.close()
        self._open.clear()


def _once_more(error: NoAnswerError, tries: int, *, again: bool) -> bool:
    if isinstance(error, NotLookedAtError):
        return tries + 1 < _TRIES
    return again and not tries


def _seen(task: asyncio.Task[Connection | None]) -> None:
    """Who waited for it has given up."""
    if not task.cancelled():
        task.exception()
