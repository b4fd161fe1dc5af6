"""A node of a cluster on a host: its pod network and its ways to other nodes, fed by an API server in the host's
thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from navarch.client.resources import NODES
from navarch.node.names import HostNames
from navarch.node.network import PodNetwork, Ranges
from navarch.node.routing import Mode, PodRoutes, RoutingConfig
from navarch.testing.embedded import EmbeddedCluster
from tests.node.routing.hosts import Hosts

CLUSTER = ("10.42.0.0/16", "fd42::/48")


def node(name: str, ranges: Iterable[str], addresses: Iterable[str]) -> dict[str, Any]:
    ranges = list(ranges)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
        "status": {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]},
    }


class Site:
    def __init__(
        self, hosts: Hosts, name: str, ranges: Iterable[str], state: Path, *, mode: Mode = Mode.AUTO, node_ip: str = ""
    ) -> None:
        self.hosts = hosts
        self.name = name
        self.ranges = tuple(ranges)
        self.names = HostNames("t", name)
        self.mode = mode
        self.network = PodNetwork(self.names, state / name, node_ip=node_ip, mode=mode)
        self._loop = hosts.loop(name)
        self._api: EmbeddedCluster
        self._running: asyncio.Task[None] | None = None

    @property
    def cluster(self) -> tuple[str, ...]:
        return tuple(each for each in CLUSTER if any((":" in each) == (":" in own) for own in self.ranges))

    def start(self, *nodes: dict[str, Any]) -> None:
        self._loop.do(self._start(nodes))

    async def _start(self, nodes: Iterable[dict[str, Any]]) -> None:
        await self.network.setup(Ranges(self.ranges, self.cluster))
        self._api = await EmbeddedCluster(controllers=False).__aenter__()
        for each in nodes:
            await self._put(each)
        await self._run()

    async def _run(self) -> None:
        config = RoutingConfig(
            self.names, self.name, self.cluster, self.ranges, mode=self.mode, mtu=self.network.link_mtu
        )
        self._running = asyncio.create_task(PodRoutes(self._api.client, config).run())

    async def _put(self, obj: dict[str, Any]) -> None:
        await self._api.client.create(NODES, obj)
        await self._address(obj)

    async def _address(self, obj: dict[str, Any]) -> None:
        patch = {"status": obj["status"]}
        await self._api.client.patch(NODES, obj["metadata"]["name"], "", patch, subresource="status")

    def put(self, obj: dict[str, Any]) -> None:
        self._loop.do(self._put(obj))

    def address(self, obj: dict[str, Any]) -> None:
        """A node has other addresses."""
        self._loop.do(self._address(obj))

    def delete(self, name: str) -> None:
        self._loop.do(self._api.client.delete(NODES, name))

    def kill(self) -> None:
        """The component ends; what it wrote stays."""
        self._loop.do(self._kill())

    async def _kill(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None

    def again(self) -> None:
        self._loop.do(self._run())

    def remove(self) -> None:
        """What `down` does."""
        self.kill()
        self.hosts.look(self.name, lambda: self.network.cleanup(self.cluster))

    def stop(self) -> None:
        self.kill()
        with contextlib.suppress(AttributeError):
            self._loop.do(self._api.__aexit__(None, None, None))

    def pod(self, name: str, *addresses: str) -> None:
        self.hosts.pod(name, self.name, self.network.bridge, addresses, self.network.mtu)
        for address in addresses:
            self.hosts.serve(name, address.split("/")[0], 8080)
