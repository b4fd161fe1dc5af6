"""Which NUMA nodes containers get their CPUs, memory and devices from; what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from navarch.node.config import KubeletConfig, ManagersConfig, ReservedConfig
from navarch.node.configuration.machine import objections
from navarch.node.devices.ledger import DeviceState, Ledger
from navarch.node.resources.checkpoints import NotRestored
from navarch.node.resources.cpu_manager import CPUManager
from navarch.node.resources.memory_manager import MemoryManager, NotEnoughMemory, checksum
from navarch.node.resources.numa import CPU, Machine
from navarch.node.resources.topology_manager import Hint, Hints, Misaligned, NotAdmitted, TopologyManager
from tests.node.resources.test_numa import two_nodes

GIB = 1 << 30
# Two NUMA nodes of four CPUs and 4 GiB each, of which 1 GiB is reserved.
MACHINE = Machine(
    {cpu: CPU(core=cpu, socket=cpu // 4, node=cpu // 4) for cpu in range(8)},
    {0: {"memory": 4 * GIB}, 1: {"memory": 4 * GIB}},
)
RESERVED = [{"numaNode": node, "limits": {"memory": "1Gi"}} for node in (0, 1)]


class Gpus:
    """A device plugin's devices, two near each node."""

    def __init__(self) -> None:
        near = {f"gpu{node}{which}": DeviceState(True, frozenset({node})) for node in (0, 1) for which in "ab"}
        self.ledger = Ledger({"example.com/gpu": near}, nodes=(0, 1))

    def hints(self, pod: Any, container: Any) -> Hints:
        return self.ledger.hints(pod, container)

    def pod_hints(self, pod: Any) -> Hints:
        return self.ledger.pod_hints(pod)

    def allocate(self, pod: Any, container: Any, near: Hint) -> None:
        self.ledger.reserve(pod, container, near.nodes)

    def release(self, uid: str) -> None:
        self.ledger.keep_only({share.uid for share in self.ledger.given} - {uid})

    def keep_only(self, uids: Any) -> None:
        self.ledger.keep_only(uids)


class Node:
    """All managers of a node with a policy."""

    def __init__(self, place: Path, policy: str, scope: str = "container", machine: Machine = MACHINE) -> None:
        managers = ManagersConfig(
            cpu_policy="static",
            memory_policy="Static",
            reserved_memory=RESERVED,
            topology_policy=policy,
            topology_scope=scope,
        )
        kept = ReservedConfig(kube={"cpu": "1"})
        config = KubeletConfig("n1", place, place, managers=managers, reserved=kept)
        self.cpus, self.memory, self.gpus = CPUManager(config, machine), MemoryManager(config, machine), Gpus()
        self.topology = TopologyManager(managers, machine, [self.gpus, self.cpus, self.memory])
        self.holders: set[str] = set()

    def admit(self, name: str, *containers: dict[str, str], init: dict[str, str] | None = None) -> None:
        spec: dict[str, Any] = {"containers": [_container(f"c{n}", asked) for n, asked in enumerate(containers)]}
        if init:
            spec["initContainers"] = [_container("i", init)]
        pod = {"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": spec}
        self.topology.admit(pod, self.holders)
        self.holders.add(name)

    def nodes(self, name: str, container: str = "c0") -> tuple[set[int], str, set[str]]:
        """Those of a container's CPUs, its memory, and its devices."""
        held = self.gpus.ledger.of(name, container).get("example.com/gpu", ())
        cpus = {MACHINE.cpus[cpu].node for cpu in self.cpus.exclusive(name, container)}
        return cpus, self.memory.mems(name, container), {one[3] for one in held}


def _container(name: str, asked: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "resources": {"limits": dict(asked)}}


def asking(cpu: str, memory: str = "1Gi", gpus: str = "") -> dict[str, str]:
    return {"cpu": cpu, "memory": memory, **({"example.com/gpu": gpus} if gpus else {})}


@pytest.mark.parametrize("policy", ["best-effort", "restricted", "single-numa-node"])
def test_cpus_memory_and_devices_of_a_container_come_from_one_node(tmp_path: Path, policy: str) -> None:
    node = Node(tmp_path, policy)

    node.admit("a", asking("2", gpus="2"))
    node.admit("b", asking("2", gpus="1"))

    assert node.nodes("a") == ({0}, "0", {"0"})
    assert node.nodes("b") == ({1}, "1", {"1"})


def test_what_is_wider_than_a_node_is_refused_where_one_node_is_asked_for(tmp_path: Path) -> None:
    strict, restricted = Node(tmp_path / "a", "single-numa-node"), Node(tmp_path / "b", "restricted")

    with pytest.raises(Misaligned) as refused:
        strict.admit("a", asking("5"))
    restricted.admit("a", asking("5", memory="4Gi"))

    assert refused.value.reason == "TopologyAffinityError"
    assert refused.value.told == "Resources cannot be allocated with Topology locality"
    assert restricted.nodes("a") == ({0, 1}, "0-1", set())


