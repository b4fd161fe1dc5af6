"""What another server answers, sent on as it comes: a kubelet's, a pod's, an aggregated API server's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from navarch.apiserver.webhooks.client import joined, os_words

if TYPE_CHECKING:
    import aiohttp

# Headers that speak of one connection, in small letters: each of the two connections has its own.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


async def chunks_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes; the connection is given back when nobody reads on."""
    # Whoever asks nobody else, as most clusters in a test, does without it, a tenth of what they would load.
    import aiohttp

    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except aiohttp.ClientError:
        # The other end broke off in the middle; so does what we send on.
        return
    finally:
        answer.close()


def why_unreachable(error: BaseException, address: str, port: int) -> str:
    """Why another server did not answer, in Kubernetes' words."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"dial tcp {joined(address, port)}: connect: {os_words(error.os_error)}"
    if isinstance(error, TimeoutError):
        return f"dial tcp {joined(address, port)}: i/o timeout"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    return str(error) or type(error).__name__
