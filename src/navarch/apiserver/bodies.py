"""Heads and bodies of requests while they come, and bodies as they were before they were compressed, within bounds."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

from navarch.api.errors import StatusError, bad_request, too_large, unsupported_media_type
from navarch.apiserver.decoding import MAX_BODY
from navarch.client.transport import Request
from navarch.records import mutable

# Of what is still coming, all clients' together who have said who they are, and all others' together.
BODIES_MAX = 256 << 20
STRANGERS_MAX = 16 << 20
# A body of which so much has come is worth asking whose it is.
_ASK_FROM = 64 << 10

# Whether a request comes from somebody: `(request, peer certificate) -> known`. It does not raise.
IsKnown = Callable[[Request, bytes | None], Awaitable[bool]]


@mutable(eq=False)
class _Coming:
    give_up: Callable[[], None]
    size: int = 0
    asking: asyncio.Task[None] | None = None


class _Share:
    """What has a limit together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.coming: dict[object, _Coming] = {}

    def add(self, whose: object, body: _Coming, size: int) -> None:
        self.coming[whose] = body
        body.size += size
        self.total += size

    def take(self, whose: object) -> _Coming | None:
        body = self.coming.pop(whose, None)
        if body is not None:
            self.total -= body.size
        return body

    def set(self, whose: object, give_up: Callable[[], None], size: int) -> None:
        """So much has come of it altogether."""
        known = self.coming.get(whose) or _Coming(give_up)
        self.add(whose, known, size - known.size)

    def excess(self) -> list[object]:
        """The longest, without which there is room again: for some more, as they are looked for among all."""
        if self.total <= self.limit:
            return []
        found, left = [], self.total
        for whose, body in sorted(self.coming.items(), key=lambda each: each[1].size, reverse=True):
            found.append(whose)
            left -= body.size
            if left <= self.limit - self.limit // 16:
                break
        return found


class Bodies:
    """What has come of heads and bodies that are not whole yet. Beyond the limit, the longest are given up. Whose a
    body is gets asked while it comes: until then, and if it is nobody's, it counts among those of strangers, who have
    less room, and so do heads on connections on which nobody has said who he is. Without `is_known` everybody is
    known."""

    def __init__(self, is_known: IsKnown | None = None, limit: int = BODIES_MAX) -> None:
        self._is_known = is_known
        self.known = _Share(limit)
        self.strangers = _Share(STRANGERS_MAX)

    @property
    def total(self) -> int:
        return self.known.total + self.strangers.total

    def add(self, whose: object, size: int, give_up: Callable[[], None], request: Request, peer: bytes | None) -> None:
        """`give_up` is called if this is among the longest when there is too much of all. `request` is what the body
        belongs to."""
        share = self.known if self._is_known is None or whose in self.known.coming else self.strangers
        body = share.coming.get(whose) or _Coming(give_up)
        share.add(whose, body, size)
        if share is self.strangers and body.asking is None and body.size >= _ASK_FROM:
            body.asking = asyncio.get_running_loop().create_task(self._ask(whose, request, peer))
        self._bound(share)

    def head(self, connection: object, size: int, cut: Callable[[], None], *, known: bool) -> None:
        """A connection holds so much altogether of a head, or of a frame, that is not whole. `cut` ends it at once: who
        has not asked yet waits for no answer. `known` is one that somebody has used before."""
        share = self.known if known else self.strangers
        share.set(connection, cut, size)
        self._bound(share)

    def remove(self, whose: object) -> None:
        body = self.known.take(whose) or self.strangers.take(whose)
        if body is not None and body.asking is not None:
            body.asking.cancel()

    async def _ask(self, whose: object, request: Request, peer: bytes | None) -> None:
        assert self._is_known is not None
        if await self._is_known(request, peer):
            body = self.strangers.take(whose)
            if body is not None:
                body.asking = None
                size, body.size = body.size, 0
                self.known.add(whose, body, size)
                self._bound(self.known)

    def _bound(self, share: _Share) -> None:
        for whose in share.excess():
            give_up = share.coming[whose].give_up
            self.remove(whose)
            give_up()


def too_late() -> StatusError:
    return StatusError(408, "Timeout", "the body of the request did not arrive in time")


def too_much() -> StatusError:
    """There is too much of all bodies that are coming."""
    error = StatusError(429, "TooManyRequests", "too much is being received, please try again later")
    error.headers["Retry-After"] = "1"
    return error


def readable(request: Request) -> Request:
    """The same request with its body as it was before it was compressed.  Raises StatusError 400, 413, 415."""
    headers = dict(request.headers)
    encoding = headers.pop("content-encoding", "identity").lower()
    if not request.body or encoding == "identity":
        return replace(request, headers=headers)
    return replace(request, headers=headers, body=decompressed(request.body, encoding))


def decompressed(body: bytes, encoding: str) -> bytes:
    """Never more than a body may be.  Raises StatusError 400, 413, 415."""
    if encoding != "gzip":
        raise unsupported_media_type(("gzip",))
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        body = unzip.decompress(body, MAX_BODY + 1)
    except zlib.error as error:
        raise bad_request(f"unable to decompress the request body: {error}") from None
    if len(body) > MAX_BODY:
        raise too_large(MAX_BODY)
    if not unzip.eof:
        raise bad_request("unable to decompress the request body: unexpected end of the data")
    return body
