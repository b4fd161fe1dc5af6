"""Bodies of requests while they come, and as they were before they were compressed, all within bounds."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace

from navarch.api.errors import StatusError, bad_request, too_large, unsupported_media_type
from navarch.apiserver.decoding import MAX_BODY
from navarch.client.transport import Request

# Of bodies that are still coming, all clients' together: they are not known yet.
BODIES_MAX = 256 << 20


class Bodies:
    """What has come of bodies that are not whole yet. Beyond the limit, the longest are given up."""

    def __init__(self, limit: int = BODIES_MAX) -> None:
        self.limit = limit
        self.total = 0
        self._coming: dict[object, tuple[int, Callable[[], None]]] = {}

    def add(self, whose: object, size: int, give_up: Callable[[], None]) -> None:
        """`give_up` is called if this is the longest when there is too much of all."""
        self._coming[whose] = self._coming.get(whose, (0, give_up))[0] + size, give_up
        self.total += size
        while self.total > self.limit:
            longest = max(self._coming, key=lambda each: self._coming[each][0])
            give_up_longest = self._coming[longest][1]
            self.remove(longest)
            give_up_longest()

    def remove(self, whose: object) -> None:
        self.total -= self._coming.pop(whose, (0, None))[0]


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
