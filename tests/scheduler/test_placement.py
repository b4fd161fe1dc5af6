"""Where pods go, and what people are told when they cannot go anywhere."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import pytest

from navarch.client import resources
from navarch.scheduler import Plugin, SchedulerConfig, default_profile
from navarch.scheduler.config import features_of
from navarch.scheduler.framework import BoolArray
from navarch.scheduler.podinfo import PodInfo
from navarch.scheduler.table import NodeTable
from tests.scheduler.conftest import World

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"


async def test_a_pod_goes_to_the_node_with_most_room(world: World) -> None:
    world.node("small", cpu="1")
    world.node("large", cpu="8")
    world.pod("web", cpu="500m", memory="64Mi")

    async with world.scheduling():
        assert world.where("web") == "large"
        assert ("web", "Scheduled", "Successfully assigned default/web to large") in world.events


async def test_pods_fill_nodes_evenly(world: World) -> None:
    for i in range(5):
        world.node(f"node-{i}")
    for i in range(20):
        world.pod(f"web-{i}", cpu="100m", memory="64Mi")

    async with world.scheduling():
        await world.until(lambda: all(world.where(f"web-{i}") for i in range(20)))

    assert set(Counter(world.where(f"web-{i}") for i in range(20)).values()) == {4}


async def test_the_message_counts_nodes_per_reason(world: World) -> None:
    world.node("a", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    world.node("b", cpu="1")
    world.node("c", cpu="1")
    world.pod("big", cpu="2")

    async with world.scheduling():
        await world.until(lambda: world.message("big"))

    assert world.message("big") == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. "
        "no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    assert ("big", "FailedScheduling", world.message("big")) in world.events


RESTART_ALL = "RestartAllContainersOnContainerExits"
STARTS_OVER = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]
STARTS_AGAIN = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]


async def test_a_pod_goes_only_where_the_features_that_it_needs_are_declared(world: World) -> None:
    world.node("large", cpu="64")
    world.node("able", cpu="1", features=["Another", RESTART_ALL])
    world.pod("needs", cpu="100m", rules=STARTS_OVER)
    world.pod("plain", cpu="100m", rules=STARTS_AGAIN)

    async with world.scheduling():
        await world.until(lambda: world.where("needs") and world.where("plain"))

    assert (world.where("needs"), world.where("plain")) == ("able", "large")


async def test_a_pod_waits_for_a_node_that_declares_what_it_needs(world: World) -> None:
    world.node("old", cpu="4", features=["Another"])
    world.pod("needs", rules=STARTS_OVER)

    async with world.scheduling():
        await world.until(lambda: world.message("needs"))
        assert world.message("needs") == (
            "0/1 nodes are available: 1 node(s) didn't match Pod's required features. no new claims to deallocate, "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
        world.node("old", cpu="4", features=["Another", RESTART_ALL])
        await world.until(lambda: world.where("needs") == "old")


async def test_where_nodes_declare_nothing_by_default_nothing_is_asked_of_them(world: World) -> None:
    world.node("old")
    world.pod("needs", rules=STARTS_OVER)

    async with world.scheduling(SchedulerConfig(profiles=[default_profile(features=features_of("1.35"))])):
        await world.until(lambda: world.where("needs") == "old")


async def test_without_nodes_the_message_says_so(world: World) -> None:
    world.pod("web")

    async with world.scheduling():
        await world.until(lambda: world.message("web"))

        assert world.message("web") == "no nodes available to schedule pods"

        world.node("a")

        await world.until(lambda: world.where("web") == "a")


async def test_a_full_node_that_lower_pods_do_not_occupy_offers_no_victims(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("first", cpu="1", nodeName="a")
    world.pod("second", cpu="1")

    async with world.scheduling():
        await world.until(lambda: world.message("second"))

    assert world.message("second") == (
        "0/1 nodes are available: 1 Insufficient cpu. "
        "no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for "
        "incoming pod."
    )


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, "node(s) didn't match Pod's node affinity/selector"),
        ({"extended": {"nvidia.com/gpu": "1"}}, "Insufficient nvidia.com/gpu"),
        ({"memory": "9Gi"}, "Insufficient memory"),
        (
            {"ports": [{"containerPort": 80, "hostPort": 80}]},
            "node(s) didn't have free ports for the requested pod ports",
        ),
        (
            {"topologySpreadConstraints": [{"topologyKey": "rack", "maxSkew": 1, "labelSelector": {}}]},
            "node(s) didn't match pod topology spread constraints (missing required label)",
        ),
    ],
)
async def test_a_node_that_cannot_take_the_pod_says_why(world: World, spec: dict[str, Any], reason: str) -> None:
    world.node("a")
    world.pod("taken", ports=[{"containerPort": 80, "hostPort": 80}], nodeName="a")
    world.pod("web", **spec)

    async with world.scheduling():
        await world.until(lambda: world.message("web"))

    assert world.message("web").startswith(f"0/1 nodes are available: 1 {reason}.")


async def test_a_cordoned_node_takes_nothing_until_it_is_uncordoned(world: World) -> None:
    world.node("a", unschedulable=True)
    world.pod("web")
    async with world.scheduling():
        await world.until(lambda: world.message("web"))
        assert "1 node(s) were unschedulable" in world.message("web")

        world.node("a")

        await world.until(lambda: world.where("web") == "a")


async def test_a_waiting_pod_takes_the_room_of_a_deleted_one(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("first", cpu="1", nodeName="a")
    world.pod("second", cpu="1")
    async with world.scheduling():
        await world.until(lambda: world.message("second"))

        world.remove(resources.PODS, "first")

        await world.until(lambda: world.where("second") == "a")


async def test_ended_pods_take_no_room(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("first", cpu="1", nodeName="a")
    world.pod("second", cpu="1")
    async with world.scheduling():
        await world.until(lambda: world.message("second"))

        world.change_pod("first", status={"phase": "Succeeded"})

        await world.until(lambda: world.where("second") == "a")


async def test_a_failed_binding_gives_the_room_back_and_is_tried_again(world: World) -> None:
    world.node("a", cpu="1")
    world.fail_bindings = 2
    world.pod("web", cpu="1")

    async with world.scheduling():
        await world.until(lambda: world.where("web") == "a")


async def test_higher_priority_goes_first(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("low", cpu="1", priority=1)
    world.pod("high", cpu="1", priority=10)

    async with world.scheduling():
        await world.until(lambda: world.where("high"))

        assert (world.where("low"), world.where("high")) == ("", "a")


async def test_gated_pods_wait_for_their_gates(world: World) -> None:
    world.node("a")
    world.pod("web", schedulingGates=[{"name": "example.com/wait"}])
    async with world.scheduling():
        await world.settle()
        assert world.where("web") == ""

        world.change_pod("web", spec={"schedulingGates": []})

        await world.until(lambda: world.where("web") == "a")


async def test_pods_of_other_schedulers_are_left_alone(world: World) -> None:
    world.node("a")
    world.pod("theirs", schedulerName="somebody")
    world.pod("ours")

    async with world.scheduling():
        await world.until(lambda: world.where("ours"))

        assert world.where("theirs") == ""


async def test_hard_spreading_keeps_zones_level(world: World) -> None:
    for i, zone in enumerate("aabbc"):
        world.node(f"n{i}", labels={ZONE: zone})
    constraint = {"topologyKey": ZONE, "maxSkew": 1, "labelSelector": {"matchLabels": {"app": "web"}}}
    for i in range(9):
        world.pod(f"web-{i}", labels={"app": "web"}, topologySpreadConstraints=[constraint])

    async with world.scheduling():
        await world.until(lambda: all(world.where(f"web-{i}") for i in range(9)))

    zones = {"n0": "a", "n1": "a", "n2": "b", "n3": "b", "n4": "c"}
    assert Counter(zones[world.where(f"web-{i}")] for i in range(9)) == {"a": 3, "b": 3, "c": 3}


async def test_pods_of_a_replica_set_are_spread_over_zones_by_default(world: World) -> None:
    world.node("a1", labels={ZONE: "a"}, cpu="64", memory="64Gi")
    world.node("b1", labels={ZONE: "b"}, cpu="4", memory="8Gi")
    selector = {"matchLabels": {"app": "web"}}
    metadata = {"name": "web", "namespace": "default", "uid": "rs"}
    world.put(resources.REPLICA_SETS, {"metadata": metadata, "spec": {"selector": selector}})
    owner = {"kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": True}
    for i in range(4):
        world.pod(f"web-{i}", labels={"app": "web"}, owner=owner, cpu="100m")

    async with world.scheduling():
        await world.until(lambda: all(world.where(f"web-{i}") for i in range(4)))

    assert Counter(world.where(f"web-{i}") for i in range(4)) == {"a1": 2, "b1": 2}


def _affinity(kind: str, key: str) -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


async def test_anti_affinity_allows_one_pod_per_node(world: World) -> None:
    world.node("a")
    world.node("b")
    for i in range(3):
        world.pod(f"web-{i}", labels={"app": "web"}, affinity=_affinity("podAntiAffinity", HOST))

    async with world.scheduling():
        await world.until(lambda: any(world.message(f"web-{i}") for i in range(3)))

    placed = [world.where(f"web-{i}") for i in range(3)]
    left = next(i for i in range(3) if not placed[i])
    assert sorted(placed) == ["", "a", "b"]
    assert "2 node(s) didn't match pod anti-affinity rules" in world.message(f"web-{left}")


async def test_anti_affinity_of_a_pod_that_is_there_keeps_others_away(world: World) -> None:
    world.node("a")
    world.pod("loner", affinity=_affinity("podAntiAffinity", HOST), nodeName="a")
    world.pod("web", labels={"app": "web"})

    async with world.scheduling():
        await world.until(lambda: world.message("web"))

    assert "1 node(s) didn't satisfy existing pods anti-affinity rules" in world.message("web")


async def test_affinity_follows_the_first_pod_of_the_group(world: World) -> None:
    world.node("a", labels={ZONE: "a"})
    world.node("b", labels={ZONE: "b"})
    for i in range(3):
        world.pod(f"web-{i}", labels={"app": "web"}, affinity=_affinity("podAffinity", ZONE))

    async with world.scheduling():
        await world.until(lambda: all(world.where(f"web-{i}") for i in range(3)))

    assert len({world.where(f"web-{i}") for i in range(3)}) == 1


async def test_preferences_decide_between_nodes_that_are_alike(world: World) -> None:
    world.node("a")
    world.node("b", labels={"disk": "ssd"})
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    preferred = [{"weight": 1, "preference": term}]
    world.pod("web", affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}})

    async with world.scheduling():
        assert world.where("web") == "b"


async def test_a_missing_claim_keeps_the_pod_pending_until_it_is_bound(world: World) -> None:
    world.node("a", labels={ZONE: "a"})
    world.node("b", labels={ZONE: "b"})
    world.pod("db", volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])
    async with world.scheduling():
        await world.until(lambda: world.message("db"))
        assert world.message("db").startswith('0/2 nodes are available: persistentvolumeclaim "data" not found.')

        term = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["b"]}]}
        affinity = {"required": {"nodeSelectorTerms": [term]}}
        world.put(resources.PERSISTENT_VOLUMES, {"metadata": {"name": "pv"}, "spec": {"nodeAffinity": affinity}})
        claim = {"metadata": {"name": "data", "namespace": "default"}, "spec": {"volumeName": "pv"}}
        world.put(resources.PERSISTENT_VOLUME_CLAIMS, {**claim, "status": {"phase": "Bound"}})

        await world.until(lambda: world.where("db") == "b")


async def test_a_claim_for_one_pod_is_used_by_one_pod_at_a_time(world: World) -> None:
    world.node("a")
    claim = {"metadata": {"name": "data", "namespace": "default"}, "status": {"phase": "Bound"}}
    claim["spec"] = {"volumeName": "pv", "accessModes": ["ReadWriteOncePod"]}
    world.put(resources.PERSISTENT_VOLUMES, {"metadata": {"name": "pv"}, "spec": {}})
    world.put(resources.PERSISTENT_VOLUME_CLAIMS, claim)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    world.pod("first", volumes=volumes, nodeName="a")
    world.pod("second", volumes=volumes)
    async with world.scheduling():
        await world.until(lambda: world.message("second"))
        assert "1 node has pod using PersistentVolumeClaim with the same name" in world.message("second")

        world.remove(resources.PODS, "first")

        await world.until(lambda: world.where("second") == "a")


class OnlyEven(Plugin):
    """A user's plugin."""

    name = "OnlyEven"

    def filter(self, pod: PodInfo, nodes: NodeTable) -> BoolArray:
        return nodes.numbers % 2 == 0  # type: ignore[no-any-return]


