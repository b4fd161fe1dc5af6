"""Several API servers over one store, in memory and etcd: what only one may have is given once, what is counted is
counted once, and either may go at any time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.admission.chain import AdmissionConfig, default_chain
from navarch.apiserver.allocation.keys import NODE_PORTS
from navarch.apiserver.allocation.services import AllocationConfig
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK
from navarch.client.base import Client
from navarch.client.local import LocalTransport
from navarch.kinds import resources as r
from navarch.store.base import Store
from navarch.store.etcd.store import EtcdStore
from navarch.store.etcd.target import parse
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld
from tests.store.etcd_server import MISSING, Etcd, etcd_binary

_PREFIXES = count(1)


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    if etcd_binary() is None:
        pytest.skip(MISSING)
    with Etcd() as server:
        yield server


@pytest.fixture(params=["memory", "etcd"])
def opened(request: pytest.FixtureRequest) -> Callable[[], Store]:
    """How each server opens the common store."""
    if request.param == "memory":
        shared = MemoryStore()
        return lambda: shared
    url = f"{request.getfixturevalue('etcd').url}/writers-{next(_PREFIXES)}"
    return lambda: EtcdStore(parse(url))


async def serve(store: Store, seed: int) -> ApiServer:
    world = RealWorld(seed)
    server = ApiServer(store, world=world)
    chain = default_chain(server.reader, server.writer, AdmissionConfig(), world)
    server.use(admission=chain, allocation=AllocationConfig())
    await server.start()
    return server


def client_of(server: ApiServer) -> Client:
    return Client(LocalTransport(server.as_user(LOOPBACK)))


@pytest.fixture
async def servers(opened: Callable[[], Store]) -> AsyncIterator[list[ApiServer]]:
    made = [await serve(opened(), seed) for seed in (1, 2)]
    first = client_of(made[0])
    await first.create(r.NAMESPACES, {"metadata": {"name": "default"}})
    await first.create(r.SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
    await made[1].core.caches.sync()
    yield made
    for server in made:
        await server.stop()


def service(name: str) -> Obj:
    spec = {"type": "NodePort", "ports": [{"port": 80}]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def pod(name: str) -> Obj:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def test_2000_services_at_once_have_2000_addresses_and_ports(servers: list[ApiServer]) -> None:
    clients = [client_of(server) for server in servers]

    async def make(index: int) -> Obj:
        return await clients[index % 2].create(r.SERVICES, service(f"s{index}"))

    made: list[Obj] = []
    for start in range(0, 2000, 200):
        made += await asyncio.gather(*map(make, range(start, start + 200)))

    for server in servers:
        await server.core.caches.sync()
        stored = {obj["metadata"]["name"]: obj["spec"] for obj in server.reader.list(r.SERVICES)}
        assert stored == {obj["metadata"]["name"]: obj["spec"] for obj in made}
        ports = Counter(spec["ports"][0]["nodePort"] for spec in stored.values())
        given = Counter(spec["clusterIP"] for spec in stored.values())
        assert len(ports) == len(given) == len(stored) == 2000
        keys = {int(obj["metadata"]["name"]) for obj in server.reader.list(NODE_PORTS)}
        assert keys == set(ports)
        assert {obj["metadata"]["name"] for obj in server.reader.list(r.IP_ADDRESSES)} == set(given)


async def test_services_that_go_through_either_server_give_back_what_they_had(servers: list[ApiServer]) -> None:
    one, two = map(client_of, servers)
    for index in range(20):
        await one.create(r.SERVICES, service(f"s{index}"))

    await asyncio.gather(*(two.delete(r.SERVICES, f"s{index}", "default") for index in range(20)))

    await servers[0].core.caches.sync()
    assert list(servers[0].reader.list(r.IP_ADDRESSES)) == []
    assert list(servers[0].reader.list(NODE_PORTS)) == []


async def test_a_quota_holds_over_all_servers(servers: list[ApiServer]) -> None:
    clients = [client_of(server) for server in servers]
    quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "7"}}}
    await clients[0].create(r.RESOURCE_QUOTAS, quota)
    await servers[1].core.caches.sync()

    answers = await asyncio.gather(
        *(clients[index % 2].create(r.PODS, pod(f"p{index}")) for index in range(20)), return_exceptions=True
    )

    refused = [answer for answer in answers if isinstance(answer, StatusError)]
    assert all("exceeded quota: q" in error.message for error in refused), refused
    assert len(answers) - len(refused) == 7
    await servers[0].core.caches.sync()
    assert len(list(servers[0].reader.list(r.PODS))) == 7
    assert (await clients[1].get(r.RESOURCE_QUOTAS, "q", "default"))["status"]["used"] == {"pods": "7"}


async def test_a_client_that_goes_away_leaves_no_quota_behind(servers: list[ApiServer]) -> None:
    client = client_of(servers[0])
    quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "100"}}}
    await client.create(r.RESOURCE_QUOTAS, quota)

    for index in range(40):
        asked = asyncio.create_task(client.create(r.PODS, pod(f"p{index}")))
        # Somewhere on its way: before it is counted, between that and its commit, after. The last few stay.
        for _ in range(index % 20):
            await asyncio.sleep(0.0001 * (index // 20))
        if index < 35:
            asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    await servers[0].core.caches.sync()
    stored = len(list(servers[0].reader.list(r.PODS)))
    assert stored >= 5
    assert (await client.get(r.RESOURCE_QUOTAS, "q", "default"))["status"]["used"] == {"pods": str(stored)}
