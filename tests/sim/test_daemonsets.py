"""DaemonSets while nodes and selectors change, and rollbacks that leave alone what never changed. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from navarch.api.meta import Obj, uid_of
from navarch.client.base import Client, PatchKind
from navarch.client.resources import DAEMON_SETS, NODES, PODS
from navarch.sim.virtual import VirtualWorld, run
from navarch.testing.embedded import EmbeddedCluster

LABELS = {"app": "agent"}


def daemon_set(**spec: Any) -> Obj:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "main", "image": "agent:1"}], **spec}}
    body = {"selector": {"matchLabels": LABELS}, "template": template}
    return {"metadata": {"name": "agent", "namespace": "default"}, "spec": body}


def in_a_cluster(play: Callable[[Client], Awaitable[None]], *, nodes: int) -> None:
    async def main(world: VirtualWorld) -> None:
        async with EmbeddedCluster(nodes=nodes, world=world) as cluster:
            await play(cluster.client)

    run(main, seed=1)


async def settled(client: Client) -> dict[str, Obj]:
    """The pods by node, once everything has had its time."""
    await asyncio.sleep(90)
    return {pod["spec"]["nodeName"]: pod for pod in (await client.list(PODS, "default")).items}


async def colour(client: Client, node: str, colour: str | None) -> None:
    await client.patch(NODES, node, "", {"metadata": {"labels": {"colour": colour}}}, kind=PatchKind.MERGE)


async def change_template(client: Client, template: Obj) -> None:
    await client.patch(DAEMON_SETS, "agent", "default", {"spec": {"template": template}}, kind=PatchKind.STRATEGIC)


def test_pods_follow_the_labels_of_nodes_and_the_selector() -> None:
    async def play(client: Client) -> None:
        await client.create(DAEMON_SETS, daemon_set(nodeSelector={"colour": "blue"}))
        assert await settled(client) == {}

        await colour(client, "node-1", "blue")
        assert list(await settled(client)) == ["node-1"]

        await colour(client, "node-1", "green")
        assert await settled(client) == {}

        await change_template(client, {"spec": {"nodeSelector": {"colour": "green"}}})
        assert list(await settled(client)) == ["node-1"]

        await change_template(client, {"spec": {"nodeSelector": None}})
        assert sorted(await settled(client)) == ["node-1", "node-2", "node-3"]
        status = (await client.get(DAEMON_SETS, "agent", "default"))["status"]
        assert (status["desiredNumberScheduled"], status["numberReady"], status["numberMisscheduled"]) == (3, 3, 0)

    in_a_cluster(play, nodes=3)


def test_a_rollback_restarts_only_what_was_updated() -> None:
    async def play(client: Client) -> None:
        await client.create(DAEMON_SETS, daemon_set())
        before = await settled(client)
        good = (await client.get(DAEMON_SETS, "agent", "default"))["spec"]["template"]

        never_starts = {"annotations": {"sim.navarch.dev/waiting-reason": "ImagePullBackOff"}}
        bad = {"metadata": never_starts, "spec": {"containers": [{"name": "main", "image": "no-such:1"}]}}
        await change_template(client, bad)
        stuck = await settled(client)
        replaced = [node for node in before if uid_of(stuck[node]) != uid_of(before[node])]
        assert len(replaced) == 1
        assert stuck[replaced[0]]["status"]["phase"] == "Pending"

        back = [{"op": "replace", "path": "/spec/template", "value": good}]
        await client.patch(DAEMON_SETS, "agent", "default", back, kind=PatchKind.JSON)
        after = await settled(client)
        assert {pod["status"]["phase"] for pod in after.values()} == {"Running"}
        assert {pod["spec"]["containers"][0]["image"] for pod in after.values()} == {"agent:1"}
        assert [node for node in before if uid_of(after[node]) != uid_of(before[node])] == replaced

    in_a_cluster(play, nodes=4)
