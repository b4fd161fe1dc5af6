"""A cluster that machines may join, and who may do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from navarch.apiserver.user import User
from navarch.client.base import Client
from navarch.client.resources import CONFIG_MAPS, SECRETS
from navarch.cluster.invitation import ca_hash, new_token, token_secret, told_to_nodes
from navarch.cluster.joining import Found, Invitation, discover
from navarch.testing.embedded import EmbeddedCluster


@dataclass
class Server:
    """A cluster that machines may join, and a token for it."""

    cluster: EmbeddedCluster
    url: str
    token: str

    @property
    def hash(self) -> str:
        return ca_hash((self.cluster.config.pki / "ca.crt").read_bytes())

    @property
    def client(self) -> Client:
        return self.cluster.client

    def invitation(self, **changes: str) -> Invitation:
        stated = {"server": self.url, "token": self.token, "pin": self.hash, **changes}
        return Invitation.of(stated["server"], stated["token"], stated["pin"])

    async def discovered(self, invitation: Invitation) -> Found:
        return await asyncio.to_thread(discover, invitation)

    async def until(self, look: Callable[[], Any]) -> Any:
        async with asyncio.timeout(30):
            while not (found := await look()):
                await asyncio.sleep(0.02)
            return found

    async def signed(self) -> None:
        async def look() -> bool:
            info = await self.client.get(CONFIG_MAPS, "cluster-info", "kube-public")
            return f"jws-kubeconfig-{self.token.partition('.')[0]}" in info["data"]

        await self.until(look)

    def as_node(self, name: str) -> Client:
        return self.cluster.client_as(User(f"system:node:{name}", ("system:nodes", "system:authenticated")))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with EmbeddedCluster(nodes=0) as cluster:
        await cluster.serve()
        made = Server(cluster, f"https://127.0.0.1:{cluster.config.port}", new_token())
        for told in told_to_nodes(cluster.config):
            await cluster.client.create(CONFIG_MAPS, told)
        await cluster.client.create(SECRETS, token_secret(made.token, now=datetime.now(UTC), ttl_s=3600))
        await made.signed()
        yield made
