"""The time that a client sets for its request: `?timeout=5s`.

In: the request and what answers it.  Out: the answer, or 504 where the time is over first; what was begun is cancelled
then. Requests that are meant to last (watches, logs, connections) have no such limit, and a longer one than a minute is
none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from navarch.api.durations import parse_ns
from navarch.api.errors import StatusError, bad_request
from navarch.apiserver.routes import Route
from navarch.client.transport import Request, Response

LASTING_VERBS: Final = frozenset({"watch", "connect"})
_LONGEST_NS: Final = 60 * 10**9
_OVER: Final = "Timeout: request did not complete within requested timeout - context deadline exceeded"


def limit_of(request: Request, route: Route, verb: str) -> float | None:
    """In seconds; None where there is none.  Raises StatusError 400."""
    text = request.arg("timeout")
    if not text or verb in LASTING_VERBS or route.subresource == "log":
        return None
    try:
        limit_ns = parse_ns(text)
    except ValueError as error:
        raise bad_request(f"invalid timeout specified in the request URL - {error}") from None
    return limit_ns / 10**9 if 0 < limit_ns < _LONGEST_NS else None


async def within(limit_s: float, answer: Coroutine[Any, Any, Response]) -> Response:
    """Raises StatusError 504."""
    try:
        async with asyncio.timeout(limit_s) as limit:
            return await answer
    except TimeoutError:
        if not limit.expired():
            raise
        raise StatusError(504, "Timeout", _OVER, details={}) from None
