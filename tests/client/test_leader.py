"""Of several replicas of a component one acts: the one that holds the Lease."""

from __future__ import annotations

import asyncio

import pytest

from navarch.api.meta import Obj, Resource
from navarch.client.base import Client
from navarch.client.leader import LeaderElector, LeadershipLost, run_elected
from navarch.testing.embedded import EmbeddedCluster

LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", True)


def elector(client: Client, identity: str) -> LeaderElector:
    return LeaderElector(client, "acting", identity, lease_s=1.0, renew_deadline_s=0.6, retry_s=0.05)


class Replica:
    """A component that notes when it acts."""

    def __init__(self, client: Client, identity: str) -> None:
        self.acts = asyncio.Event()
        self.task = asyncio.create_task(run_elected(elector(client, identity), self._act))

    async def _act(self) -> None:
        self.acts.set()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def holder(client: Client) -> str:
    lease = await client.find(LEASES, "acting", "kube-system")
    return "" if lease is None else str(lease["spec"].get("holderIdentity") or "")


async def test_one_acts_and_another_takes_over_when_it_ends() -> None:
    async with EmbeddedCluster(controllers=False) as cluster, asyncio.timeout(30):
        first = Replica(cluster.client, "one")
        await first.acts.wait()
        second = Replica(cluster.client, "two")
        renewed = await lease_of(cluster.client)
        while (await lease_of(cluster.client))["spec"]["renewTime"] == renewed["spec"]["renewTime"]:
            await asyncio.sleep(0.01)
        assert not second.acts.is_set(), "the holder has renewed; nobody else may act"

        await first.stop()
        await second.acts.wait()

        assert await holder(cluster.client) == "two"
        await second.stop()
        assert await holder(cluster.client) == "", "who ends gives the Lease up"


async def test_who_leads_again_after_another_begins_anew() -> None:
    async with EmbeddedCluster(controllers=False) as cluster, asyncio.timeout(30):
        replica = Replica(cluster.client, "one")
        await replica.acts.wait()

        # Another took the Lease while this replica could not renew it, and has let go of it since.
        lease = await lease_of(cluster.client)
        await take(cluster.client, lease, "two")
        with pytest.raises(LeadershipLost):
            await replica.task


async def lease_of(client: Client) -> Obj:
    return await client.get(LEASES, "acting", "kube-system")


async def take(client: Client, lease: Obj, identity: str) -> None:
    """Write the Lease as its new holder would, however often the old one is quicker."""
    patch = {"spec": {"holderIdentity": identity, "leaseDurationSeconds": 1}}
    await client.patch(LEASES, lease["metadata"]["name"], lease["metadata"]["namespace"], patch)
