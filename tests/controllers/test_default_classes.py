"""What a cluster has only once it has nodes: an API server in a test has no default class that nobody asked for."""

from __future__ import annotations

import asyncio

from navarch.api.meta import annotations_of
from navarch.client.resources import (
    INGRESS_CLASSES,
    INGRESSES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    STORAGE_CLASSES,
)
from navarch.testing.embedded import EmbeddedCluster

CLAIM = {
    "metadata": {"name": "data", "namespace": "default"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
INGRESS = {
    "metadata": {"name": "site", "namespace": "default"},
    "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
}


async def test_an_object_that_is_a_node_on_paper_brings_no_default_classes() -> None:
    async with EmbeddedCluster(nodes=0) as cluster:
        client = cluster.client
        await client.create(NODES, {"metadata": {"name": "paper"}})
        async with asyncio.timeout(30):
            # Controllers have seen it by then.
            while "node.alpha.kubernetes.io/ttl" not in annotations_of(await client.get(NODES, "paper")):
                await asyncio.sleep(0.05)
            claim = await client.create(PERSISTENT_VOLUME_CLAIMS, CLAIM)
            ingress = await client.create(INGRESSES, INGRESS)

        assert "storageClassName" not in claim["spec"]
        assert "ingressClassName" not in ingress["spec"]
        assert (await client.list(STORAGE_CLASSES)).items == []
        assert (await client.list(INGRESS_CLASSES)).items == []


async def test_simulated_nodes_keep_directories_and_serve_no_ingresses() -> None:
    async with EmbeddedCluster(nodes=1) as cluster:
        async with asyncio.timeout(30):
            while not (classes := (await cluster.client.list(STORAGE_CLASSES)).items):
                await asyncio.sleep(0.05)

        assert [each["metadata"]["name"] for each in classes] == ["local-path"]
        assert (await cluster.client.list(INGRESS_CLASSES)).items == []
