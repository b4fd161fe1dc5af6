"""A network of namespaces with a proxier in its middle: what the tests of all modes share."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Callable
from typing import Any

from navarch.api.meta import Key
from navarch.node.proxy.base import Proxier, ProxierConfig
from navarch.node.proxy.services import Place, endpoints_of, service_ports
from tests.node.proxy.netlab import NetLab, say
from tests.node.proxy.objects import endpoint, endpoint_slice

WEB = Key("default", "web")
VIP = "10.43.0.100"
POD_A, POD_B = "10.42.1.2", "10.42.2.2"
BOTH = endpoint_slice(endpoint(POD_A), endpoint(POD_B))


def make_lab() -> NetLab:
    """A node with two pods that serve TCP and UDP, and a client outside of it."""
    lab = NetLab()
    try:
        lab.add("a", POD_A, "10.42.1.1")
        lab.add("b", POD_B, "10.42.2.1")
        lab.add("client", "192.168.9.2", "192.168.9.1")
        # A host without a default route has no way to the range but the one that the pod network adds.
        lab.route("10.43.0.0/17", through="a")
        for name in ("a", "b"):
            lab.serve(name, 8080)
            lab.serve(name, 5353, socket.SOCK_DGRAM)
    except BaseException:
        lab.close()
        raise
    return lab


class Proxied:
    """What a proxier is told, changed step by step, and clients of it. They wait in threads, because the proxier may
    be at work in this one."""

    def __init__(self, lab: NetLab, make: Callable[[ProxierConfig], Proxier], **settings: Any) -> None:
        self._lab = lab
        self.config = ProxierConfig(f"navarch-t{uuid.uuid4().hex[:8]}", "10.42.0.0/16", "10.43.0.0/16", **settings)
        self.proxier = make(self.config)
        self.services: dict[Any, Any] = {}
        self.endpoints: dict[Any, Any] = {}

    async def put(self, obj: dict[str, Any], *slices: dict[str, Any]) -> None:
        key = Key(obj["metadata"]["namespace"], obj["metadata"]["name"])
        self.services[key] = service_ports(obj)
        self.endpoints[key] = endpoints_of(slices, Place("here"))
        await self.proxier.sync(self.services, self.endpoints, {key})

    async def remove(self, key: Key) -> None:
        self.services.pop(key)
        self.endpoints.pop(key)
        await self.proxier.sync(self.services, self.endpoints, {key})

    async def rewrite(self) -> None:
        """As at a start: nothing that was written before is trusted."""
        await self.proxier.sync(self.services, self.endpoints)

    # Clients.

    async def ask(self, name: str, address: str, port: int) -> tuple[str, str]:
        """Connect from a namespace; which server answered, and which client address it saw."""
        return await asyncio.to_thread(self._lab.ask, name, address, port)

    async def answering(self, name: str, address: str, port: int, times: int = 30) -> set[str]:
        """All who answer."""
        return {(await self.ask(name, address, port))[0] for _ in range(times)}

    async def connect(self, name: str, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        client = self._lab.open(name, kind)
        await asyncio.to_thread(client.connect, (address, port))
        return client

    async def say(self, connection: socket.socket) -> tuple[str, str]:
        return await asyncio.to_thread(say, connection)

    async def unanswered(self, name: str, address: str, port: int) -> bool:
        """Whether a connection comes to nothing before anything was said."""
        client = self._lab.open(name)
        client.settimeout(0.3)
        try:
            await asyncio.to_thread(client.connect, (address, port))
            await asyncio.to_thread(say, client)
        except (OSError, ValueError):
            return True
        return False
