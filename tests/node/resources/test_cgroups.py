"""What pods' cgroups say, on both versions of cgroups, on prepared trees."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from navarch.node.config import CgroupsConfig, KubeletConfig, ReservedConfig
from navarch.node.resources import cgroups
from navarch.node.resources.allocatable import enforce
from navarch.node.resources.amounts import container_resources
from navarch.node.resources.cgroups import cgroup_parent, make_pod_cgroup
from tests.node.objects import pod, resources

GI = 1 << 30
BOUNDED = resources({}, {"cpu": "500m", "memory": "1Gi"})


def unified(place: Path) -> Path:
    (place / "cgroup.controllers").write_text("cpu memory pids\n")
    return place


def split(place: Path) -> Path:
    for name in ("cpu", "memory", "pids"):
        (place / name).mkdir()
    return place


def config(place: Path, **fields: object) -> KubeletConfig:
    return KubeletConfig("n1", place, place, cgroup_root="/nv", **fields)  # type: ignore[arg-type]


def test_a_pods_cgroup_in_the_unified_tree(tmp_path: Path) -> None:
    make_pod_cgroup(pod(BOUNDED), "/nv/podu", CgroupsConfig(pod_pids=50), unified(tmp_path))

    place = tmp_path / "nv" / "podu"
    found = {name: (place / name).read_text() for name in ("cpu.max", "memory.max", "pids.max")}
    assert found == {"cpu.max": "50000 100000", "memory.max": str(GI), "pids.max": "50"}


def test_a_pods_cgroup_in_the_trees_of_before(tmp_path: Path) -> None:
    make_pod_cgroup(pod(BOUNDED), "/nv/podu", CgroupsConfig(pod_pids=50, cpu_period_us=10_000), split(tmp_path))

    assert (tmp_path / "cpu/nv/podu/cpu.cfs_quota_us").read_text() == "5000"
    assert (tmp_path / "cpu/nv/podu/cpu.cfs_period_us").read_text() == "10000"
    assert (tmp_path / "memory/nv/podu/memory.limit_in_bytes").read_text() == str(GI)
    assert (tmp_path / "pids/nv/podu/pids.max").read_text() == "50"


HUGE = resources({}, {"hugepages-2Mi": "4Mi", "memory": "1Gi"})


@pytest.fixture
def page_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with huge pages of two sizes."""
    kernel = tmp_path / "mm"
    for name in ("hugepages-2048kB", "hugepages-1048576kB"):
        (kernel / name).mkdir(parents=True)
    monkeypatch.setattr(cgroups, "HUGE_PAGES", kernel)


@pytest.mark.usefixtures("page_sizes")
def test_a_pod_has_no_more_huge_pages_than_its_containers_in_the_unified_tree(tmp_path: Path) -> None:
    root = unified(tmp_path)
    (root / "cgroup.controllers").write_text("cpu memory pids hugetlb\n")
    place = root / "nv/podu"
    place.mkdir(parents=True)
    (place / "hugetlb.2MB.rsvd.max").touch()

    make_pod_cgroup(pod(HUGE, HUGE), "/nv/podu", root=root)

    found = {file.name: file.read_text() for file in place.glob("hugetlb.*")}
    assert found == {
        "hugetlb.2MB.max": str(8 << 20),
        "hugetlb.2MB.rsvd.max": str(8 << 20),
        "hugetlb.1GB.max": "0",
    }


@pytest.mark.usefixtures("page_sizes")
def test_a_pod_has_no_more_huge_pages_than_its_containers_in_the_trees_of_before(tmp_path: Path) -> None:
    root = split(tmp_path)
    (root / "hugetlb").mkdir()

    make_pod_cgroup(pod(HUGE), "/nv/podu", root=root)

    found = {file.name: file.read_text() for file in (root / "hugetlb/nv/podu").iterdir()}
    assert found == {"hugetlb.2MB.limit_in_bytes": str(4 << 20), "hugetlb.1GB.limit_in_bytes": "0"}


