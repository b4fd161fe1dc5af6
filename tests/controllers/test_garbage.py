"""Garbage collection: the graph on its own, and deletion against a real API server."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj, name_of, owner_references_of
from navarch.client.resources import CONFIG_MAPS, NODES, SECRETS
from navarch.controllers.garbage.graph import Graph
from tests.controllers.conftest import Cluster, node


def config_map(name: str, *owners: Obj, blocks: bool = False) -> Obj:
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": name_of(owner),
            "uid": owner["metadata"]["uid"],
            **({"blockOwnerDeletion": True} if blocks else {}),
        }
        for owner in owners
    ]
    metadata: dict[str, Any] = {"name": name, "namespace": "default", "ownerReferences": references}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def observed(uid: str, *owners: str, **metadata: Any) -> Obj:
    references = [{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": owner} for owner in owners]
    return {"metadata": {"name": uid, "namespace": "default", "uid": uid, "ownerReferences": references, **metadata}}


def test_a_dependent_seen_before_its_owner_makes_the_owner_doubtful() -> None:
    graph = Graph()

    changes = graph.observe(CONFIG_MAPS, observed("child", "parent"))

    assert changes.examine == ["parent"]
    assert graph.nodes["parent"].virtual
    graph.observe(CONFIG_MAPS, observed("parent"))
    assert not graph.nodes["parent"].virtual
    assert set(graph.nodes["parent"].dependents) == {"child"}


def test_the_end_of_an_owner_concerns_its_dependents() -> None:
    graph = Graph()
    graph.observe(CONFIG_MAPS, observed("parent"))
    graph.observe(CONFIG_MAPS, observed("child", "parent"))

    changes = graph.remove("parent")

    assert changes.examine == ["child"]
    assert graph.is_gone("parent")
    assert graph.observe(CONFIG_MAPS, observed("late", "parent")).examine == ["late"]


def test_letting_go_of_the_last_dependent_forgets_a_ghost() -> None:
    graph = Graph()
    graph.observe(CONFIG_MAPS, observed("child", "ghost"))

    graph.observe(CONFIG_MAPS, observed("child"))

    assert "ghost" not in graph.nodes


def test_a_waiting_owner_is_looked_at_when_a_dependent_goes() -> None:
    graph = Graph()
    graph.observe(CONFIG_MAPS, observed("child", "parent"))
    waiting = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
    assert graph.observe(CONFIG_MAPS, observed("parent", **waiting)).examine == ["child", "parent"]

    assert graph.remove("child").examine == ["parent"]


async def test_chains_are_collected_to_the_end(cluster: Cluster) -> None:
    first = await cluster.create(CONFIG_MAPS, config_map("a"))
    second = await cluster.create(CONFIG_MAPS, config_map("b", first))
    await cluster.create(CONFIG_MAPS, config_map("c", second))

    await cluster.client.delete(CONFIG_MAPS, "a", "default")

    await cluster.until_count(CONFIG_MAPS, 0)


async def test_an_object_with_another_owner_stays(cluster: Cluster) -> None:
    first = await cluster.create(CONFIG_MAPS, config_map("a"))
    second = await cluster.create(CONFIG_MAPS, config_map("b"))
    await cluster.create(CONFIG_MAPS, config_map("shared", first, second))

    await cluster.client.delete(CONFIG_MAPS, "a", "default")

    async def released() -> bool:
        return len(owner_references_of(await cluster.get(CONFIG_MAPS, "shared"))) == 1

    await cluster.until(released)


async def test_an_owner_that_never_was_does_not_keep_an_object(cluster: Cluster) -> None:
    phantom = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "never", "uid": "no-such-uid"}}

    await cluster.create(CONFIG_MAPS, config_map("a", phantom))

    await cluster.until_count(CONFIG_MAPS, 0)


async def test_an_owner_of_the_same_name_is_not_the_same_owner(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
    owner = await cluster.create(SECRETS, secret)
    impostor = {**owner, "metadata": {**owner["metadata"], "uid": "another-uid"}}

    await cluster.create(CONFIG_MAPS, config_map("kept", owner))
    await cluster.create(CONFIG_MAPS, config_map("lost", impostor))

    [left] = await cluster.until_count(CONFIG_MAPS, 1)
    assert name_of(left) == "kept"


async def test_cluster_scoped_owners_hold_namespaced_objects(cluster: Cluster) -> None:
    owner = await cluster.create(NODES, node("n7"))
    await cluster.create(CONFIG_MAPS, config_map("a", owner))
    assert await cluster.list(CONFIG_MAPS)

    await cluster.client.delete(NODES, "n7")

    await cluster.until_count(CONFIG_MAPS, 0)


async def test_foreground_deletion_waits_for_blocking_dependents_only(cluster: Cluster) -> None:
    owner = await cluster.create(CONFIG_MAPS, config_map("owner"))
    held = config_map("held", owner, blocks=True)
    held["metadata"]["finalizers"] = ["example.com/wait"]
    await cluster.create(CONFIG_MAPS, held)

    await cluster.client.delete(CONFIG_MAPS, "owner", "default", propagation="Foreground")

    async def held_is_going() -> bool:
        return bool((await cluster.get(CONFIG_MAPS, "held"))["metadata"].get("deletionTimestamp"))

    await cluster.until(held_is_going)
    assert "foregroundDeletion" in (await cluster.get(CONFIG_MAPS, "owner"))["metadata"]["finalizers"]
    await cluster.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}})
    await cluster.until_count(CONFIG_MAPS, 0)
