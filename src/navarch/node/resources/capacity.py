"""What a node has to give: each resource from a provider, and what of it pods may have.

A provider answers for the resources that it knows: the machine's CPU and memory, its disk, its huge pages, places for
pods; one for devices is another provider in the list and nothing else. What is asked twice may have changed between.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.node.config import KubeletConfig
from navarch.node.thresholds import MEMORY, NODE_DISK

HUGE_PAGES: Final = Path("/sys/kernel/mm/hugepages")
# Sizes that Kubernetes' nodes name even where there is no page of them.
_USUAL_PAGES: Final = {"hugepages-1Gi": 0, "hugepages-2Mi": 0}


class Amount(NamedTuple):
    """How much of a resource the node has, and what of it pods may not have. In the resource's unit: cores, bytes,
    pieces. `kibi` says that people read it in Ki."""

    total: Fraction
    reserved: Fraction = Fraction(0)
    kibi: bool = False


class Provider(Protocol):
    """Answers by resource. Two providers that know the same resource add up, also in what they reserve of it."""

    def amounts(self) -> Mapping[str, Amount]: ...


class Machine:
    """CPU and memory."""

    def __init__(self, config: KubeletConfig, cpus: int, memory_bytes: int) -> None:
        self._config = config
        self._cpus = cpus
        self._memory_bytes = memory_bytes

    def amounts(self) -> Mapping[str, Amount]:
        config = self._config
        memory = reserved(config, "memory") + _for_eviction(config, MEMORY, self._memory_bytes)
        return {
            "cpu": Amount(Fraction(self._cpus), reserved(config, "cpu")),
            "memory": Amount(Fraction(self._memory_bytes), memory, kibi=True),
        }


class Disk:
    """The file system that holds the kubelet's data."""

    def __init__(self, config: KubeletConfig) -> None:
        self._config = config

    def amounts(self) -> Mapping[str, Amount]:
        config = self._config
        if not config.eviction.local_storage:
            return {}
        disk = os.statvfs(config.data if config.data.exists() else "/")
        total = disk.f_blocks * disk.f_frsize // 1024 * 1024
        kept = reserved(config, "ephemeral-storage") + _for_eviction(config, NODE_DISK, total)
        return {"ephemeral-storage": Amount(Fraction(total), kept, kibi=True)}


def reserved(config: KubeletConfig, resource: str) -> Fraction:
    """What is kept of a resource for the system and for Kubernetes' own, in the resource's unit."""
    if resource == "cpu" and config.reserved.cpus:
        # Whole CPUs take the place of any amount.
        return Fraction(len(config.reserved.cpus))
    return sum((quantity.parse(amount) for amount in config.reserved.amounts(resource)), Fraction(0))


def _for_eviction(config: KubeletConfig, signal: str, capacity: int) -> Fraction:
    """What is to be left when pods are evicted at once: nobody can have it."""
    levels = [one.level.of(capacity) for one in config.eviction.thresholds if one.signal == signal and one.hard]
    return Fraction(max(levels, default=0))


class HugePages:
    """Pages that the kernel has set aside. They are memory that is memory no longer."""

    def __init__(self, place: Path = HUGE_PAGES) -> None:
        self._place = place

    def amounts(self) -> Mapping[str, Amount]:
        found = dict(_USUAL_PAGES)
        for directory in sorted(self._place.glob("hugepages-*kB")):
            try:
                kib = int(directory.name.removeprefix("hugepages-").removesuffix("kB"))
                pages = int((directory / "nr_hugepages").read_text())
            except (OSError, ValueError):
                continue
            found[f"hugepages-{quantity.canonical(f'{kib}Ki')}"] = pages * kib * 1024
        result = {name: Amount(Fraction(size)) for name, size in found.items()}
        return {**result, "memory": Amount(Fraction(0), Fraction(sum(found.values())), kibi=True)}


class PodPlaces:
    """How many pods the node takes."""

    def __init__(self, config: KubeletConfig, cpus: int = 0) -> None:
        per_core = config.pods_per_core * cpus
        self._most = min(config.max_pods, per_core) if per_core else config.max_pods

    def amounts(self) -> Mapping[str, Amount]:
        return {"pods": Amount(Fraction(self._most))}


class Capacity:
    """All providers together, as a node's status has it."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = providers

    def _amounts(self) -> dict[str, Amount]:
        summed: dict[str, Amount] = {}
        for provider in self._providers:
            for name, amount in provider.amounts().items():
                before = summed.get(name, Amount(Fraction(0)))
                summed[name] = Amount(
                    before.total + amount.total, before.reserved + amount.reserved, before.kibi or amount.kibi
                )
        return summed

    def capacity(self) -> Obj:
        return {name: _text(name, amount.total, amount.kibi) for name, amount in self._amounts().items()}

    def allocatable(self) -> Obj:
        """Capacity less what is reserved for the system and for eviction."""
        result = {}
        for name, amount in self._amounts().items():
            left = max(amount.total - amount.reserved, Fraction(0))
            # Of a disk Kubernetes says the bytes.
            result[name] = _text(name, left, amount.kibi and name != "ephemeral-storage")
        return result


def _text(name: str, amount: Fraction, kibi: bool) -> str:
    if name == "cpu":
        return quantity.canonical(f"{int(amount * 1000)}m")
    if kibi:
        return f"{int(amount) // 1024}Ki"
    return quantity.canonical(_in_binary(int(amount))) if name.startswith("hugepages-") else str(int(amount))


def _in_binary(amount: int) -> str:
    return f"{amount // 1024}Ki" if amount else "0"


def providers_of(config: KubeletConfig, cpus: int, memory_bytes: int) -> list[Provider]:
    """What every node has."""
    return [Machine(config, cpus, memory_bytes), Disk(config), HugePages(), PodPlaces(config, cpus)]
