"""Whether an API server serves a kind, and in which version: what belongs to kinds that need not be there asks first.

In: discovery.  Out: the resource as it is served. An informer of what is not served would ask for it in vain for ever.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Resource
from navarch.client.base import Client
from navarch.client.supervision import Delay

log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0


async def served_as(client: Client, wanted: Resource) -> Resource | None:
    """The resource in the version wanted, or in the best that is served; None where there is none."""
    group = await _document(client, f"/apis/{wanted.group}")
    versions = [entry["version"] for entry in (group or {}).get("versions") or ()]
    for version in sorted(versions, key=lambda version: version != wanted.version):
        listed = await _document(client, f"/apis/{wanted.group}/{version}")
        if any(entry["name"] == wanted.plural for entry in (listed or {}).get("resources") or ()):
            return Resource(wanted.group, version, wanted.plural, wanted.kind, wanted.namespaced)
    return None


async def served_in_the_end(client: Client, wanted: Resource) -> Resource | None:
    """As `served_as`; asked until somebody answers, as what asks may have started before the API server."""
    delay = Delay(_FIRST_RETRY_S, _LAST_RETRY_S)
    while True:
        try:
            return await served_as(client, wanted)
        except (StatusError, OSError) as error:
            log.debug("whether %s are served: %s", wanted.plural, error)
        await asyncio.sleep(delay.failed())


async def _document(client: Client, path: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = orjson.loads(await client.request("GET", path))
    except StatusError as error:
        if error.code == 404:
            return None
        raise
    return answer
