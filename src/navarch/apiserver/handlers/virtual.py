"""Kinds that are answered rather than stored: reviews and component statuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from navarch.api.errors import unknown_path
from navarch.apiserver.call import Call
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.objects import Objects
from navarch.client.transport import Response

Handler = Callable[[Call], Awaitable[Response]]


class Virtual:
    def __init__(self, core: Core, objects: Objects) -> None:
        self._core = core
        self._handlers: dict[tuple[str, str], Handler] = {}

    def find(self, call: Call) -> Handler:
        """Raises StatusError 404, 405."""
        handler = self._handlers.get((call.kind.resource.group, call.kind.resource.plural))
        if handler is None:
            raise unknown_path()
        return handler
