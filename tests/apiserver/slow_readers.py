"""A server in a process of its own, for tests that look at what it takes of memory.

`python -m tests.apiserver.slow_readers STALLED_S PROTOCOL` says its port, at which it speaks HTTP/1.1 or, for `h2`,
HTTP/2 from the first byte; then it does what it is told on standard input: `change N BYTES` changes one ConfigMap N
times, `say` says how many watches are open, `collect` how much garbage there was that only the collector finds.
"""

from __future__ import annotations

import asyncio
import gc
import sys

import orjson

from navarch.apiserver import connection
from navarch.apiserver.http import HTTPFront
from navarch.apiserver.http2 import sending
from navarch.apiserver.http2.connection import Connection
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK
from navarch.client.transport import Request
from navarch.store.base import Put
from navarch.store.memory import MemoryStore

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


async def main() -> None:
    # As the server's own process does (`cluster/component.py`).
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    connection.STALLED_S = sending.STALLED_S = float(sys.argv[1])
    server = ApiServer(MemoryStore())
    await server.start()

    async def ask(method: str, path: str, body: object) -> None:
        response = await server.handle(Request(method, path, (), {}, orjson.dumps(body)), LOOPBACK)
        assert response.status < 300, response.body

    await ask("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    front = HTTPFront(server)
    loop = asyncio.get_running_loop()
    if sys.argv[2] == "h2":
        # As if that had been agreed on in TLS, whose memory is not what is looked at.
        front._arrives = lambda: Connection(front._http2, loop)  # type: ignore[method-assign]
    say(await front.start("127.0.0.1", 0, None))
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    store = server.core.caches.store
    await ask("POST", CONFIG_MAPS, {"metadata": {"name": "a"}, "data": {"k": "@"}})
    first = (await store.range("/registry/core/configmaps/")).entries[0]
    while line := (await commands.readline()).split():
        if line[0] == b"change":
            for number in range(int(line[1])):
                text = b'"%d %s"' % (number, b"x" * int(line[2]))
                await store.commit([Put(first.key, first.value.replace(b'"@"', text))])
            await server.core.caches.sync()
        if line[0] == b"collect":
            say(gc.collect())
            continue
        say(server.core.metrics.watches)
    await front.stop()
    await server.stop()


def say(number: int) -> None:
    print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
