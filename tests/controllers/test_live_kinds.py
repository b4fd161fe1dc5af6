"""Kinds that come while a cluster runs are garbage collected, emptied from namespaces and counted by quotas; those that
go take nothing with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource
from navarch.client.resources import CONFIG_MAPS, NAMESPACES, RESOURCE_QUOTAS
from navarch.controllers.base import ControllerConfig
from navarch.controllers.discovery import Discovery
from navarch.kinds.resources import CUSTOM_RESOURCE_DEFINITIONS
from tests.apiserver.crd.definitions import definition, gadget
from tests.apiserver.widgets import widget, widgets
from tests.controllers.conftest import Cluster, running
from tests.controllers.test_garbage import config_map

WIDGETS = widgets()[0].resource


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running(ControllerConfig(discovery_interval_s=0.2), namespaces=("other",)) as made:
        yield made


async def make(cluster: Cluster, obj: Obj, namespace: str = "default") -> Obj:
    obj["metadata"]["namespace"] = namespace
    return await cluster.create(WIDGETS, obj)


def owned(name: str, owner: Obj) -> Obj:
    return config_map(name, owner)


async def collector_has_looked(cluster: Cluster) -> None:
    """At all that was there before: it has collected something whose owner never was."""
    nobody: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nobody", "uid": "none"}}
    await cluster.create(CONFIG_MAPS, owned("lost", nobody))

    async def gone() -> bool:
        return await cluster.client.find(CONFIG_MAPS, "lost", "default") is None

    await cluster.until(gone)


async def test_what_an_object_of_a_new_kind_owned_goes_with_it(cluster: Cluster) -> None:
    await cluster.server.serve(*widgets())
    owner = await make(cluster, widget("a", size=1))
    await cluster.create(CONFIG_MAPS, owned("child", owner))
    await collector_has_looked(cluster)
    assert await cluster.get(CONFIG_MAPS, "child")

    await cluster.client.delete(WIDGETS, "a", "default")
    await cluster.until_count(CONFIG_MAPS, 0)


async def test_objects_of_a_new_kind_are_collected_themselves(cluster: Cluster) -> None:
    await cluster.server.serve(*widgets())
    owner = await cluster.create(CONFIG_MAPS, config_map("owner"))
    body = widget("a", size=1)
    body["metadata"] |= {"ownerReferences": config_map("x", owner)["metadata"]["ownerReferences"]}
    await make(cluster, body)

    await cluster.client.delete(CONFIG_MAPS, "owner", "default")
    await cluster.until_count(WIDGETS, 0)


async def test_a_kind_that_goes_takes_nothing_with_it_and_can_come_back(cluster: Cluster) -> None:
    await cluster.server.serve(*widgets())
    owner = await make(cluster, widget("a", size=1))
    await cluster.create(CONFIG_MAPS, owned("child", owner))
    await collector_has_looked(cluster)
    await cluster.server.withdraw("example.com", "widgets", stored="keep")
    # Long enough for the collector to notice, and to look for the owner.
    await asyncio.sleep(1.0)
    await collector_has_looked(cluster)
    assert await cluster.get(CONFIG_MAPS, "child")

    await cluster.server.serve(*widgets())
    await cluster.client.delete(WIDGETS, "a", "default")
    await cluster.until_count(CONFIG_MAPS, 0)


async def test_a_namespace_is_emptied_of_new_kinds(cluster: Cluster) -> None:
    await cluster.server.serve(*widgets())
    for name in ("a", "b"):
        await make(cluster, widget(name, size=1), "other")
    await cluster.client.delete(NAMESPACES, "other")

    async def gone() -> bool:
        return await cluster.client.find(NAMESPACES, "other") is None

    await cluster.until(gone)
    assert (await cluster.client.list(WIDGETS, "other")).items == []


async def test_quotas_count_new_kinds(cluster: Cluster) -> None:
    hard = {"count/widgets.example.com": "2"}
    quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}}
    await cluster.create(RESOURCE_QUOTAS, quota)
    await cluster.server.serve(*widgets())
    for name in ("a", "b"):
        await make(cluster, widget(name, size=1))

    with pytest.raises(Exception, match="exceeded quota: q"):
        await make(cluster, widget("c", size=1))
    await cluster.client.delete(WIDGETS, "a", "default")
    await make(cluster, widget("c", size=1))
    found = await cluster.get(RESOURCE_QUOTAS, "q")
    assert found["status"]["used"] == {"count/widgets.example.com": "2"}


async def test_a_quota_made_later_counts_what_is_there(cluster: Cluster) -> None:
    await cluster.server.serve(*widgets())
    for name in ("a", "b"):
        await make(cluster, widget(name, size=1))
    hard = {"count/widgets.example.com": "5"}
    await cluster.create(RESOURCE_QUOTAS, {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}})

    async def counted() -> bool:
        found = await cluster.get(RESOURCE_QUOTAS, "q")
        return bool(found.get("status", {}).get("used") == {"count/widgets.example.com": "2"})

    await cluster.until(counted)


async def test_what_a_definition_defines_is_collected_emptied_and_counted(cluster: Cluster) -> None:
    made = definition()
    await cluster.create(CUSTOM_RESOURCE_DEFINITIONS, made)
    gadgets = Resource("example.com", "v1", "gadgets", "Gadget", True)

    async def created(name: str, namespace: str = "default") -> Obj | None:
        body = gadget(name, size=1)
        body["metadata"]["namespace"] = namespace
        try:
            return await cluster.client.create(gadgets, body)
        except StatusError as error:
            if error.code != 404:
                raise
            return None

    owners: list[Obj] = []

    async def served() -> bool:
        owners.extend(each for each in [await created("a")] if each is not None)
        return bool(owners)

    await cluster.until(served)
    await cluster.create(CONFIG_MAPS, owned("child", owners[0]))
    hard = {"count/gadgets.example.com": "1"}
    await cluster.create(RESOURCE_QUOTAS, {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}})

    async def counted() -> bool:
        found = await cluster.get(RESOURCE_QUOTAS, "q")
        return bool(found.get("status", {}).get("used") == {"count/gadgets.example.com": "1"})

    await cluster.until(counted)
    with pytest.raises(StatusError, match="exceeded quota: q"):
        await created("b")

    await created("c", "other")
    await cluster.client.delete(NAMESPACES, "other")

    async def emptied() -> bool:
        return await cluster.client.find(NAMESPACES, "other") is None

    await cluster.until(emptied)

    # The objects go with their definition, and what they own with them.
    await cluster.client.delete(CUSTOM_RESOURCE_DEFINITIONS, made["metadata"]["name"])
    await cluster.until_count(CUSTOM_RESOURCE_DEFINITIONS, 0)
    await cluster.until_count(CONFIG_MAPS, 0)


async def test_discovery_is_read_anew_only_when_it_has_changed(cluster: Cluster) -> None:
    discovery = Discovery(cluster.client)
    first = await discovery.served()
    known = dict(discovery._known)

    assert await discovery.served() == first
    assert all(discovery._known[root][1] is known[root][1] for root in known)
    await cluster.server.serve(*widgets())
    assert WIDGETS in {served.resource for served in await discovery.served()}
    await cluster.server.withdraw("example.com", "widgets", stored="delete")
    assert WIDGETS not in {served.resource for served in await discovery.served()}
