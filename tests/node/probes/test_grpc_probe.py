"""gRPC probes against a real health server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import grpc.aio
import pytest

from navarch.node.probes.prober import grpc_health

Serve = Callable[[dict[str, int]], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a health server that knows these services' statuses; its port."""
    servers: list[grpc.aio.Server] = []

    async def start(statuses: dict[str, int]) -> int:
        async def check(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            if request[2:] == b"slow":
                await asyncio.Event().wait()
            status = statuses.get(request[2:].decode())
            if status is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return bytes((0x08, status or 0)) if status else b""

        handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)} if statuses else {}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return port

    yield start
    for server in servers:
        await server.stop(None)


async def test_a_service_that_serves_is_healthy(serve: Serve) -> None:
    port = await serve({"": 1, "db": 2})

    assert (await grpc_health("127.0.0.1", port, "", 2)).ok
    failed = await grpc_health("127.0.0.1", port, "db", 2)
    assert not failed.ok
    assert failed.output == 'service unhealthy (responded with "NOT_SERVING")'


async def test_an_unknown_service_and_one_without_health_fail(serve: Serve) -> None:
    unknown = await grpc_health("127.0.0.1", await serve({"": 1}), "other", 2)
    without = await grpc_health("127.0.0.1", await serve({}), "", 2)

    assert (unknown.ok, without.ok) == (False, False)
    assert unknown.output == "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"
    words = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): "
    assert without.output.startswith(words)


async def test_a_service_that_says_nothing_is_given_up(serve: Serve) -> None:
    failed = await grpc_health("127.0.0.1", await serve({"": 1}), "slow", 1)

    assert (failed.ok, failed.output) == (False, "timeout: health rpc did not complete within 1s")


async def test_nobody_there_is_told_within_the_timeout() -> None:
    failed = await grpc_health("127.0.0.1", 1, "", 0.3)

    assert not failed.ok
    assert failed.output.startswith('timeout: failed to connect service "127.0.0.1:1" within 0.3s')
