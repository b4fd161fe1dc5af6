"""Several API servers over one store: who can be found, and that each may begin and end as it likes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.apiserver.allocation.services import AllocationConfig
from navarch.apiserver.bootstrap import BootstrapConfig, bootstrap
from navarch.apiserver.presence import LEASE_S
from navarch.apiserver.server import ApiServer
from navarch.kinds import resources as r
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld
from tests.clocks import SetClock


def config(address: str, port: int = 6443) -> BootstrapConfig:
    return BootstrapConfig(address, port, "10.43.0.1", "10.43.0.0/16")


class Servers:
    """API servers over one store, as processes on several machines would be."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self.store = MemoryStore(clock=self.clock)
        self.running: list[ApiServer] = []

    async def start(self) -> ApiServer:
        server = ApiServer(self.store, world=RealWorld(len(self.running)))
        server.use(allocation=AllocationConfig())
        await server.start()
        self.running.append(server)
        return server

    async def stop(self, server: ApiServer) -> None:
        self.running.remove(server)
        await server.stop()


@pytest.fixture
async def servers() -> Any:
    made = Servers()
    yield made
    while made.running:
        await made.stop(made.running[0])


async def found(server: ApiServer) -> tuple[list[str], list[str]]:
    """Addresses by Endpoints and by EndpointSlice."""
    await server.core.caches.sync()
    endpoints = server.reader.get(r.ENDPOINTS, "default", "kubernetes")
    slices = server.reader.get(r.ENDPOINT_SLICES, "default", "kubernetes")
    assert endpoints is not None
    assert slices is not None
    return (
        [address["ip"] for subset in endpoints["subsets"] for address in subset["addresses"]],
        [address for endpoint in slices["endpoints"] for address in endpoint["addresses"]],
    )


async def test_servers_that_begin_together_set_up_one_cluster(servers: Servers) -> None:
    started = [await servers.start() for _ in range(3)]

    await asyncio.gather(*(bootstrap(server, config(f"192.0.2.{n + 1}")) for n, server in enumerate(started)))

    for server in started:
        everyone = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
        assert await found(server) == (everyone, everyone)
        assert server.reader.get(r.NAMESPACES, "", "kube-system") is not None
        service = server.reader.get(r.SERVICES, "default", "kubernetes")
        assert service is not None
        assert service["spec"]["clusterIP"] == "10.43.0.1"
        assert [each["metadata"]["name"] for each in server.reader.list(r.IP_ADDRESSES)] == ["10.43.0.1"]


async def test_one_that_stops_is_not_found_any_more_but_the_last_one_is(servers: Servers) -> None:
    first, second = await servers.start(), await servers.start()
    await bootstrap(first, config("192.0.2.1"))
    await bootstrap(second, config("192.0.2.2"))

    await servers.stop(first)
    assert await found(second) == (["192.0.2.2"], ["192.0.2.2"])
    await servers.stop(second)

    third = await servers.start()
    assert await found(third) == (["192.0.2.2"], ["192.0.2.2"])
    await bootstrap(third, config("192.0.2.3"))
    assert await found(third) == (["192.0.2.3"], ["192.0.2.3"])


async def test_one_that_was_killed_is_not_found_when_its_time_is_over(servers: Servers) -> None:
    first = await servers.start()
    await bootstrap(first, config("192.0.2.1"))
    servers.clock.pass_s(LEASE_S)

    second = await servers.start()
    await bootstrap(second, config("192.0.2.2"))

    assert await found(second) == (["192.0.2.2"], ["192.0.2.2"])


async def test_servers_on_other_ports_are_found_there(servers: Servers) -> None:
    first, second = await servers.start(), await servers.start()
    await bootstrap(first, config("192.0.2.1", 6443))
    await bootstrap(second, config("192.0.2.1", 7443))

    endpoints = second.reader.get(r.ENDPOINTS, "default", "kubernetes")
    assert endpoints is not None
    assert [subset["ports"][0]["port"] for subset in endpoints["subsets"]] == [6443, 7443]
    slices = {each["metadata"]["name"]: each["ports"][0]["port"] for each in second.reader.list(r.ENDPOINT_SLICES)}
    assert slices == {"kubernetes": 6443, "kubernetes-at-7443-ipv4": 7443}


async def test_what_one_writes_the_other_reads_and_changes(servers: Servers) -> None:
    first, second = await servers.start(), await servers.start()
    await bootstrap(first, config("192.0.2.1"))

    async def count(server: ApiServer, times: int) -> None:
        for _ in range(times):
            while True:
                await server.core.caches.sync()
                stored = server.reader.get(r.CONFIG_MAPS, "default", "n")
                assert stored is not None
                stored["data"] = {"n": str(int(stored["data"]["n"]) + 1)}
                try:
                    await server.writer.update(r.CONFIG_MAPS, stored)
                    break
                except StatusError as error:
                    if error.code != 409:
                        raise

    await first.writer.create(r.CONFIG_MAPS, {"metadata": {"name": "n", "namespace": "default"}, "data": {"n": "0"}})
    await asyncio.gather(count(first, 30), count(second, 30))

    await second.core.caches.sync()
    final = second.reader.get(r.CONFIG_MAPS, "default", "n")
    assert final is not None
    assert final["data"] == {"n": "60"}
