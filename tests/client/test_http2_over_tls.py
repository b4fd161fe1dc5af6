"""Our clients and our API server over TLS: what they agree on, and how few connections that takes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from navarch.apiserver.http import HTTPFront
from navarch.client.base import Client
from navarch.client.http import HTTPTransport
from navarch.client.informer import Informers
from navarch.kinds.resources import CONFIG_MAPS, SECRETS
from navarch.testing.embedded import EmbeddedCluster
from navarch.tls import HTTP1_ONLY, PROTOCOLS, tls_context
from tests.apiserver.http2.wire import eventually


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(controllers=False) as cluster:
        await cluster.serve()
        yield cluster


class Served:
    """A front of the cluster's API server, and clients of it."""

    def __init__(self, cluster: EmbeddedCluster, protocols: Sequence[str]) -> None:
        self.cluster = cluster
        self.pki = pki = cluster.config.pki
        self.front = HTTPFront(cluster.server)
        self.tls = tls_context(pki / "apiserver.crt", pki / "apiserver.key", pki / "ca.crt", protocols)
        self.port = 0

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        tls = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        tls.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        client = Client(HTTPTransport(f"https://127.0.0.1:{self.port}", tls=tls))
        try:
            yield client
        finally:
            await client.close()

    @property
    def connections(self) -> int:
        """Those that speak HTTP/2."""
        return len(self.front._http2.connections)


@asynccontextmanager
async def served(cluster: EmbeddedCluster, protocols: Sequence[str] = PROTOCOLS) -> AsyncIterator[Served]:
    each = Served(cluster, protocols)
    each.port = await each.front.start("127.0.0.1", 0, each.tls)
    try:
        yield each
    finally:
        await each.front.stop()


def map_of(name: str, text: str = "") -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "default"}, "data": {"text": text}}


async def test_eighty_watches_and_as_many_requests_are_one_connection(cluster: EmbeddedCluster) -> None:
    async with asyncio.timeout(60), served(cluster) as server, server.client() as client:
        informers = Informers(client)
        several = [informers.get(CONFIG_MAPS, namespace="default", labels=f"n={index}") for index in range(80)]
        running = asyncio.create_task(informers.run())
        await informers.synced()
        for index in range(80):
            metadata = {"name": f"m{index}", "labels": {"n": str(index)}}
            await client.create(CONFIG_MAPS, {"metadata": metadata}, namespace="default")
        await eventually(lambda: all(len(informer) == 1 for informer in several))

        assert server.connections == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        # What nobody follows any more ends on the server, too.
        await eventually(lambda: not cluster.server.core.metrics.watches)
        assert server.connections == 1


async def test_more_watches_than_a_connection_may_have_are_two(cluster: EmbeddedCluster) -> None:
    async with asyncio.timeout(60), served(cluster) as server, server.client() as client:
        informers = Informers(client)
        for index in range(130):
            informers.get(SECRETS, namespace="default", labels=f"n={index}")
        running = asyncio.create_task(informers.run())
        await informers.synced()
        await eventually(lambda: cluster.server.core.metrics.watches == 130)
        await client.create(CONFIG_MAPS, map_of("beside"))

        assert server.connections == 2
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_long_objects_and_long_lists(cluster: EmbeddedCluster) -> None:
    text = "".join(chr(33 + index % 90) for index in range(900_000))
    async with asyncio.timeout(60), served(cluster) as server, server.client() as client:
        await asyncio.gather(*(client.create(CONFIG_MAPS, map_of(f"long-{index}", text)) for index in range(5)))
        listed = await client.list(CONFIG_MAPS, "default")

        assert sum(obj["data"].get("text") == text for obj in listed.items) == 5
        assert server.connections == 1


async def test_a_server_that_speaks_http1_alone_serves_requests_and_watches(cluster: EmbeddedCluster) -> None:
    async with asyncio.timeout(60), served(cluster, HTTP1_ONLY) as server, server.client() as client:
        informers = Informers(client)
        informer = informers.get(CONFIG_MAPS, namespace="default")
        running = asyncio.create_task(informers.run())
        await informers.synced()
        await asyncio.gather(*(client.create(CONFIG_MAPS, map_of(f"m{index}")) for index in range(50)))
        await eventually(lambda: informer.get("default", "m49") is not None)

        assert server.connections == 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_after_a_new_certificate_requests_go_over_a_new_connection_and_watches_go_on(
    cluster: EmbeddedCluster,
) -> None:
    async with asyncio.timeout(60), served(cluster) as server, server.client() as client:
        informers = Informers(client)
        informer = informers.get(CONFIG_MAPS, namespace="default")
        running = asyncio.create_task(informers.run())
        await informers.synced()
        await eventually(lambda: cluster.server.core.metrics.watches == 1)
        assert isinstance(client.transport, HTTPTransport)
        client.transport.reconnect()
        await client.create(CONFIG_MAPS, map_of("after"))
        await eventually(lambda: informer.get("default", "after") is not None)

        assert server.connections == 2
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await eventually(lambda: server.connections == 1)
