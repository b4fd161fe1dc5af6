"""Preemption: whom it removes, and whom it spares."""

from __future__ import annotations

from typing import Any

from navarch.client import resources
from tests.scheduler.conftest import World


async def test_a_pod_of_higher_priority_takes_the_place_of_a_lower_one(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("low", cpu="1", priority=1, nodeName="a")
    world.pod("high", cpu="1", priority=10)

    async with world.scheduling():
        await world.until(lambda: world.where("high") == "a")

    assert world.informers.get(resources.PODS).get("default", "low") is None
    assert ("low", "Preempted", "Preempted by pod uid-high on node a") in world.events


async def test_it_removes_no_more_than_needed_and_the_least_important(world: World) -> None:
    world.node("a", cpu="3")
    for name, priority in (("one", 1), ("two", 2), ("three", 3)):
        world.pod(name, cpu="1", priority=priority, nodeName="a")
    world.pod("high", cpu="1", priority=10)

    async with world.scheduling():
        await world.until(lambda: world.where("high") == "a")

    left = {pod["metadata"]["name"] for pod in world.informers.get(resources.PODS).list()}
    assert left == {"two", "three", "high"}


async def test_it_prefers_the_node_with_the_less_important_victim(world: World) -> None:
    world.node("a", cpu="1")
    world.node("b", cpu="1")
    world.pod("on-a", cpu="1", priority=5, nodeName="a")
    world.pod("on-b", cpu="1", priority=4, nodeName="b")
    world.pod("high", cpu="1", priority=10)

    async with world.scheduling():
        await world.until(lambda: world.where("high"))

    assert world.where("high") == "b"


async def test_it_spares_pods_that_a_budget_protects_where_it_can(world: World) -> None:
    world.node("a", cpu="1")
    world.node("b", cpu="1")
    world.pod("protected", cpu="1", priority=1, nodeName="a", labels={"app": "db"})
    world.pod("unprotected", cpu="1", priority=5, nodeName="b")
    budget: dict[str, Any] = {"metadata": {"name": "db", "namespace": "default"}, "status": {"disruptionsAllowed": 0}}
    budget["spec"] = {"selector": {"matchLabels": {"app": "db"}}}
    world.put(resources.POD_DISRUPTION_BUDGETS, budget)
    world.pod("high", cpu="1", priority=10)

    async with world.scheduling():
        await world.until(lambda: world.where("high"))

    assert world.where("high") == "b"


async def test_a_pod_whose_policy_is_never_waits(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("low", cpu="1", priority=1, nodeName="a")
    world.pod("high", cpu="1", priority=10, preemptionPolicy="Never")

    async with world.scheduling():
        await world.until(lambda: world.message("high"))

    assert world.where("low") == "a"
    assert world.message("high").endswith("preemption: not eligible due to preemptionPolicy=Never.")


async def test_promised_room_is_kept_from_lesser_pods(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("promised", cpu="1", priority=10, schedulingGates=[{"name": "example.com/x"}])
    world.change_pod("promised", status={"nominatedNodeName": "a"})
    world.pod("lesser", cpu="1", priority=1)

    async with world.scheduling():
        await world.until(lambda: world.message("lesser"))

        assert world.where("lesser") == ""
        assert world.message("lesser").startswith("0/1 nodes are available: 1 Insufficient cpu.")
