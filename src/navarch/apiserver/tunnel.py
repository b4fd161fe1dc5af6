"""Upgraded connections: what the client and the other end say to each other is not ours to understand.

In: a request that asks for an upgrade, and where it goes.  Out: the other end's refusal, or a `Tunnel`; `join` then
copies bytes both ways until either side is done, or until nothing has gone either way for as long as Kubernetes lets a
stream be idle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from navarch.api.errors import unavailable
from navarch.apiserver.handlers.targets import Target
from navarch.apiserver.impersonation import NAMING
from navarch.client.transport import Request, Response
from navarch.client.upgrade import IDLE_S, NoAnswer, pump, switch
from navarch.records import mutable

_DROPPED = frozenset({"host", "authorization", "content-length", "transfer-encoding"})
# Whom the request counts as has been settled here; what a backend of ours would make of it is another matter.


@mutable
class Tunnel(Response):
    """A 101 with the connection behind it; `head` is the raw response head to send on."""

    head: bytes = b""
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None


async def open_tunnel(
    request: Request, target: Target, url: str, headers: Iterable[tuple[str, str]] | None = None
) -> Response:
    """With other headers than the client's, where they are given.  Raises StatusError 503 where nobody answers."""
    try:
        answer = await switch(
            target.host,
            target.port,
            f"{request.method} {url} HTTP/1.1",
            _headers(request.headers.items() if headers is None else headers, target),
            tls=target.tls,
            server_name=target.server_name,
        )
    except NoAnswer as error:
        raise unavailable(f"error dialing backend: {error}") from error
    except (OSError, TimeoutError) as error:
        raise unavailable(f'error dialing backend: "{target.base_url}{url}": {error or "timed out"}') from error
    if answer.status == 101:
        return Tunnel(101, b"", {}, head=answer.head, reader=answer.reader, writer=answer.writer)
    body = await answer.refusal()
    return Response(answer.status, body, {}, answer.headers().get("content-type", "text/plain"))


def _headers(headers: Iterable[tuple[str, str]], target: Target) -> Iterator[str]:
    yield f"Host: {target.authority}"
    for name, value in headers:
        if name not in _DROPPED and not name.startswith(NAMING):
            yield f"{name}: {value}"


async def join(tunnel: Tunnel, transport: asyncio.Transport, *, idle_s: float = IDLE_S) -> None:
    """Copy until either side ends or both have been silent for `idle_s`; both are closed then."""
    assert tunnel.reader is not None
    assert tunnel.writer is not None
    await pump(tunnel.reader, tunnel.writer, transport, greeting=tunnel.head, idle_s=idle_s)