def test_what_would_fit_into_a_node_and_does_not_any_more_is_refused_by_restricted_and_taken_by_best_effort(
    tmp_path: Path,
) -> None:
    for policy, taken in (("restricted", False), ("best-effort", True)):
        node = Node(tmp_path / policy, policy)
        node.admit("a", asking("2", gpus="1"))
        node.admit("b", asking("3", gpus="1"))
        wanted = {"cpu": "2", "memory": "1Gi"}

        if taken:
            node.admit("c", wanted)
            assert len(node.cpus.exclusive("c", "c0")) == 2
        else:
            with pytest.raises(Misaligned):
                node.admit("c", wanted)
            assert not node.cpus.exclusive("c", "c0")


def test_containers_of_a_pod_are_apart_or_together_as_the_scope_says(tmp_path: Path) -> None:
    by_container, by_pod = Node(tmp_path / "a", "single-numa-node"), Node(tmp_path / "b", "single-numa-node", "pod")

    by_container.admit("a", asking("3"), asking("3"))
    by_pod.admit("a", asking("2"), asking("2"))
    with pytest.raises(Misaligned):
        by_pod.admit("b", asking("3"), asking("3"))

    assert {by_container.nodes("a", "c0")[1], by_container.nodes("a", "c1")[1]} == {"0", "1"}
    assert by_pod.nodes("a", "c0") == by_pod.nodes("a", "c1")


def test_a_refused_pod_leaves_nothing_behind(tmp_path: Path) -> None:
    node = Node(tmp_path, "none")

    with pytest.raises(NotAdmitted):
        node.admit("a", asking("2", gpus="1"), asking("7"))

    assert (node.cpus.holders(), node.memory.holders(), node.gpus.ledger.given) == (set(), set(), {})


def test_without_a_policy_memory_still_comes_from_as_few_nodes_as_have_it(tmp_path: Path) -> None:
    node = Node(tmp_path, "none")

    node.admit("a", asking("1", memory="2Gi"))
    node.admit("b", asking("1", memory="2Gi"))
    with pytest.raises(NotEnoughMemory, match="no NUMA nodes with enough memory is available") as refused:
        node.admit("c", asking("1", memory="2Gi"))

    assert (node.nodes("a")[1], node.nodes("b")[1]) == ("0", "1")
    assert refused.value.reason == "UnexpectedAdmissionError"
    assert refused.value.told.startswith("Allocate failed due to [memorymanager] ")


def test_a_node_serves_single_containers_or_those_of_a_group_of_nodes(tmp_path: Path) -> None:
    node = Node(tmp_path, "restricted")
    node.admit("wide", asking("5", memory="4Gi"))

    # There is room on either node, but both serve what is spread over them.
    with pytest.raises(Misaligned):
        node.admit("narrow", asking("1", memory="512Mi"))
    node.holders.clear()
    node.admit("narrow", asking("1", memory="512Mi"))

    assert node.nodes("narrow")[1] == "0"


def test_memory_of_an_init_container_is_had_by_those_after_it(tmp_path: Path) -> None:
    node = Node(tmp_path, "none")

    node.admit("a", asking("1", memory="2Gi"), init=asking("1", memory="3Gi"))
    node.admit("b", asking("1", memory="3Gi"))
    with pytest.raises(NotEnoughMemory):
        node.admit("c", asking("1", memory="512Mi"))

    assert node.nodes("a")[1] == "0"
    assert node.nodes("b")[1] == "1"


def test_a_restart_keeps_who_has_which_memory(tmp_path: Path) -> None:
    before = Node(tmp_path, "restricted")
    before.admit("a", asking("1", memory="2Gi"))

    again = Node(tmp_path, "restricted")

    assert again.memory.mems("a", "c0") == "0"
    state = json.loads((tmp_path / "memory_manager_state").read_text())
    assert (state["policyName"], state["machineState"]["0"]["memoryMap"]["memory"]["free"]) == ("Static", GIB)
    assert state["entries"]["a"]["c0"][0]["numaAffinity"] == [0]
    assert state["checksum"] == checksum(state)
    (tmp_path / "memory_manager_state").write_text(json.dumps({**state, "checksum": 1}))
    with pytest.raises(
        NotRestored, match="checkpoint is corrupted, please drain this node and delete the memory manager"
    ):
        Node(tmp_path, "restricted")
    (tmp_path / "memory_manager_state").unlink()
    assert not Node(tmp_path, "restricted").memory.holders()


def test_memory_that_another_policy_gave_is_not_passed_over(tmp_path: Path) -> None:
    config = KubeletConfig("n1", tmp_path, tmp_path)
    MemoryManager(config, MACHINE)
    MemoryManager(config, MACHINE)

    words = r'\[memorymanager\] configured policy "Static" differs from state checkpoint policy "None"'
    with pytest.raises(NotRestored, match=words):
        MemoryManager(replace(config, managers=ManagersConfig(memory_policy="Static")), MACHINE)


