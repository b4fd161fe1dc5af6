"""A tunnel between two sockets: bytes go both ways, silence of both sides ends it, and one talking side keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from navarch.apiserver.tunnel import Tunnel, join

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Stream, Stream]]:
    """The two ends of a connection."""
    accepted: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda *ends: accepted.set_result(ends), "127.0.0.1", 0)
    near = await asyncio.open_connection(*server.sockets[0].getsockname())
    far = await accepted
    try:
        yield near, far
    finally:
        for _, writer in (near, far):
            writer.close()
        server.close()


@asynccontextmanager
async def tunnelled(idle_s: float) -> AsyncIterator[tuple[Stream, Stream, asyncio.Task[None]]]:
    """Client and backend as they see each other, and the joining."""
    async with pair() as (client, front), pair() as (back, backend):
        tunnel = Tunnel(101, b"", {}, head=b"", reader=back[0], writer=back[1])
        joining = asyncio.create_task(join(tunnel, front[1].transport, idle_s=idle_s))
        await asyncio.sleep(0)
        yield client, backend, joining
        joining.cancel()


async def test_bytes_go_both_ways_and_an_end_is_passed_on() -> None:
    async with tunnelled(60) as (client, backend, joining):
        client[1].write(b"ping")
        assert await backend[0].readexactly(4) == b"ping"
        backend[1].write(b"pong")
        assert await client[0].readexactly(4) == b"pong"

        backend[1].close()

        assert await client[0].read() == b""
        await asyncio.wait_for(joining, 5)


async def test_when_both_sides_are_silent_the_tunnel_ends() -> None:
    async with tunnelled(0.2) as (client, backend, joining):
        await asyncio.wait_for(joining, 5)

        for reader, _ in (client, backend):
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_side_that_goes_on_talking_keeps_the_tunnel() -> None:
    async with tunnelled(0.4) as (client, backend, joining):
        for talker, listener in ((client, backend), (backend, client)):
            for _ in range(8):
                talker[1].write(b"x")
                assert await asyncio.wait_for(listener[0].readexactly(1), 5) == b"x"
                await asyncio.sleep(0.1)

        assert not joining.done()
