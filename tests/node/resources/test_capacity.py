"""What a node has to give, and from whom it knows."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from navarch.node.config import KubeletConfig, ReservedConfig
from navarch.node.resources.capacity import Amount, Capacity, HugePages, Machine, PodPlaces


def config(place: Path) -> KubeletConfig:
    return KubeletConfig(
        node_name="n1",
        data=place,
        runtime_socket=place,
        reserved=ReservedConfig(kube={"cpu": "200m", "memory": "512Mi"}, system={"cpu": "300m", "memory": "512Mi"}),
        max_pods=110,
    )


def _huge_pages(place: Path, **pages: int) -> HugePages:
    for size, count in pages.items():
        directory = place / f"hugepages-{size.removeprefix('k')}kB"
        directory.mkdir(parents=True)
        (directory / "nr_hugepages").write_text(f"{count}\n")
    return HugePages(place)


class Gpus:
    def amounts(self) -> Mapping[str, Amount]:
        return {"example.com/gpu": Amount(Fraction(4), Fraction(1))}


def test_pods_have_what_is_not_reserved(tmp_path: Path) -> None:
    capacity = Capacity([Machine(config(tmp_path), 4, 8 << 30), PodPlaces(config(tmp_path))])

    assert capacity.capacity() == {"cpu": "4", "memory": f"{8 << 20}Ki", "pods": "110"}
    assert capacity.allocatable() == {"cpu": "3500m", "memory": f"{(7 << 20) - (100 << 10)}Ki", "pods": "110"}


def test_huge_pages_are_a_resource_of_their_own_and_no_memory_any_more(tmp_path: Path) -> None:
    pages = _huge_pages(tmp_path, k2048=512, k1048576=1)
    capacity = Capacity([Machine(config(tmp_path), 4, 8 << 30), pages])

    found, allocatable = capacity.capacity(), capacity.allocatable()

    assert (found["hugepages-2Mi"], found["hugepages-1Gi"], found["memory"]) == ("1Gi", "1Gi", f"{8 << 20}Ki")
    assert allocatable["hugepages-2Mi"] == "1Gi"
    assert allocatable["memory"] == f"{(5 << 20) - (100 << 10)}Ki"


def test_a_node_without_huge_pages_says_so(tmp_path: Path) -> None:
    assert Capacity([HugePages(tmp_path)]).capacity() == {
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": "0Ki",
    }


def test_devices_are_one_more_provider(tmp_path: Path) -> None:
    capacity = Capacity([Machine(config(tmp_path), 4, 8 << 30), Gpus()])

    assert capacity.capacity()["example.com/gpu"] == "4"
    assert capacity.allocatable()["example.com/gpu"] == "3"
