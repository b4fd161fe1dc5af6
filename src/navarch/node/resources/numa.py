"""The machine's shape, as the kernel tells it below /sys/devices/system: CPUs in cores, caches, sockets and NUMA nodes;
what memory each of these nodes has, and how far they are from each other.

A kernel without NUMA is one node. Sets of nodes are bit masks: `0b101` are nodes 0 and 2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, TypeVar

from navarch.api import quantity
from navarch.node.resources import cpusets

T = TypeVar("T")


class CPU(NamedTuple):
    """Where a CPU is. Ids of cores are those of their first threads; `cache` is the last one that CPUs share."""

    core: int
    socket: int = 0
    node: int = 0
    cache: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """`memory` has the bytes of each resource (`memory`, `hugepages-2Mi`) by node, huge pages not taken off of memory;
    `distances` how far each node is from each other, in their order."""

    cpus: Mapping[int, CPU]
    memory: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    distances: Mapping[int, Sequence[int]] = field(default_factory=dict)

    @property
    def nodes(self) -> Sequence[int]:
        return sorted({cpu.node for cpu in self.cpus.values()} | set(self.memory))

    @property
    def cpus_per_core(self) -> int:
        return len(self.cpus) // max(len({cpu.core for cpu in self.cpus.values()}), 1)

    def cpus_of(self, mask: int) -> frozenset[int]:
        """The CPUs of some nodes."""
        return frozenset(number for number, cpu in self.cpus.items() if mask >> cpu.node & 1)

    def apart(self, mask: int) -> float:
        """How far nodes are from each other, on average."""
        nodes, places = bits(mask), {node: place for place, node in enumerate(sorted(self.distances))}
        found = [
            self.distances[one][places[other]]
            for one in nodes
            for other in nodes
            if one in places and other in places and places[other] < len(self.distances[one])
        ]
        return sum(found) / len(found) if found else 0.0


def bits(mask: int) -> Sequence[int]:
    """The nodes of a mask, in order."""
    return [node for node in range(mask.bit_length()) if mask >> node & 1]


def mask_of(nodes: Iterable[int]) -> int:
    mask = 0
    for node in nodes:
        mask |= 1 << node
    return mask


def masks(nodes: Collection[int]) -> Iterator[int]:
    """All sets of nodes that there are, small ones first."""
    ordered = sorted(nodes)
    for size in range(1, len(ordered) + 1):
        yield from map(mask_of, combinations(ordered, size))


def machine_of(root: Path = Path("/")) -> Machine:
    """What the kernel says; `root` is where /sys is."""
    system = root / "sys/devices/system"
    memory: dict[int, Mapping[str, int]] = {}
    distances: dict[int, Sequence[int]] = {}
    node_of: dict[int, int] = {}
    unknown, far = frozenset[int](), list[int]()
    for place in sorted((system / "node").glob("node[0-9]*")):
        node = int(place.name.removeprefix("node"))
        memory[node] = _memory(place)
        distances[node] = _read(place / "distance", lambda text: [int(word) for word in text.split()], far)
        for cpu in _read(place / "cpulist", cpusets.parse, unknown):
            node_of[cpu] = node
    online = _read(system / "cpu/online", cpusets.parse, frozenset(os.sched_getaffinity(0)))
    return Machine(
        {cpu: _cpu(system / f"cpu/cpu{cpu}", cpu, node_of.get(cpu, 0)) for cpu in sorted(online)}, memory, distances
    )


def _cpu(place: Path, number: int, node: int) -> CPU:
    threads = _read(place / "topology/thread_siblings_list", cpusets.parse, frozenset({number}))
    sharing = _read(place / "cache/index3/shared_cpu_list", cpusets.parse, frozenset[int]())
    # Some machines say -1 where they do not know.
    socket = max(_read(place / "topology/physical_package_id", int, 0), 0)
    return CPU(min(threads, default=number), socket, node, min(sharing, default=-1 - node))


def _memory(place: Path) -> Mapping[str, int]:
    total = 0
    for line in _read(place / "meminfo", str, "").splitlines():
        words = line.split()
        if "MemTotal:" in words:
            total = int(words[words.index("MemTotal:") + 1]) * 1024
    found = {"memory": total}
    for pages in sorted((place / "hugepages").glob("hugepages-*kB")):
        kib = int(pages.name.removeprefix("hugepages-").removesuffix("kB"))
        found[f"hugepages-{quantity.canonical(f'{kib}Ki')}"] = _read(pages / "nr_hugepages", int, 0) * kib * 1024
    return found


def _read(path: Path, parse: Callable[[str], T], otherwise: T) -> T:
    try:
        return parse(path.read_text().strip())
    except (OSError, ValueError):
        return otherwise
