"""Asking servers outside of the cluster that say who somebody is: one request, bounded in time and size."""

from __future__ import annotations

import ssl
from typing import Any, Final

import orjson

_LONGEST: Final = 1 << 20
_TIMEOUT_S: Final = 10.0


class OutboundError(Exception):
    """There was no answer that could be used; the text says why."""


async def ask(
    url: str,
    context: ssl.SSLContext | None,
    body: Any = None,
    headers: dict[str, str] | None = None,
    *,
    timeout_s: float = _TIMEOUT_S,
) -> Any:
    """The JSON that a server answers a GET with, or a POST where there is a body.  Raises OutboundError."""
    import aiohttp

    method, data = ("GET", None) if body is None else ("POST", orjson.dumps(body))
    headers = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(
                method, url, data=data, headers=headers, ssl=context or True, allow_redirects=False
            ) as answer,
        ):
            text = await answer.content.read(_LONGEST + 1)
            if answer.status >= 300:
                raise OutboundError(f"{url} answered {answer.status}")
            if len(text) > _LONGEST:
                raise OutboundError(f"{url} answered more than {_LONGEST} bytes")
            return orjson.loads(text) if text else None
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        raise OutboundError(f"{url}: {error or type(error).__name__}") from error


def trusting(bundle: str) -> ssl.SSLContext | None:
    """A context that trusts the authorities of a PEM bundle alone; None, the system's, where there is none.  Raises
    ValueError."""
    if not bundle:
        return None
    try:
        return ssl.create_default_context(cadata=bundle)
    except ssl.SSLError as error:
        raise ValueError(f"no certificates in the bundle: {error.reason}") from None
