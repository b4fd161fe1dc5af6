"""`LocalTransport`: requests handed to an API server in the same process, without sockets or TLS."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from navarch.client.transport import Request, Response


class Handler(Protocol):
    """What an API server offers in process: one request in, one response out, as a given user."""

    def __call__(self, request: Request, /) -> Awaitable[Response]: ...


class LocalTransport:
    """`handle` answers as the identity that it was bound to (`ApiServer.as_user(user)`)."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        return await self._handle(request)

    async def close(self) -> None:
        """Nothing is held open."""
