"""Joined connections: who writes faster than the other end reads has to wait."""

from __future__ import annotations

import asyncio

from navarch.client.upgrade import Inlet


class _Client(asyncio.Transport):
    """A client's transport that notes whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def test_a_client_waits_for_a_container_that_does_not_read() -> None:
    connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()
    server = await asyncio.start_server(lambda *ends: connected.set_result(ends), "127.0.0.1", 0, limit=1024)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    container, container_writer = await connected
    client = _Client()
    inlet = Inlet(writer, client, lambda: None)
    sent = 0

    while client.reading and sent < 100 << 20:
        inlet.data_received(bytes(1 << 20))
        sent += 1 << 20
    assert not client.reading

    async with asyncio.timeout(10):
        await container.readexactly(sent)
        while not client.reading:
            await asyncio.sleep(0.01)
    for end in (writer, container_writer):
        end.close()
    server.close()
