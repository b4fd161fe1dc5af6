"""Requests that go on to another API server, with the identity that was found out here.

In: a request, who makes it, and the `Remote` that it is for.  Out: what that server answers, streamed; where it agrees
to an upgrade, a `Tunnel`. That it is us who asks, it knows by our certificate of the front proxy's CA; who asks us, by
headers that only we may set: whatever a client sends under their names is dropped.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from yarl import URL

from navarch.api.errors import StatusError
from navarch.apiserver.aggregation.directory import Remote
from navarch.apiserver.handlers.targets import Target
from navarch.apiserver.impersonation import NAMING
from navarch.apiserver.relaying import HOP_BY_HOP, chunks_of, why_unreachable
from navarch.apiserver.tunnel import open_tunnel
from navarch.apiserver.user import User
from navarch.apiserver.webhooks.client import CallError, allowed_addresses, joined, trusting
from navarch.apiserver.webhooks.services import NowhereError, Services
from navarch.client.transport import Request, Response

if TYPE_CHECKING:
    import aiohttp

LONGEST_DOCUMENT: Final = 32 << 20
_CONNECT_S: Final = 10.0
# Until an answer begins; a stream may then take as long as it likes.
_ANSWER_S: Final = 60.0
_CONTEXTS: Final = 200
# What this server says of each answer itself.
_OURS: Final = frozenset({"cache-control", "date"})
_TEXT: Final = "text/plain; charset=utf-8"


class UnreachableError(Exception):
    """Nobody could be asked; the text says why."""


class Proxy:
    """One server's connections to the API servers behind it; `certificate` are the files of its own."""

    def __init__(self, services: Services, certificate: tuple[Path, Path] | None) -> None:
        self._services = services
        self._certificate = certificate
        self._session: aiohttp.ClientSession | None = None
        self._contexts: OrderedDict[tuple[bytes, bool, int], ssl.SSLContext] = OrderedDict()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def forward(self, request: Request, user: User, remote: Remote) -> Response:
        """What the other server answers; plain text where there is none."""
        import aiohttp

        try:
            address, port = await self._address(remote)
            tls = self._tls(remote.bundle, insecure=remote.insecure)
        except (NowhereError, StatusError):
            return unavailable()
        except CallError as error:
            return Response(500, f"{error}\n".encode(), {"X-Content-Type-Options": "nosniff"}, _TEXT)
        headers = list(_headers(request, user))
        path = quote(request.path, safe="/%:@!$&'()*+,;=-._~")
        url = path + ("?" + urlencode(list(request.query)) if request.query else "")
        if "upgrade" in request.headers.get("connection", "").lower():
            headers += [(name, request.headers[name]) for name in ("connection", "upgrade") if name in request.headers]
            target = Target(address, port, tls, server_name=_server_name(remote))
            return await open_tunnel(request, target, url, headers)
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._open().request(
                    request.method,
                    URL(f"https://{joined(address, port)}{url}", encoded=True),
                    headers=headers,
                    data=request.body or None,
                    ssl=tls,
                    server_hostname=_server_name(remote),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = why_unreachable(error, address, port)
            return Response(503, f"error trying to reach service: {why}".encode(), {}, _TEXT)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP | _OURS}
        shown = kept.pop("Content-Type", "application/octet-stream")
        return Response(answer.status, chunks_of(answer), kept, shown)

    async def fetch(
        self,
        remote: Remote,
        path: str,
        *,
        accept: str = "application/json",
        tag: str = "",
        timeout_s: float = 5.0,
        verify: bool = True,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """A document of the other server, asked for as this server itself.  Raises UnreachableError."""
        import aiohttp

        address, port = "", 0
        try:
            async with asyncio.timeout(timeout_s):
                address, port = await self._address(remote)
                tls = self._tls(remote.bundle, insecure=remote.insecure) if verify else self._tls(b"", insecure=True)
                headers = {
                    "Accept": accept,
                    "Accept-Encoding": "identity",
                    "X-Remote-User": "system:kube-aggregator",
                    "X-Remote-Group": "system:masters",
                }
                if tag:
                    headers["If-None-Match"] = tag
                async with self._open().get(
                    URL(f"https://{joined(address, port)}{path}", encoded=True),
                    headers=headers,
                    ssl=tls,
                    server_hostname=_server_name(remote) if verify else None,
                    allow_redirects=False,
                ) as answer:
                    if answer.headers.get("Content-Encoding", "identity") != "identity":
                        # What it would unpack to is not known before it is.
                        raise UnreachableError("an answer that is packed, which was not asked for")
                    body = bytearray()
                    async for chunk in answer.content.iter_any():
                        body += chunk
                        if len(body) > LONGEST_DOCUMENT:
                            raise UnreachableError(f"a body of more than {LONGEST_DOCUMENT} bytes")
                    return answer.status, answer.headers, bytes(body)
        except (NowhereError, CallError) as error:
            raise UnreachableError(str(error)) from error
        except StatusError as error:
            raise UnreachableError(error.message) from error
        except TimeoutError as error:
            shown = f"https://{joined(address, port)}{path}"
            raise UnreachableError(f'Get "{shown}": context deadline exceeded') from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            shown = f"https://{joined(address, port)}{path}"
            raise UnreachableError(f'Get "{shown}": {why_unreachable(error, address, port)}') from error

    async def _address(self, remote: Remote) -> tuple[str, int]:
        """Raises NowhereError, CallError, StatusError."""
        host, port = self._services.address(remote.namespace, remote.service, remote.port)
        return (await allowed_addresses(host, port, here=False))[0], port

    def _tls(self, bundle: bytes, *, insecure: bool) -> ssl.SSLContext:
        """Raises CallError for what is no bundle of certificates, and where our own certificate is no good."""
        # It is renewed while the server runs.
        since = _changed(self._certificate[0]) if self._certificate is not None else 0
        key = (bundle, insecure, since)
        context = self._contexts.get(key)
        if context is None:
            context = _context(bundle, insecure=insecure)
            if self._certificate is not None:
                try:
                    context.load_cert_chain(*self._certificate)
                except (OSError, ssl.SSLError) as error:
                    raise CallError(f"the certificate of the front proxy cannot be used: {error}") from error
            self._contexts[key] = context
            if len(self._contexts) > _CONTEXTS:
                self._contexts.popitem(last=False)
        return context

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session


def _changed(file: Path) -> int:
    """When, by the file system; 0 for one that is not there."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def unavailable() -> Response:
    """What is answered for a server that cannot be asked."""
    return Response(503, b"service unavailable\n", {"X-Content-Type-Options": "nosniff"}, _TEXT)


def _server_name(remote: Remote) -> str | None:
    return None if remote.insecure else remote.host


def _context(bundle: bytes, *, insecure: bool) -> ssl.SSLContext:
    if not insecure:
        return trusting(bundle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _headers(request: Request, user: User) -> Iterator[tuple[str, str]]:
    for name, value in request.headers.items():
        if name not in HOP_BY_HOP and name != "authorization" and not name.startswith(NAMING):
            yield name, value
    yield "X-Remote-User", _field(user.name)
    if user.uid:
        yield "X-Remote-Uid", _field(user.uid)
    for group in user.groups:
        yield "X-Remote-Group", _field(group)
    for name, values in user.extra.items():
        for value in values:
            yield f"X-Remote-Extra-{quote(name, safe='')}", _field(value)


def _field(text: str) -> str:
    """A name as a header's value: what would be more than one line is none."""
    return "".join(character if character >= " " and character != "\x7f" else " " for character in text)
