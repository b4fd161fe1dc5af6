"""Asking webhooks: one POST over HTTPS, whose answer is bounded in time and size.

In: where a webhook is (a `clientConfig`), and a review as bytes.  Out: the bytes of its answer; or, for whatever goes
wrong, a `CallError` in the words of Kubernetes' own client. Connections are kept open per webhook, bounded in number,
and redirects are not followed. What is connected to is an address that was looked at first, so that no name leads to
where none may (`services`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import posixpath
import socket
import ssl
from collections import OrderedDict
from typing import Final
from urllib.parse import urlsplit

import orjson

from navarch.api.errors import StatusError
from navarch.api.go_text import quoted
from navarch.api.meta import Obj
from navarch.apiserver.webhooks.certificates import who_is_there
from navarch.apiserver.webhooks.services import NowhereError, Services, is_allowed
from navarch.client.connection import Answer, Connection, NoAnswerError
from navarch.client.http1 import request_head
from navarch.client.pool import Pool
from navarch.numbers import is_digits
from navarch.records import frozen
from navarch.world import World

# Of admission: an object and its patch, both as long as objects can be, in base64.
LONGEST_ANSWER: Final = 16 << 20
_POOLS: Final = 200
_CONNECTIONS: Final = 64
_SHOWN: Final = 2048
# As often a webhook that asks for it is asked once more, within its time.
_ATTEMPTS_MORE: Final = 10
# What OpenSSL says of an answer in plain text.
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


class CallError(Exception):
    """A webhook could not be asked, or did not answer as webhooks do; the text says why."""


@frozen
class ClientConfig:
    """Where a webhook is. `host` and `port` as they are shown and certified; `service` where they are a Service's."""

    host: str
    port: int
    path: str
    shown: str
    bundle: bytes = b""
    service: tuple[str, str] | None = None


def client_config(config: Obj) -> ClientConfig:
    """What a `clientConfig` says.  Raises CallError for what is no bundle of certificates."""
    try:
        bundle = base64.b64decode(config.get("caBundle") or "")
    except (ValueError, binascii.Error):
        raise CallError("unable to load root certificates: unable to parse bytes as PEM block") from None
    service = config.get("service")
    if service is not None:
        namespace, name = str(service.get("namespace") or ""), str(service.get("name") or "")
        port, host = int(service.get("port") or 443), f"{name}.{namespace}.svc"
        path = _clean(str(service.get("path") or ""))
        return ClientConfig(host, port, path, f"https://{host}:{port}{path}", bundle, (namespace, name))
    parts = urlsplit(str(config.get("url") or ""))
    path = _clean(parts.path)
    host = parts.hostname or ""
    return ClientConfig(host, parts.port or 443, path, f"https://{parts.netloc}{path}", bundle)


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


class WebhookClient:
    """One server's, for all its webhooks."""

    def __init__(self, services: Services, world: World) -> None:
        self._services = services
        self._world = world
        self._pools: OrderedDict[ClientConfig, Pool] = OrderedDict()

    async def ask(self, config: ClientConfig, review: bytes, timeout_s: int, *, longest: int = LONGEST_ANSWER) -> bytes:
        """The answer's body.  Raises CallError."""
        query = f"?timeout={timeout_s}s"
        host = config.host if ":" not in config.host else f"[{config.host}]"
        lines = (
            ("host", host if config.port == 443 and config.service is None else f"{host}:{config.port}"),
            ("user-agent", "kube-apiserver-admission"),
            ("accept", "application/json, */*"),
            ("accept-encoding", "identity"),
            ("content-type", "application/json"),
            ("content-length", str(len(review))),
        )
        try:
            head = request_head("POST", config.path + query, lines)
            async with asyncio.timeout(timeout_s):
                answer = await self._pool(config, longest).ask("POST", head + review, timeout_s, again=True)
                for _ in range(_ATTEMPTS_MORE):
                    wait_s = _asked_to_wait(answer)
                    if wait_s is None:
                        break
                    await asyncio.sleep(wait_s)
                    answer = await self._pool(config, longest).ask("POST", head + review, timeout_s, again=True)
        except CallError as error:
            raise CallError(f'Post "{config.shown}{query}": {error}') from None
        except TimeoutError:
            raise CallError(f'Post "{config.shown}{query}": context deadline exceeded') from None
        except (OSError, ValueError) as error:
            raise CallError(f'Post "{config.shown}{query}": {_words(error)}') from error
        return _body(answer)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _pool(self, config: ClientConfig, longest: int) -> Pool:
        pool = self._pools.get(config)
        if pool is None:
            tls = trusting(config.bundle)
            pool = self._pools[config] = Pool(lambda: self._connect(config, tls, longest), _CONNECTIONS)
            if len(self._pools) > _POOLS:
                _, oldest = self._pools.popitem(last=False)
                oldest.close()
        else:
            self._pools.move_to_end(config)
        return pool

    async def _connect(self, config: ClientConfig, tls: ssl.SSLContext, longest: int) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = config.host, config.port
        if config.service is not None:
            try:
                host, port = self._services.address(*config.service, port)
            except NowhereError as error:
                raise CallError(str(error)) from None
            except StatusError as error:
                raise CallError(error.message) from None
        failed: Exception = CallError(f"dial tcp: lookup {host}: no such host")
        for address in await allowed_addresses(host, port, here=config.service is None):
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(longest), address, port, ssl=tls, server_hostname=config.host
                )
            except ssl.SSLError as error:
                raise CallError(await self._tls_words(error, config.host, address, port)) from error
            except OSError as error:
                failed = CallError(f"dial tcp {joined(address, port)}: connect: {os_words(error)}")
            else:
                return connection
        raise failed

    async def _tls_words(self, error: ssl.SSLError, name: str, address: str, port: int) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            why = await who_is_there(error, name, address, port, self._world.now())
            return f"tls: failed to verify certificate: {why}"
        if error.reason in _NO_TLS:
            return "http: server gave HTTP response to HTTPS client"
        return f"remote error: tls: {(error.reason or str(error)).lower().replace('_', ' ')}"


