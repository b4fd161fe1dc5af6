"""Memory of NUMA nodes that containers have for themselves: the `Static` policy of Kubernetes' memory manager.

Each container of a Guaranteed pod has its memory and huge pages from some nodes, one if that is enough, and the kernel
is told so. A node serves either containers that have it alone, or those of one group of nodes. What is reserved of a
node (`reservedMemory`) nobody gets. Who has what is kept in `memory_manager_state`. With the policy `None` all share
all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from navarch.api import quantity
from navarch.api.fnv import fnv1a
from navarch.api.meta import Obj, uid_of
from navarch.kinds.core.resource_lists import qos_class, requests_of
from navarch.node import podspec
from navarch.node.config import KubeletConfig
from navarch.node.resources import checkpoints, cpusets
from navarch.node.resources.amounts import whole
from navarch.node.resources.numa import Machine, bits, mask_of, masks
from navarch.node.resources.topology_manager import Hint, Hints, NotAdmitted

log = logging.getLogger(__name__)

STATIC: Final = "Static"
_STATE: Final = "memory_manager_state"
_NAME: Final = "memory manager"
_MEMORY: Final = "memory"
_NO_NODES: Final = "failed to get the default NUMA affinity, no NUMA nodes with enough memory is available"


class NotEnoughMemory(NotAdmitted):
    def __init__(self, words: str) -> None:
        super().__init__(f"[memorymanager] {words}")


class Block(NamedTuple):
    """So many bytes of a resource, from these nodes. `lasting` unless containers that come later take it over."""

    resource: str
    nodes: int
    size: int
    lasting: bool


class _Node:
    """What a node has left, and with which others it serves whom."""

    def __init__(self, node: int, allocatable: Mapping[str, int]) -> None:
        self.free = dict(allocatable)
        self.group = 1 << node
        self.assignments = 0


class MemoryManager:
    """With the policy `None` nothing is given.  Raises NotRestored."""

    def __init__(self, config: KubeletConfig, machine: Machine) -> None:
        self._policy = config.managers.memory_policy
        self.on = self._policy == STATIC
        self._machine = machine
        self._file = config.data / _STATE
        self._reserved = reserved_by_node(config.managers.reserved_memory)
        self._given: dict[tuple[str, str], list[Block]] = {}
        self._given = self._restored()

    # What there is.

    def allocatable(self) -> Mapping[int, Mapping[str, int]]:
        """By node and resource, in bytes."""
        found = {}
        for node, has in self._machine.memory.items():
            kept = self._reserved.get(node, {})
            left = {resource: max(size - kept.get(resource, 0), 0) for resource, size in has.items()}
            pages = sum(size for resource, size in has.items() if resource != _MEMORY)
            found[node] = {**left, _MEMORY: max(left.get(_MEMORY, 0) - pages, 0)}
        return found

    def _nodes(self) -> dict[int, _Node]:
        """The nodes, less what is given."""
        nodes = {node: _Node(node, has) for node, has in self.allocatable().items()}
        for blocks in self._given.values():
            for block in blocks:
                left = block.size
                for node in bits(block.nodes):
                    one = nodes[node]
                    one.assignments += 1
                    one.group = block.nodes
                    taken = min(left, one.free.get(block.resource, 0))
                    if taken:
                        one.free[block.resource] -= taken
                        left -= taken
        return nodes

    def blocks(self, uid: str, container: str) -> Sequence[Block]:
        return self._given.get((uid, container), ())

    def holders(self) -> set[str]:
        return {uid for uid, _ in self._given}

    def mems(self, uid: str, container: str) -> str:
        """The nodes that the kernel is to take a container's memory from; empty where all may serve."""
        return cpusets.text_of(node for block in self.blocks(uid, container) for node in bits(block.nodes))

    # Hints.

    def hints(self, pod: Obj, container: Obj) -> Hints:
        wanted = self._wanted(pod, container)
        given = self.blocks(uid_of(pod), container["name"])
        return self._again(given, wanted) if given else self._hints(pod, wanted)

    def pod_hints(self, pod: Obj) -> Hints:
        wanted = self._wanted_by_pod(pod)
        for container in (*podspec.init_containers(pod), *podspec.containers(pod)):
            given = self.blocks(uid_of(pod), container["name"])
            if given:
                return self._again(given, wanted)
        return self._hints(pod, wanted)

    def _again(self, given: Sequence[Block], wanted: Mapping[str, int]) -> Hints:
        if {block.resource for block in given} != set(wanted):
            return {}
        return {block.resource: [Hint(block.nodes, preferred=True)] for block in given}

    def _hints(self, pod: Obj, wanted: Mapping[str, int]) -> Hints:
        found = self._possible(pod, wanted)
        return dict.fromkeys(wanted, found) if found else {}

    def _possible(self, pod: Obj, wanted: Mapping[str, int]) -> list[Hint]:
        """The sets of nodes that have it all."""
        if not wanted:
            return []
        nodes, allocatable = self._nodes(), self.allocatable()
        narrowest, found = len(nodes), []
        for mask in masks(nodes):
            inside = bits(mask)
            if any(sum(allocatable[one].get(name, 0) for one in inside) < size for name, size in wanted.items()):
                continue
            narrowest = min(narrowest, mask.bit_count())
            if _mixes(nodes, mask) or not self._fits(nodes, pod, mask, wanted):
                continue
            found.append(mask)
        return [Hint(mask, mask.bit_count() == narrowest) for mask in found]

    def _fits(self, nodes: Mapping[int, _Node], pod: Obj, mask: int, wanted: Mapping[str, int]) -> bool:
        return all(
            sum(nodes[node].free.get(name, 0) for node in bits(mask)) + self._reusable(pod, mask, name) >= size
            for name, size in wanted.items()
        )

    def _reusable(self, pod: Obj, mask: int, resource: str) -> int:
        """What init containers of the pod had of these nodes."""
        uid = uid_of(pod)
        return sum(
            block.size
            for key, blocks in self._given.items()
            if key[0] == uid
            for block in blocks
            if (block.resource, block.nodes, block.lasting) == (resource, mask, False)
        )

    # Giving.

    def allocate(self, pod: Obj, container: Obj, near: Hint) -> None:
        wanted = self._wanted(pod, container)
        key = uid_of(pod), container["name"]
        if not wanted or key in self._given:
            return
        best = self._best(pod, wanted, near)
        lasting = container in podspec.containers(pod) or podspec.is_sidecar(container)
        made = [Block(name, best, size, lasting) for name, size in sorted(wanted.items())]
        for block in made:
            self._take_over(key[0], block)
        self._given[key] = made
        self._write()

    def _best(self, pod: Obj, wanted: Mapping[str, int], near: Hint) -> int:
        nodes, possible = self._nodes(), self._possible(pod, wanted)
        mask = near.nodes
        if mask is None:
            if not possible:
                raise NotEnoughMemory(_NO_NODES)
            found = _first(possible)
            if near.preferred and not found.preferred:
                raise NotEnoughMemory("failed to find the default preferred hint")
            mask = _nodes_of(found)
        if not self._fits(nodes, pod, mask, wanted):
            # Others wanted fewer nodes; these are the ones that have enough.
            wider = [one for one in possible if _nodes_of(one) & mask == mask]
            if not wider:
                raise NotEnoughMemory("failed to find NUMA nodes to extend the current topology hint")
            found = _first(wider)
            if near.preferred and not found.preferred:
                raise NotEnoughMemory("failed to find the extended preferred hint")
            mask = _nodes_of(found)
        if _mixes(nodes, mask):
            raise NotEnoughMemory("preferred hint violates NUMA node allocation")
        return mask

    def _take_over(self, uid: str, block: Block) -> None:
        """What init containers had of the same nodes is no longer theirs."""
        left = block.size
        for key, blocks in self._given.items():
            if key[0] != uid:
                continue
            for place, before in enumerate(blocks):
                if (before.resource, before.nodes, before.lasting) == (block.resource, block.nodes, False):
                    taken = min(left, before.size)
                    blocks[place] = before._replace(size=before.size - taken)
                    left -= taken

    def release(self, uid: str) -> bool:
        """A pod has gone."""
        return self._forget([key for key in self._given if key[0] == uid])

    def keep_only(self, uids: Collection[str]) -> bool:
        return self._forget([key for key in self._given if key[0] not in uids])

    def _forget(self, keys: Collection[tuple[str, str]]) -> bool:
        for key in keys:
            del self._given[key]
        if keys:
            self._write()
        return bool(keys)

    def _wanted(self, pod: Obj, container: Obj) -> Mapping[str, int]:
        if not self.on or qos_class(pod["spec"]) != "Guaranteed" or pod["spec"].get("resources"):
            return {}
        stated = requests_of(container)
        return {
            name: whole(amount) for name, amount in stated.items() if name == _MEMORY or name.startswith("hugepages-")
        }

    def _wanted_by_pod(self, pod: Obj) -> Mapping[str, int]:
        def add(one: Mapping[str, int], other: Mapping[str, int], way: Callable[[int, int], int]) -> dict[str, int]:
            return {name: way(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}

        def plus(one: int, other: int) -> int:
            return one + other

        sidecars: Mapping[str, int] = {}
        most: Mapping[str, int] = {}
        for container in podspec.init_containers(pod):
            wanted = self._wanted(pod, container)
            most = add(most, add(sidecars, wanted, plus), max)
            if podspec.is_sidecar(container):
                sidecars = add(sidecars, wanted, plus)
        lasting = sidecars
        for container in podspec.containers(pod):
            lasting = add(lasting, self._wanted(pod, container), plus)
        return add(lasting, most, max)

    # What is kept, and told.

    def shown(self, uid: str, container: str) -> Sequence[Mapping[str, Any]]:
        """What a container has, as the pod resources API says it."""
        given = self.blocks(uid, container)
        return [{"type": block.resource, "size": block.size, "nodes": bits(block.nodes)} for block in given]

    def shown_allocatable(self) -> Sequence[Mapping[str, Any]]:
        if not self.on:
            return ()
        return [
            {"type": resource, "size": size, "nodes": [node]}
            for node, has in self.allocatable().items()
            for resource, size in has.items()
            if size
        ]

    def _write(self) -> None:
        entries: dict[str, dict[str, list[Obj]]] = {}
        for (uid, container), blocks in self._given.items():
            entries.setdefault(uid, {})[container] = [
                {
                    "numaAffinity": list(bits(block.nodes)),
                    "type": block.resource,
                    "size": block.size,
                    # Not Kubernetes', which reads it from the pod.
                    "lasting": block.lasting,
                }
                for block in blocks
            ]
        state = {"policyName": self._policy, "machineState": self._state() if self.on else {}, "entries": entries}
        if not entries:
            del state["entries"]
        try:
            checkpoints.write(self._file, {**state, "checksum": checksum(state)})
        except OSError as error:
            log.error("who has which memory could not be written down: %s", error)

    def _state(self) -> Obj:
        nodes, allocatable = self._nodes(), self.allocatable()
        return {
            str(node): {
                "numberOfAssignments": one.assignments,
                "cells": list(bits(one.group)),
                "memoryMap": {
                    resource: {
                        "total": size,
                        "systemReserved": self._reserved.get(node, {}).get(resource, 0),
                        "allocatable": allocatable[node][resource],
                        "reserved": allocatable[node][resource] - one.free[resource],
                        "free": one.free[resource],
                    }
                    for resource, size in self._machine.memory[node].items()
                },
            }
            for node, one in nodes.items()
        }

    def _restored(self) -> dict[tuple[str, str], list[Block]]:
        """Raises NotRestored."""
        state = checkpoints.restored(self._file, _NAME, self._policy, checksum, told="[memorymanager] ")
        if state is None:
            self._write()
            return {}
        known = mask_of(self._machine.memory)
        found = {
            (uid, name): [
                Block(one["type"], mask_of(one["numaAffinity"]), int(one["size"]), one.get("lasting", True))
                for one in blocks
            ]
            for uid, containers in (state.get("entries") or {}).items()
            for name, blocks in containers.items()
        }
        return {key: blocks for key, blocks in found.items() if all(not one.nodes & ~known for one in blocks)}


def checksum(state: Mapping[str, Any]) -> int:
    """As Kubernetes counts it, over what Go prints of the state: tools that read the file look at it."""
    machine = state["machineState"]
    nodes = " ".join(_node_printed(number, machine[number]) for number in sorted(machine, key=int))
    entries = state.get("entries") or {}
    pods = " ".join(
        f"{uid}:map[{' '.join(_blocks_printed(name, blocks) for name, blocks in sorted(entries[uid].items()))}]"
        for uid in sorted(entries)
    )
    printed = (
        f"(*state.MemoryManagerCheckpoint){{PolicyName:(string){state['policyName']} "
        f"MachineState:(state.NUMANodeMap)map[{nodes}] "
        f"Entries:(state.ContainerMemoryAssignments)map[{pods}] Checksum:(checksum.Checksum)0}}"
    )
    return fnv1a(printed.encode())


def _node_printed(number: str, node: Mapping[str, Any]) -> str:
    tables = " ".join(
        f"{resource}:<*>{{TotalMemSize:(uint64){table['total']} SystemReserved:(uint64){table['systemReserved']} "
        f"Allocatable:(uint64){table['allocatable']} Reserved:(uint64){table['reserved']} "
        f"Free:(uint64){table['free']}}}"
        for resource, table in sorted(node["memoryMap"].items())
    )
    return (
        f"{number}:<*>{{NumberOfAssignments:(int){node['numberOfAssignments']} "
        f"MemoryMap:(map[v1.ResourceName]*state.MemoryTable)map[{tables}] Cells:([]int){_printed(node['cells'])}}}"
    )


def _blocks_printed(container: str, blocks: Sequence[Mapping[str, Any]]) -> str:
    listed = " ".join(
        f"{{NUMAAffinity:([]int){_printed(block['numaAffinity'])} Type:(v1.ResourceName){block['type']} "
        f"Size:(uint64){block['size']}}}"
        for block in blocks
    )
    return f"{container}:[{listed}]"


def _printed(numbers: Sequence[int]) -> str:
    return f"[{' '.join(map(str, numbers))}]"


def _mixes(nodes: Mapping[int, _Node], mask: int) -> bool:
    """Whether a node would serve containers of different groups of nodes."""
    return any(nodes[node].assignments and nodes[node].group != mask for node in bits(mask))


def _nodes_of(hint: Hint) -> int:
    assert hint.nodes is not None
    return hint.nodes


def _first(hints: Sequence[Hint]) -> Hint:
    """The best of some that name nodes."""
    return min(hints, key=lambda one: (not one.preferred, _nodes_of(one).bit_count(), one.nodes))


def reserved_by_node(stated: Sequence[Mapping[str, Any]]) -> Mapping[int, Mapping[str, int]]:
    """What is kept of each node, in bytes."""
    found: dict[int, dict[str, int]] = {}
    for one in stated:
        node = found.setdefault(int(one.get("numaNode") or 0), {})
        for name, amount in one["limits"].items():
            node[name] = node.get(name, 0) + quantity.value(quantity.parse(amount))
    return found
