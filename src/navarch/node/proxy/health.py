"""Health over HTTP: the proxy's own `/healthz` and `/livez`, and for services with external policy Local the answer to
their load balancer's question whether this node has endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from navarch.api.meta import Key
from navarch.api.time import format_time
from navarch.world import Clock

log = logging.getLogger(__name__)

Answer = tuple[int, Mapping[str, Any], Mapping[str, str]]


async def serve_json(port: int, address: str, answer: Callable[[str], Answer]) -> asyncio.Server:
    """A server that answers GET requests with JSON, one per connection.  Raises OSError when the port is taken."""

    def respond(path: str) -> bytes:
        status, body, headers = answer(path)
        return _response(status, "application/json", json.dumps(body), headers)

    return await _serve(port, address, respond)


async def serve_text(port: int, address: str, answer: Callable[[str], tuple[int, str]]) -> asyncio.Server:
    """The same with plain text."""

    def respond(path: str) -> bytes:
        status, body = answer(path)
        return _response(status, "text/plain; version=0.0.4; charset=utf-8", body, {})

    return await _serve(port, address, respond)


def _response(status: int, content_type: str, body: str, headers: Mapping[str, str]) -> bytes:
    data = body.encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(data)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def _serve(port: int, address: str, respond: Callable[[str], bytes]) -> asyncio.Server:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                request = (await reader.readline()).split()
                while (await reader.readline()).strip():
                    pass
                path = request[1].decode(errors="replace") if len(request) > 1 else "/"
                writer.write(respond(path.partition("?")[0]))
                await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    return await asyncio.start_server(handle, address, port)


class Health:
    """When rules were last asked for and last written; unhealthy once a change has waited longer than the limit."""

    def __init__(self, clock: Clock, *, limit_s: float = 60.0) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._queued: datetime | None = None
        self._updated: datetime | None = None

    def queued(self) -> None:
        if self._queued is None:
            self._queued = self._clock.now()

    def updated(self) -> None:
        self._queued = None
        self._updated = self._clock.now()

    @property
    def healthy(self) -> bool:
        waiting = self._queued is not None and (self._clock.now() - self._queued).total_seconds() > self._limit_s
        return self._updated is not None and not waiting

    def answer(self, path: str) -> Answer:
        if path not in ("/healthz", "/livez"):
            return 404, {}, {}
        now = self._clock.now()
        body = {
            "lastUpdated": format_time(self._updated) if self._updated else "",
            "currentTime": format_time(now),
            "nodeEligible": True,
        }
        return (200 if self.healthy else 503), body, {}


class ServiceHealth:
    """One small server per service that has a health check node port."""

    def __init__(self, health: Health, address: str = "0.0.0.0") -> None:
        self._health = health
        self._address = address
        self._servers: dict[int, tuple[Key, asyncio.Server]] = {}
        self._local: dict[Key, int] = {}

    async def sync(self, ports: Mapping[int, Key], local_endpoints: Mapping[Key, int]) -> None:
        """Listen on exactly `ports`; answer by the number of endpoints on this node."""
        self._local = dict(local_endpoints)
        for port, (key, server) in list(self._servers.items()):
            if ports.get(port) != key:
                server.close()
                del self._servers[port]
        for port, key in ports.items():
            if port not in self._servers:
                try:
                    server = await serve_json(port, self._address, lambda _, key=key: self._answer(key))  # type: ignore[misc]
                except OSError as error:
                    log.warning("health check port %d of service %s: %s", port, key, error)
                    continue
                self._servers[port] = (key, server)

    def _answer(self, key: Key) -> Answer:
        count = self._local.get(key, 0)
        body = {
            "service": {"namespace": key.namespace, "name": key.name},
            "localEndpoints": count,
            "serviceProxyHealthy": self._health.healthy,
        }
        status = 200 if count and self._health.healthy else 503
        return status, body, {"X-Load-Balancing-Endpoint-Weight": str(count)}

    def close(self) -> None:
        for _, server in self._servers.values():
            server.close()
        self._servers.clear()
