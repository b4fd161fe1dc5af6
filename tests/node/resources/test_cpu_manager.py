"""Which CPUs containers have for themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from navarch.node.config import KubeletConfig, ManagersConfig, ReservedConfig
from navarch.node.resources.cpu_manager import CPUManager, NotEnoughCPUs, cores_of

# Four cores of two threads each.
CORES = {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}


def manager(place: Path, **options: str) -> CPUManager:
    managers = ManagersConfig(cpu_policy="static", cpu_options=options)
    kept = ReservedConfig(kube={"cpu": "500m"})
    return CPUManager(KubeletConfig("n1", place, place, managers=managers, reserved=kept), CORES)


def pod(name: str, cpu: str, *, init: str = "") -> dict[str, Any]:
    def container(called: str, amount: str) -> dict[str, Any]:
        return {"name": called, "resources": {"limits": {"cpu": amount, "memory": "1Gi"}}}

    spec: dict[str, Any] = {"containers": [container("c", cpu)]}
    if init:
        spec["initContainers"] = [container("i", init)]
    return {"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": spec}


def test_whole_cores_come_before_single_threads_and_the_rest_is_shared(tmp_path: Path) -> None:
    cpus = manager(tmp_path)

    assert cpus.reserve(pod("a", "2"), ["a"])

    assert cpus.cpuset("a", "c") == "1,5"
    assert cpus.cpuset("other", "c") == "0,2-4,6-7"
    cpus.reserve(pod("b", "1"), ["a", "b"])
    # A thread of the core whose other one is reserved.
    assert cpus.cpuset("b", "c") == "4"


def test_parts_of_cpus_are_shared(tmp_path: Path) -> None:
    cpus = manager(tmp_path)

    assert not cpus.reserve(pod("a", "1500m"), ["a"])
    assert cpus.cpuset("a", "c") == "0-7"


def test_reserved_cpus_are_not_shared_where_that_is_asked_for(tmp_path: Path) -> None:
    assert manager(tmp_path, **{"strict-cpu-reservation": "true"}).cpuset("a", "c") == "1-7"


def test_a_pod_that_asks_for_more_than_is_free_is_refused_and_gets_nothing(tmp_path: Path) -> None:
    cpus = manager(tmp_path)
    cpus.reserve(pod("a", "6"), ["a"])

    with pytest.raises(NotEnoughCPUs, match="requested=2, available=1"):
        cpus.reserve(pod("b", "2"), ["a", "b"])

    assert not cpus.exclusive("b", "c")


def test_what_an_init_container_had_the_others_take_over(tmp_path: Path) -> None:
    cpus = manager(tmp_path)

    cpus.reserve(pod("a", "2", init="4"), ["a"])

    assert cpus.exclusive("a", "c") < cpus.exclusive("a", "i")


def test_a_restart_keeps_who_has_what_and_gone_pods_give_back(tmp_path: Path) -> None:
    manager(tmp_path).reserve(pod("a", "2"), ["a"])

    again = manager(tmp_path)

    assert again.cpuset("a", "c") == "1,5"
    assert again.release("a")
    assert again.cpuset("b", "c") == "0-7"


def test_cpus_are_read_with_their_cores(tmp_path: Path) -> None:
    place = tmp_path / "sys/devices/system/cpu"
    for cpu in (0, 1):
        (place / f"cpu{cpu}/topology").mkdir(parents=True)
        (place / f"cpu{cpu}/topology/thread_siblings_list").write_text("0-1\n")
    (place / "online").write_text("0-1\n")

    assert cores_of(tmp_path) == {0: "0-1", 1: "0-1"}
