"""Which of the free CPUs a container gets: Kubernetes' order, whole sockets and NUMA nodes first, then whole caches
where that is asked for, whole cores, single threads; or the same number from each of several nodes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import combinations
from statistics import pstdev

from navarch.node.resources.numa import CPU

CPUs = frozenset[int]


def packed(cpus: Mapping[int, CPU], free: CPUs, wanted: int, *, by_cache: bool = False) -> CPUs:
    """As close together as can be; `free` has enough."""
    chosen: set[int] = set()
    sockets = len({cpu.socket for cpu in cpus.values()})
    nodes = len({cpu.node for cpu in cpus.values()})
    levels: list[Callable[[CPU], int]] = [lambda cpu: cpu.node, lambda cpu: cpu.socket]
    if nodes > sockets:
        levels.reverse()
    if by_cache:
        levels.append(lambda cpu: cpu.cache)
    for level in levels:
        _take_whole(cpus, free, wanted, chosen, level)
    if by_cache and len(chosen) < wanted:
        _take_in_one_cache(cpus, free, wanted, chosen)
    _take_whole(cpus, free, wanted, chosen, lambda cpu: cpu.core)
    _take_single(cpus, free, wanted, chosen)
    return frozenset(chosen)


def _groups(cpus: Mapping[int, CPU], of: Collection[int], level: Callable[[CPU], int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for number in sorted(of):
        found.setdefault(level(cpus[number]), []).append(number)
    return found


def _nearness(cpus: Mapping[int, CPU], free: CPUs, chosen: Collection[int]) -> Callable[[int], tuple[int, int, int]]:
    """Orders CPUs: nodes of which some are chosen already come first, then those of which most is taken."""
    had = {node: len(some) for node, some in _groups(cpus, chosen, lambda cpu: cpu.node).items()}
    left = {node: len(some) for node, some in _groups(cpus, free, lambda cpu: cpu.node).items()}
    return lambda number: (-had.get(cpus[number].node, 0), left[cpus[number].node], cpus[number].node)


def _take_whole(
    cpus: Mapping[int, CPU], free: CPUs, wanted: int, chosen: set[int], level: Callable[[CPU], int]
) -> None:
    """Groups of which all is free, as long as no more is taken than is wanted."""
    sizes = {group: len(some) for group, some in _groups(cpus, cpus, level).items()}
    near = _nearness(cpus, free, chosen)
    whole = [some for group, some in _groups(cpus, free - chosen, level).items() if len(some) == sizes[group]]
    for some in sorted(whole, key=lambda each: (near(each[0]), each[0])):
        if len(chosen) + len(some) <= wanted:
            chosen.update(some)


def _take_in_one_cache(cpus: Mapping[int, CPU], free: CPUs, wanted: int, chosen: set[int]) -> None:
    """What is left, from the fullest cache that has it."""
    missing = wanted - len(chosen)
    caches = [some for some in _groups(cpus, free - chosen, lambda cpu: cpu.cache).values() if len(some) >= missing]
    if caches:
        fullest: list[int] = min(caches, key=lambda each: (len(each), each))
        some = frozenset(fullest)
        _take_whole(cpus, some, wanted, chosen, lambda cpu: cpu.core)
        _take_single(cpus, some, wanted, chosen)


def _take_single(cpus: Mapping[int, CPU], free: CPUs, wanted: int, chosen: set[int]) -> None:
    """Threads, those of cores that are in use first."""
    near, left = _nearness(cpus, free, chosen), free - chosen
    cores = _groups(cpus, left, lambda cpu: cpu.core)
    for number in sorted(left, key=lambda one: (near(one), len(cores[cpus[one].core]), one)):
        if len(chosen) >= wanted:
            return
        chosen.add(number)


def distributed(cpus: Mapping[int, CPU], free: CPUs, wanted: int, group: int) -> CPUs:
    """The same number from each of as few nodes as have them, in groups of so many, such that what is left is as even
    as can be; packed where that cannot be."""
    by_node = _groups(cpus, free, lambda cpu: cpu.node)
    for size in range(2, len(by_node) + 1):
        if max((len(some) for some in by_node.values()), default=0) >= wanted:
            break
        share = wanted // size // group * group
        rest = (wanted - share * size) // group
        possible = [
            nodes
            for nodes in combinations(sorted(by_node), size)
            if all(len(by_node[node]) >= share for node in nodes)
            and sum((len(by_node[node]) - share) // group for node in nodes) >= rest
        ]
        if share and possible and share * size + rest * group == wanted:
            return _spread(
                cpus, by_node, min(possible, key=lambda nodes: _uneven(by_node, nodes, share)), share, rest, group
            )
    return packed(cpus, free, wanted)


def _uneven(by_node: Mapping[int, list[int]], taken: Collection[int], share: int) -> float:
    return pstdev([len(some) - share * (node in taken) for node, some in by_node.items()])


def _spread(
    cpus: Mapping[int, CPU], by_node: Mapping[int, list[int]], nodes: Collection[int], share: int, rest: int, group: int
) -> CPUs:
    amounts = dict.fromkeys(nodes, share)
    for _ in range(rest):
        # One group more where most is left.
        node = max(nodes, key=lambda one: (len(by_node[one]) - amounts[one], -one))
        amounts[node] += group
    return frozenset().union(*(packed(cpus, frozenset(by_node[node]), amount) for node, amount in amounts.items()))