async def test_a_users_plugin_takes_part(world: World) -> None:
    for i in range(4):
        world.node(f"n{i}")
    for i in range(8):
        world.pod(f"web-{i}")
    profile = default_profile()
    profile.plugins.append(OnlyEven())

    async with world.scheduling(SchedulerConfig(profiles=[profile])):
        await world.until(lambda: all(world.where(f"web-{i}") for i in range(8)))

    assert {world.where(f"web-{i}") for i in range(8)} == {"n0", "n2"}


class Faulty(Plugin):
    """A plugin with a mistake."""

    name = "Faulty"

    def __init__(self) -> None:
        self.failures = 1

    def binds(self, pod: PodInfo) -> bool:
        return True

    async def pre_bind(self, pod: PodInfo, node: Any, environment: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise ValueError("a mistake")


async def test_a_plugin_that_fails_costs_another_try_only(world: World) -> None:
    world.node("a")
    world.pod("web")
    profile = default_profile()
    profile.plugins.append(Faulty())

    async with world.scheduling(SchedulerConfig(profiles=[profile], first_backoff_s=0.01)):
        await world.until(lambda: world.where("web") == "a")


async def test_a_pod_deleted_while_it_is_bound_leaves_its_room_to_others(world: World) -> None:
    world.node("a", cpu="1")
    world.pod("first", cpu="1", priority=1)
    world.pod("second", cpu="1")
    bind = world.create

    async def late(resource: Any, obj: Any, **options: Any) -> Any:
        if obj["metadata"]["name"] == "first" and options.get("subresource") == "binding":
            world.remove(resources.PODS, "first")
            return obj
        return await bind(resource, obj, **options)

    world.create = late  # type: ignore[method-assign]

    async with world.scheduling():
        await world.until(lambda: world.where("second") == "a")


async def test_of_a_placed_pod_only_the_newest_version_is_held(world: World) -> None:
    world.node("a")
    world.pod("web", cpu="100m")
    # What a node has allocated is another look at the pod than the one with which it was placed.
    allocated = {"name": "c", "allocatedResources": {"cpu": "100m"}}

    async with world.scheduling() as scheduler:
        await world.until(lambda: world.where("web"))
        world.change_pod("web", status={"phase": "Running", "containerStatuses": [allocated]})
        await world.settle()
        gc.collect()
        held = [each for each in gc.get_objects() if type(each) is PodInfo and each.uid == "uid-web"]

        assert [info.obj["status"]["phase"] for info in held] == ["Running"]
        assert scheduler is not None
