"""Which handler answers a subresource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from navarch.api.errors import method_not_allowed
from navarch.apiserver.call import Call
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.objects import Objects
from navarch.client.transport import Response

Handler = Callable[[Call], Awaitable[Response]]


class Subresources:
    """`/status`, which every kind may have, and the tables of the kinds that have others."""

    def __init__(self, core: Core, objects: Objects) -> None:
        self._core = core
        self._status: dict[str, Handler] = {"get": objects.get, "update": objects.update, "patch": objects.patch}

    def find(self, call: Call) -> Handler | None:
        """None where the kind has no such subresource.  Raises StatusError 405."""
        if call.route.subresource == "status" and call.kind.has_status:
            handler = self._status.get(call.verb)
            if handler is None:
                resource = call.kind.resource
                raise method_not_allowed(resource.plural, resource.group, call.verb)
            return handler
        return None

    async def close(self) -> None:
        """End what still streams."""
