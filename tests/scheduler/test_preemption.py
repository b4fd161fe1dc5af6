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
    assert world.related["Preempted"] == "high"


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


async def test_it_tells_what_is_short_even_without_the_lesser_pods(world: World) -> None:
    world.node("a", cpu="2")
    world.node("b", cpu="2")
    world.node("c", cpu="1")
    world.pod("same", cpu="1", priority=10, nodeName="a")
    world.pod("low", cpu="1", priority=1, nodeName="a")
    world.pod("other", cpu="1", priority=10, nodeName="b")
    world.pod("high", cpu="2", priority=10)

    async with world.scheduling():
        await world.until(lambda: world.message("high"))

    assert world.message("high") == (
        "0/3 nodes are available: 3 Insufficient cpu. no new claims to deallocate, preemption: "
        "0/3 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling."
    )


async def test_it_tells_what_else_keeps_the_pod_away_from_a_node_without_the_lesser_pods(world: World) -> None:
    world.node("a", cpu="1")
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    world.pod("db", priority=10, nodeName="a", labels={"app": "db"})
    world.pod("low", cpu="1", priority=1, nodeName="a")
    world.pod("high", cpu="1", priority=10, affinity=apart)

    async with world.scheduling():
        await world.until(lambda: world.message("high"))

    assert world.message("high").endswith(
        "preemption: 0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."
    )


async def test_victims_that_end_already_are_waited_for_and_not_removed_again(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("low", cpu="1", priority=1, nodeName="a")
    ending = world.informers.get(resources.PODS).get("default", "low")
    assert ending is not None
    world.put(
        resources.PODS, {**ending, "metadata": {**ending["metadata"], "deletionTimestamp": "2026-01-01T00:00:30Z"}}
    )
    world.pod("high", cpu="1", priority=10)

    async with world.scheduling():
        await world.until(lambda: world.nominated("high") == "a")

        assert not [event for event in world.events if event[1] == "Preempted"]
        world.remove(resources.PODS, "low")

        await world.until(lambda: world.where("high") == "a")


async def test_a_pod_waits_for_its_victims_instead_of_taking_more(world: World) -> None:
    world.node("a", cpu="1")
    world.graceful = True
    world.pod("low", cpu="1", priority=1, nodeName="a")
    world.pod("lower", priority=0, nodeName="a")
    world.pod("high", cpu="1", priority=10)

    async with world.scheduling() as scheduler:
        await world.until(lambda: world.nominated("high") == "a")
        scheduler.queue.retry_all()
        waits = "preemption: not eligible due to a terminating pod on the nominated node."
        await world.until(lambda: world.message("high").endswith(waits))

        assert [event[0] for event in world.events if event[1] == "Preempted"] == ["low"]
        condition = world.condition("low", "DisruptionTarget")
        assert condition["reason"] == "PreemptionByScheduler"
        assert condition["message"] == "default-scheduler: preempting to accommodate a higher priority pod"
        world.remove(resources.PODS, "low")

        await world.until(lambda: world.where("high") == "a")


async def test_a_budget_that_selects_by_nothing_protects_nothing(world: World) -> None:
    world.node("a", cpu="1")
    world.node("b", cpu="1")
    world.pod("less", cpu="1", priority=1, nodeName="a", labels={"app": "db"})
    world.pod("more", cpu="1", priority=5, nodeName="b")
    budget: dict[str, Any] = {"metadata": {"name": "all", "namespace": "default"}, "status": {"disruptionsAllowed": 0}}
    world.put(resources.POD_DISRUPTION_BUDGETS, {**budget, "spec": {"selector": {}}})
    world.pod("high", cpu="1", priority=10)

    async with world.scheduling():
        await world.until(lambda: world.where("high"))

    assert world.where("high") == "a"


async def test_a_pod_that_names_its_nodes_is_told_of_the_others_in_one_word(world: World) -> None:
    world.node("a", cpu="1")
    world.node("b", unschedulable=True)
    world.node("c", taints=[{"key": "k", "effect": "NoSchedule"}])
    field = {"key": "metadata.name", "operator": "In", "values": ["a"]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]}}
    world.pod("daemon", cpu="2", affinity={"nodeAffinity": required})

    async with world.scheduling():
        await world.until(lambda: world.message("daemon"))

    assert world.message("daemon").startswith(
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    )


async def test_a_pod_whose_terms_name_no_node_at_all_is_told_so(world: World) -> None:
    world.node("a")
    fields = [{"key": "metadata.name", "operator": "In", "values": [name]} for name in "ab"]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": fields}]}}
    world.pod("web", affinity={"nodeAffinity": required})

    async with world.scheduling():
        await world.until(lambda: world.message("web"))

    assert world.message("web") == "0/1 nodes are available: pod affinity terms conflict. not found"