@pytest.mark.usefixtures("page_sizes")
def test_a_kernel_that_does_not_count_huge_pages_is_not_asked_to(tmp_path: Path) -> None:
    make_pod_cgroup(pod(HUGE), "/nv/podu", root=unified(tmp_path))

    assert list((tmp_path / "nv/podu").glob("hugetlb.*")) == []


def test_without_quotas_nothing_is_slowed_down(tmp_path: Path) -> None:
    settings = CgroupsConfig(cpu_quota=False)
    make_pod_cgroup(pod(BOUNDED), "/nv/podu", settings, unified(tmp_path))
    made = container_resources(pod(BOUNDED), BOUNDED, memory_capacity=8 * GI, unified=True, settings=settings)

    assert (tmp_path / "nv/podu/cpu.max").read_text() == "max 100000"
    assert (made.cpu_quota_us, made.cpu_period_us) == (0, 0)


def test_without_cgroups_for_pods_all_are_in_the_nodes(tmp_path: Path) -> None:
    alone = config(tmp_path, cgroups=CgroupsConfig(per_qos=False))

    assert cgroup_parent(pod(resources()), alone) == "/nv"
    assert cgroup_parent(pod(resources()), config(tmp_path)) == "/nv/besteffort/podu"


@pytest.mark.parametrize(
    ("settings", "container", "expected"),
    [
        (CgroupsConfig(), resources(), {"memory.swap.max": "0", "memory.oom.group": "1"}),
        (CgroupsConfig(single_process_oom_kill=True), resources(), {"memory.swap.max": "0"}),
        # A quarter of the memory was requested: a quarter of the swap.
        (
            CgroupsConfig(swap="LimitedSwap"),
            resources({"memory": "2Gi"}),
            {"memory.swap.max": str(GI), "memory.oom.group": "1"},
        ),
        (
            CgroupsConfig(swap="LimitedSwap"),
            resources({"cpu": "1", "memory": "2Gi"}, {"cpu": "1", "memory": "2Gi"}),
            {"memory.swap.max": "0", "memory.oom.group": "1"},
        ),
        (
            CgroupsConfig(memory_qos=True, memory_throttling=0.5, memory_reservation="TieredReservation"),
            resources({"memory": "1Gi"}, {"memory": "2Gi"}),
            {
                "memory.swap.max": "0",
                "memory.oom.group": "1",
                "memory.low": str(GI),
                "memory.high": str(3 * GI // 2),
            },
        ),
    ],
)
def test_what_only_the_unified_tree_has(
    settings: CgroupsConfig, container: dict[str, object], expected: dict[str, str]
) -> None:
    made = container_resources(
        pod(container), container, memory_capacity=8 * GI, unified=True, settings=settings, swap_capacity=4 * GI
    )
    assert made.unified == expected


def test_what_is_reserved_is_enforced(tmp_path: Path) -> None:
    root = unified(tmp_path)
    (root / "kube").mkdir()
    kept = ReservedConfig(
        kube={"cpu": "500m", "memory": "1Gi"}, enforced=("pods", "kube-reserved"), kube_cgroup="/kube"
    )

    enforce(config(tmp_path, reserved=kept), 8 * GI, 4, root)

    assert (root / "nv/memory.max").read_text() == str(7 * GI)
    assert (root / "kube/memory.max").read_text() == str(GI)


def test_a_reserved_cgroup_has_to_be_there(tmp_path: Path) -> None:
    kept = ReservedConfig(system={"cpu": "1"}, enforced=("system-reserved",), system_cgroup="/none")

    with pytest.raises(OSError, match='failed to enforce System Reserved Cgroup Limits on "/none": "/none" cgroup'):
        enforce(config(tmp_path, reserved=kept), 8 * GI, 4, unified(tmp_path))


def test_who_removes_a_tree_minds_nobody_who_does_so_too(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(300):
        (tree / str(number % 20) / str(number)).mkdir(parents=True)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(cgroups.remove_cgroup, [tree] * 4))

    assert not tree.exists()
