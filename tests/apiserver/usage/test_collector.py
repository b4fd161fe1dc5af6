"""Kubelets are asked in turn, and not more than they and this server can bear. In virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from navarch.api.meta import Obj
from navarch.apiserver.handlers.targets import Target
from navarch.apiserver.usage.collector import Collector, ScrapeError
from navarch.client.resources import NODES
from navarch.sim.virtual import VirtualWorld, run
from navarch.testing.embedded import EmbeddedCluster

CPU = "node_cpu_usage_seconds_total"
MEMORY = "node_memory_working_set_bytes"


def node(number: int, *, port: int = 10250, annotations: dict[str, str] | None = None) -> Obj:
    """A node whose kubelet is at a port of its own."""
    status = {
        "addresses": [{"type": "InternalIP", "address": f"192.0.2.{number % 250 + 1}"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    return {"metadata": {"name": f"n{number}", "annotations": annotations or {}}, "status": status}


class Kubelets:
    """All of them: each uses half of a core and answers after a while. Those of port 1 do not answer."""

    def __init__(self, world: VirtualWorld, takes_s: float = 0.1) -> None:
        self.asked: Counter[str] = Counter()
        self.most = 0
        self._world = world
        self._takes_s = takes_s
        self._now = 0

    async def ask(self, target: Target) -> str:
        self.asked[target.authority] += 1
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(self._takes_s)
        finally:
            self._now -= 1
        if target.port == 1:
            raise ScrapeError("nobody is there")
        at_ms = int(self._world.now().timestamp() * 1000)
        return f"{CPU} {at_ms / 2000} {at_ms}\n{MEMORY} 1048576 {at_ms}\n"


def watched(play: Callable[[EmbeddedCluster, Collector, Kubelets], Awaitable[None]], takes_s: float = 0.1) -> None:
    async def main(world: VirtualWorld) -> None:
        async with EmbeddedCluster(nodes=0, controllers=False, world=world) as cluster:
            kubelets = Kubelets(world, takes_s)
            collector = Collector(cluster.server.core, kubelets.ask)
            collector.start()
            try:
                await play(cluster, collector, kubelets)
            finally:
                await collector.stop()

    run(main, seed=1)


def test_every_kubelet_is_asked_every_fifteen_seconds() -> None:
    async def play(cluster: EmbeddedCluster, collector: Collector, kubelets: Kubelets) -> None:
        await cluster.client.create(NODES, node(1))
        await cluster.client.create(NODES, node(2, annotations={"sim.navarch.dev/node": "true"}))
        await cluster.client.create(NODES, node(3, port=0))
        await asyncio.sleep(61)

        assert kubelets.asked == {"192.0.2.2:10250": 5}
        points = collector.points("n1")
        assert points is not None
        usage = points.node()
        assert usage is not None
        assert (usage.cpu_nano, usage.memory) == (500_000_000, 1048576)
        assert collector.points("n2") is None

        await cluster.client.delete(NODES, "n1")
        await asyncio.sleep(60)
        assert collector.points("n1") is None
        assert kubelets.asked.total() == 5

    watched(play)


def test_a_silent_node_is_asked_less_and_less_often() -> None:
    async def play(cluster: EmbeddedCluster, collector: Collector, kubelets: Kubelets) -> None:
        await cluster.client.create(NODES, node(1, port=1))
        await cluster.client.create(NODES, node(2))
        await asyncio.sleep(3600)

        # After 1, 2, 4, 8 and then every 16 rounds, of which there are four in a minute.
        assert 15 <= kubelets.asked["192.0.2.2:1"] <= 20
        assert kubelets.asked["192.0.2.3:10250"] >= 238

    watched(play)


def test_many_nodes_are_asked_some_at_a_time_and_none_is_left_out() -> None:
    async def play(cluster: EmbeddedCluster, collector: Collector, kubelets: Kubelets) -> None:
        for number in range(100):
            await cluster.client.create(NODES, node(number))
        await asyncio.sleep(400)

        # In fifteen seconds sixteen at a time that take five each are 48: a round is not enough for all.
        assert kubelets.most == 16
        assert len(kubelets.asked) == 100
        assert max(kubelets.asked.values()) - min(kubelets.asked.values()) <= 2

    watched(play, takes_s=5)
