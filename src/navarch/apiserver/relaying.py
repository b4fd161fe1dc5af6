"""What another server answers, sent on as it comes: a kubelet's, a pod's, an aggregated API server's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp


async def chunks_of(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes; the connection is given back when nobody reads on."""
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except aiohttp.ClientError:
        # The other end broke off in the middle; so does what we send on.
        return
    finally:
        answer.close()
