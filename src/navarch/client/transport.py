"""The seam between `Client` and an API server: one request in, one response out.

`HTTPTransport` sends it over TLS; `LocalTransport` hands it to an API server in the same process. Everything above, and
every component, is the same in both cases.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import field
from typing import Protocol

from navarch.records import mutable


@mutable
class Request:
    """A request as the API server's handlers see it, however it arrived.

    `query` holds decoded pairs in order (keys may repeat); header names are lower case.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    # The address that it came from, where it came over a network.
    remote: str = ""
    # Set where its connection had better not be kept: whoever asked did not say who it is.
    last: bool = False
    # Whether it may ask to count as somebody else's: False where its headers are known not to.
    impersonates: bool = True

    def arg(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        for key, value in self.query:
            if key == name:
                return value
        return default


@mutable
class Response:
    """`body` is the whole body, or for a stream (`watch`, `log?follow`) an iterator over its chunks, which the
    receiver must close (`aclose`)."""

    status: int
    body: bytes | AsyncIterator[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class Transport(Protocol):
    async def send(self, request: Request, *, stream: bool = False) -> Response:
        """Send one request; `stream` asks for the body as an iterator."""
        ...

    async def close(self) -> None: ...
