"""CSI drivers make themselves known by a socket, and the cluster is told of them."""

from __future__ import annotations

from typing import Any

import grpc

from navarch.api.meta import annotations_of, labels_of
from navarch.client.resources import CSI_NODES, NODES
from tests.csi_driver import NAME
from tests.node.csi.conftest import Storage


async def drivers_of(storage: Storage) -> list[dict[str, Any]]:
    found = await storage.admin.find(CSI_NODES, "n1")
    return (found or {"spec": {}})["spec"].get("drivers") or []


async def test_a_node_without_drivers_says_so(storage: Storage) -> None:
    async def has_owner() -> bool:
        found = await storage.admin.find(CSI_NODES, "n1")
        return found is not None and found["metadata"]["ownerReferences"][0]["kind"] == "Node"

    await storage.node.until_async(has_owner)
    assert await drivers_of(storage) == []


async def test_a_driver_that_registers_is_told_of_in_csinode_and_node(storage: Storage) -> None:
    async with storage.driver(topology={"example.com/zone": "z1"}, limit=7) as driver:
        await storage.node.until(lambda: driver.told)

        assert driver.told == [(True, "")]
        entry = {"name": NAME, "nodeID": "node-1", "topologyKeys": ["example.com/zone"], "allocatable": {"count": 7}}
        assert await drivers_of(storage) == [entry]
        node = await storage.admin.get(NODES, "n1")
        assert labels_of(node)["example.com/zone"] == "z1"
        assert annotations_of(node)["csi.volume.kubernetes.io/nodeid"] == f'{{"{NAME}":"node-1"}}'


async def test_a_driver_that_goes_is_withdrawn(storage: Storage) -> None:
    async with storage.driver() as driver:
        await storage.node.until(lambda: driver.told)

    async def withdrawn() -> bool:
        node = await storage.admin.get(NODES, "n1")
        return not await drivers_of(storage) and "csi.volume.kubernetes.io/nodeid" not in annotations_of(node)

    await storage.node.until_async(withdrawn)


async def test_a_driver_that_starts_again_registers_again(storage: Storage) -> None:
    first = storage.driver(limit=3)
    await first.start()
    await storage.node.until(lambda: first.told)
    await first.stop()

    async with storage.driver(limit=5) as second:
        await storage.node.until(lambda: second.told)

        assert [one["allocatable"] for one in await drivers_of(storage)] == [{"count": 5}]


async def test_a_driver_of_another_major_version_is_refused_and_told_why(storage: Storage) -> None:
    async with storage.driver(versions=("0.3.0",)) as driver:
        await storage.node.until(lambda: driver.told)

        registered, why = driver.told[0]
        assert not registered
        assert "None of the CSI versions reported by this driver are supported" in why
        assert await drivers_of(storage) == []


async def test_a_plugin_of_an_unknown_type_is_refused_and_told_why(storage: Storage) -> None:
    async with storage.driver(kind="Other") as driver:
        await storage.node.until(lambda: driver.told)

        assert driver.told[0][1].startswith("no handler registered for plugin type: Other at socket ")


async def test_a_driver_that_fails_is_asked_again(storage: Storage) -> None:
    driver = storage.driver()
    driver.refuse["NodeGetInfo"] = (grpc.StatusCode.INTERNAL, "not yet")
    async with driver:
        await storage.node.until(lambda: driver.told)
        assert driver.told[0] == (False, "rpc error: code = Internal desc = not yet")
        driver.refuse.clear()

        await storage.node.until(lambda: driver.told[-1][0])

        assert [one["name"] for one in await drivers_of(storage)] == [NAME]