def test_the_checksum_of_memory_is_kubernetes() -> None:
    table = {"total": 2048, "systemReserved": 512, "allocatable": 1536, "reserved": 512, "free": 1024}
    state = {
        "policyName": "static",
        "machineState": {"0": {"numberOfAssignments": 0, "memoryMap": {"memory": table}, "cells": []}},
        "entries": {"pod": {"container1": [{"numaAffinity": [0], "type": "memory", "size": 512}]}},
    }

    assert checksum(state) == 4215593881


def test_a_node_whose_reserved_memory_does_not_add_up_is_refused(tmp_path: Path) -> None:
    root = two_nodes(tmp_path)
    kept = ReservedConfig(kube={"memory": "1Gi"}, system={"memory": "924Mi"})
    managers = ManagersConfig(memory_policy="Static", reserved_memory=RESERVED)
    config = KubeletConfig("n1", tmp_path, tmp_path, managers=managers, reserved=kept)

    assert list(objections(config, root)) == []
    less = replace(config, reserved=ReservedConfig(kube={"memory": "1Gi"}))
    assert "is not equal to the value" in next(objections(less, root))
    none = replace(config, managers=replace(managers, reserved_memory=()))
    assert next(objections(none, root)) == "[memorymanager] you should specify the system reserved memory"


def test_more_nodes_than_can_be_aligned_are_told_of(tmp_path: Path) -> None:
    for node in range(9):
        (tmp_path / f"sys/devices/system/node/node{node}").mkdir(parents=True)
    config = KubeletConfig("n1", tmp_path, tmp_path, managers=ManagersConfig(topology_policy="restricted"))

    assert list(objections(config, tmp_path)) == ["unsupported on machines with more than 8 NUMA Nodes"]
    more = replace(config.managers, topology_options={"max-allowable-numa-nodes": "16"})
    assert list(objections(replace(config, managers=more), tmp_path)) == []


class Asking:
    """Says the same hints always."""

    def __init__(self, **hints: list[Hint] | None) -> None:
        self._hints = hints
        self.near: list[Hint] = []

    def hints(self, pod: Any, container: Any) -> Hints:
        return self._hints

    def pod_hints(self, pod: Any) -> Hints:
        return self._hints

    def allocate(self, pod: Any, container: Any, near: Hint) -> None:
        self.near.append(near)

    def release(self, uid: str) -> None:
        self.near.clear()

    def keep_only(self, uids: Any) -> None: ...


def merged(policy: str, *told: Asking, nodes: int = 4, options: dict[str, str] | None = None) -> Hint:
    machine = Machine(
        {node: CPU(node, node=node) for node in range(nodes)},
        # Nodes 0 and 3 are neighbours.
        distances={0: [10, 30, 30, 11], 1: [30, 10, 30, 30], 2: [30, 30, 10, 30], 3: [11, 30, 30, 10]},
    )
    config = ManagersConfig(topology_policy=policy, topology_options=options or {})
    pod = {"metadata": {"uid": "a"}, "spec": {"containers": [{"name": "c"}]}}
    TopologyManager(config, machine, told).admit(pod, [])
    return told[0].near[0]


def test_who_has_no_opinion_follows_the_others() -> None:
    one = Asking(cpu=[Hint(0b0010, True), Hint(0b0011, False)])

    assert merged("restricted", one, Asking(), Asking(gpu=None)) == Hint(0b0010, True)


def test_who_sees_no_way_makes_it_nobodys_wish() -> None:
    assert merged("best-effort", Asking(cpu=[Hint(1, True)]), Asking(gpu=[])) == Hint(1, False)


def test_wishes_for_different_nodes_are_nobodys_and_as_wide_as_the_most_demanding() -> None:
    one = Asking(cpu=[Hint(0b01, True), Hint(0b11, False)])
    other = Asking(gpu=[Hint(0b11, True)])

    assert merged("best-effort", one, other) == Hint(0b11, False)
    with pytest.raises(Misaligned):
        merged("restricted", one, other)


def test_nodes_that_are_neighbours_come_first_where_that_is_asked_for() -> None:
    wide = [Hint(0b0011, True), Hint(0b0110, True), Hint(0b1001, True)]

    assert merged("restricted", Asking(cpu=wide)) == Hint(0b0011, True)
    near = merged("restricted", Asking(cpu=wide), options={"prefer-closest-numa-nodes": "true"})
    assert near == Hint(0b1001, True)


def test_eight_nodes_are_merged_as_quickly_as_two() -> None:
    every = [Hint(mask, mask.bit_count() == 1) for mask in range(1, 256)]

    # One after the other: all combinations would be 16 million.
    assert merged("restricted", Asking(a=every, b=every, c=every), nodes=8) == Hint(1, True)
