"""Which CPUs containers have for themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from navarch.node.config import KubeletConfig, ManagersConfig, ReservedConfig
from navarch.node.resources.checkpoints import NotRestored
from navarch.node.resources.cpu_manager import CPUManager, NotEnoughCPUs, WholeCoresOnly, checksum
from navarch.node.resources.numa import CPU, Machine
from navarch.node.resources.topology_manager import TopologyManager

# Four cores of two threads each.
SMALL = Machine({cpu: CPU(core=cpu % 4) for cpu in range(8)})
# Two sockets, each of two NUMA nodes of two cores of two threads: node 0 has CPUs 0, 1, 8, 9.
BIG = Machine({cpu: CPU(cpu % 8, cpu % 8 // 4, cpu % 8 // 2, cpu % 8 // 2) for cpu in range(16)})


class Node:
    """A CPU manager, asked as the kubelet asks it."""

    def __init__(
        self, place: Path, machine: Machine = SMALL, options: dict[str, str] | None = None, topology: str = "none"
    ) -> None:
        managers = ManagersConfig(cpu_policy="static", cpu_options=options or {}, topology_policy=topology)
        kept = ReservedConfig(kube={"cpu": "500m"})
        self.cpus = CPUManager(KubeletConfig("n1", place, place, managers=managers, reserved=kept), machine)
        self._topology = TopologyManager(managers, machine, [self.cpus])

    def admit(self, name: str, cpu: str, *, init: str = "") -> frozenset[int]:
        self._topology.admit(pod(name, cpu, init=init), self.cpus.holders())
        return self.cpus.exclusive(name, "c")


def pod(name: str, cpu: str, *, init: str = "") -> dict[str, Any]:
    def container(called: str, amount: str) -> dict[str, Any]:
        return {"name": called, "resources": {"limits": {"cpu": amount, "memory": "1Gi"}}}

    spec: dict[str, Any] = {"containers": [container("c", cpu)]}
    if init:
        spec["initContainers"] = [container("i", init)]
    return {"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": spec}


def test_whole_cores_come_before_single_threads_and_the_rest_is_shared(tmp_path: Path) -> None:
    node = Node(tmp_path)

    assert node.admit("a", "2") == {1, 5}

    assert node.cpus.cpuset("a", "c") == "1,5"
    assert node.cpus.cpuset("other", "c") == "0,2-4,6-7"
    # A thread of the core whose other one is reserved.
    assert node.admit("b", "1") == {4}


def test_parts_of_cpus_are_shared(tmp_path: Path) -> None:
    node = Node(tmp_path)

    assert not node.admit("a", "1500m")
    assert node.cpus.cpuset("a", "c") == "0-7"


def test_reserved_cpus_are_not_shared_where_that_is_asked_for(tmp_path: Path) -> None:
    assert Node(tmp_path, options={"strict-cpu-reservation": "true"}).cpus.cpuset("a", "c") == "1-7"


def test_a_pod_that_asks_for_more_than_is_free_is_refused_and_gets_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.admit("a", "6")

    with pytest.raises(NotEnoughCPUs, match="requested=2, available=1") as refused:
        node.admit("b", "2")

    assert refused.value.reason == "UnexpectedAdmissionError"
    assert not node.cpus.exclusive("b", "c")


def test_what_an_init_container_had_the_others_take_over(tmp_path: Path) -> None:
    node = Node(tmp_path)

    node.admit("a", "2", init="4")

    assert node.cpus.exclusive("a", "c") < node.cpus.exclusive("a", "i")


def test_a_restart_keeps_who_has_what_and_gone_pods_give_back(tmp_path: Path) -> None:
    Node(tmp_path).admit("a", "2")

    again = Node(tmp_path)

    assert again.cpus.cpuset("a", "c") == "1,5"
    # Admitted anew it keeps what it has.
    assert again.admit("a", "2") == {1, 5}
    assert again.cpus.release("a")
    assert again.cpus.cpuset("b", "c") == "0-7"


@pytest.mark.parametrize(
    ("default", "entries", "expected"),
    [
        ("", {}, 1353318690),
        ("4-6", {}, 354655845),
        ("1-3", {"pod": {"container1": "4-6", "container2": "1-3"}}, 3610638499),
    ],
)
def test_the_checksum_is_kubernetes(default: str, entries: dict[str, Any], expected: int) -> None:
    assert checksum({"policyName": "none", "defaultCpuSet": default, "entries": entries}) == expected


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"checksum": 1}, "checkpoint is corrupted"),
        (
            {"policyName": "none", "checksum": 0},
            'configured policy "static" differs from state checkpoint policy "none"',
        ),
        ({"entries": {"a": {"c": "x"}}, "checksum": 0}, "could not parse cpuset"),
        (None, "checkpoint is corrupted"),
    ],
)
def test_what_is_written_has_its_checksum_and_nothing_else_is_believed_until_it_is_removed(
    tmp_path: Path, change: dict[str, Any] | None, why: str
) -> None:
    Node(tmp_path).admit("a", "2")
    (file,) = tmp_path.rglob("cpu_manager_state")
    state = json.loads(file.read_text())
    assert state["checksum"] == checksum(state)
    assert Node(tmp_path).cpus.exclusive("a", "c") == {1, 5}

    file.write_text("{" if change is None else json.dumps({**state, **change}))

    with pytest.raises(NotRestored, match=f"^could not restore state from checkpoint: {why}") as refused:
        Node(tmp_path)
    words = f'please drain this node and delete the CPU manager checkpoint file "{file}" before restarting Kubelet'
    assert str(refused.value).endswith(words)
    file.unlink()
    assert Node(tmp_path).cpus.exclusive("a", "c") == frozenset()


def test_without_a_policy_that_is_written_down(tmp_path: Path) -> None:
    CPUManager(KubeletConfig("n1", tmp_path, tmp_path), SMALL)

    state = json.loads((tmp_path / "cpu_manager_state").read_text())
    assert state == {"policyName": "none", "defaultCpuSet": "", "checksum": 1353318690}


def test_whole_nodes_and_sockets_come_first(tmp_path: Path) -> None:
    node = Node(tmp_path, BIG)

    assert node.admit("a", "8") == {4, 5, 6, 7, 12, 13, 14, 15}
    assert node.admit("b", "4") == {2, 3, 10, 11}


def test_full_cores_only_refuses_odd_threads_and_what_is_left_beside_reserved_ones(tmp_path: Path) -> None:
    node = Node(tmp_path, options={"full-pcpus-only": "true"})

    with pytest.raises(WholeCoresOnly, match="requested 3 cpus not multiple cpus per core = 2") as odd:
        node.admit("a", "3")
    node.admit("b", "6")
    words = "available physical CPUs = 0, requested CPUs = 2, CPUs per core = 2"
    with pytest.raises(WholeCoresOnly, match=words):
        node.admit("c", "2")

    assert (odd.value.reason, odd.value.told[:20]) == ("SMTAlignmentError", "SMT Alignment Error:")


def test_cpus_come_evenly_from_as_few_nodes_as_have_them_where_that_is_asked_for(tmp_path: Path) -> None:
    node = Node(tmp_path, BIG, {"distribute-cpus-across-numa": "true", "full-pcpus-only": "true"})

    given = node.admit("a", "6")

    assert sorted(sum(1 for cpu in given if BIG.cpus[cpu].node == one) for one in range(4)) in (
        [0, 0, 2, 4],
        [0, 2, 2, 2],
    )
    assert len({BIG.cpus[cpu].core for cpu in given}) == 3
    assert {BIG.cpus[cpu].node for cpu in node.admit("b", "2")} < {0, 1, 2, 3}


def test_a_whole_cache_comes_before_cores_of_several(tmp_path: Path) -> None:
    # One node with three caches of two cores.
    machine = Machine({cpu: CPU(cpu // 2, cache=cpu // 4) for cpu in range(12)})
    node = Node(tmp_path, machine, {"prefer-align-cpus-by-uncorecache": "true"})

    assert node.admit("a", "2") == {2, 3}
    assert node.admit("b", "4") == {4, 5, 6, 7}
    assert node.admit("c", "2") == {8, 9}


def test_nodes_of_one_socket_are_as_good_as_one_where_sockets_are_what_counts(tmp_path: Path) -> None:
    by_node = Node(tmp_path / "a", BIG).cpus.hints(pod("a", "4"), pod("a", "4")["spec"]["containers"][0])["cpu"]
    by_socket = Node(tmp_path / "b", BIG, {"align-by-socket": "true"}).cpus.hints(
        pod("a", "4"), pod("a", "4")["spec"]["containers"][0]
    )["cpu"]

    assert {one.nodes for one in by_node or () if one.preferred} == {0b0010, 0b0100, 0b1000}
    assert {one.nodes for one in by_socket or () if one.preferred} == {0b0010, 0b0100, 0b1000, 0b0011, 0b1100}


def test_cpus_are_near_what_the_topology_manager_says(tmp_path: Path) -> None:
    node = Node(tmp_path, BIG, topology="single-numa-node")

    given = [node.admit(name, "3") for name in ("a", "b", "c", "d")]

    assert [len({BIG.cpus[cpu].node for cpu in cpus}) for cpus in given] == [1, 1, 1, 1]