async def allowed_addresses(host: str, port: int, *, here: bool) -> list[str]:
    """Those of a host that may be connected to (`is_allowed`).  Raises CallError where there are none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise CallError(f"dial tcp: lookup {host}: no such host") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = [address for address in addresses if is_allowed(address, here=here)]
    if not allowed:
        raise CallError(f"dial tcp {joined(addresses[0], port)}: address not allowed")
    return allowed


def joined(host: str, port: int) -> str:
    """Host and port as they are written."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def trusting(bundle: bytes) -> ssl.SSLContext:
    """Whoever the bundle vouches for, or the machine where there is none.  Raises CallError."""
    if not bundle:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # As Go sees it, a certificate that is in the bundle is trusted, whoever signed it.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=bundle.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise CallError("unable to load root certificates: unable to parse bytes as PEM block") from None
    return context


# What went wrong, in the words of Go's library

_ERRORS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.ECONNRESET: "connection reset by peer",
    errno.ETIMEDOUT: "connection timed out",
}


def os_words(error: OSError) -> str:
    """What Go says of it."""
    return _ERRORS.get(error.errno or 0) or (error.strerror or str(error)).lower()


def _words(error: Exception) -> str:
    if isinstance(error, NoAnswerError):
        return "EOF"
    if isinstance(error, ConnectionResetError):
        return "read: connection reset by peer"
    return str(error) or type(error).__name__


def _asked_to_wait(answer: Answer) -> int | None:
    """After how many seconds a webhook wants to be asked once more; None for one that does not."""
    stated = answer.headers.get("retry-after", "")
    if answer.status != 429 and answer.status < 500:
        return None
    digits = stated[1:] if stated[:1] in ("+", "-") else stated
    return max(int(stated), 0) if is_digits(digits) else None


def _body(answer: Answer) -> bytes:
    """Raises CallError for an answer that says that it is none."""
    status, headers, body = answer
    if 200 <= status <= 206:
        if not body:
            content_type = headers.get("content-type", "")
            raise CallError(f"0-length response with status code: {status} and content type: {content_type}")
        return body
    raise CallError(_refusal(status, headers.get("content-type", ""), body))


def _refusal(status: int, content_type: str, body: bytes) -> str:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if isinstance(said, dict) and said.get("kind") == "Status" and said.get("status") != "Success":
        return str(said.get("message") or "")
    is_text = not content_type or content_type.lstrip().lower().startswith("text/")
    text = body[:_SHOWN].decode(errors="replace").strip() if is_text else "unknown"
    return _STATUSES.get(status) or _worded(status, text)


_STATUSES: Final = {
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}


def _worded(status: int, text: str) -> str:
    if status in (403, 415):
        return text
    if status == 406:
        unable = "the server was unable to respond with a content type that the client supports"
        return unable if text in ("", "unknown") else text
    if status >= 500:
        return f"an error on the server ({quoted(text)}) has prevented the request from succeeding"
    return f"the server responded with the status code {status} but did not return more information"
