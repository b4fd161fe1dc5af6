"""Devices as drivers publish them: ResourceSlices of one driver and name make a pool, of which only the newest
generation counts, and only when all of its slices are there.

In: ResourceSlices as the API server has them.  Out: `Pool`s, and what of a pool can be reached from one node.
Invariant: a `Device` never changes; a slice that changes makes new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Final, NamedTuple

from navarch.api import quantity
from navarch.api.meta import Obj, name_of
from navarch.kinds.resource.taints import taints_of
from navarch.records import frozen
from navarch.scheduler.terms import node_selector_matches

PREVENTING: Final = ("NoSchedule", "NoExecute")


class DeviceId(NamedTuple):
    driver: str
    pool: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)


class PoolId(NamedTuple):
    driver: str
    pool: str

    def __str__(self) -> str:
        return "/".join(self)


class Counter(NamedTuple):
    """Something that devices of a pool share, such as the memory of the card that they are parts of."""

    set: str
    name: str


@frozen
class Place:
    """The nodes from which devices can be reached."""

    node_name: str = ""
    all_nodes: bool = False
    selector: Obj | None = None

    @classmethod
    def of(cls, spec: Obj) -> Place:
        return cls(spec.get("nodeName") or "", bool(spec.get("allNodes")), spec.get("nodeSelector"))

    def reaches(self, node: Obj) -> bool:
        if self.node_name:
            return name_of(node) == self.node_name
        return self.all_nodes or (self.selector is not None and node_selector_matches(self.selector, node))


@dataclass(eq=False)
class Device:
    """One device; compared by identity."""

    id: DeviceId
    spec: Obj
    place: Place
    own_place: bool
    """Whether `place` is the device's own, not that of its slice."""
    taints: tuple[Obj, ...] = ()
    """Those that keep it from being allocated unless they are tolerated, its own and those of rules."""
    matches: dict[str, bool] = field(default_factory=dict)
    """By expression: whether it selects the device."""

    @cached_property
    def is_shared(self) -> bool:
        """Whether several claims can each have a part of it."""
        return bool(self.spec.get("allowMultipleAllocations"))

    @cached_property
    def capacity(self) -> Mapping[str, Obj]:
        """By name with domain; what is qualified with the driver's own domain counts for more than the bare name."""
        stated = self.spec.get("capacity") or {}
        bare = {f"{self.id.driver}/{name}": value for name, value in stated.items() if "/" not in name}
        return bare | {name: value for name, value in stated.items() if "/" in name}

    @cached_property
    def capacity_names(self) -> Mapping[str, str]:
        """How the driver spells what `capacity` has."""
        stated = self.spec.get("capacity") or {}
        return {full: full if full in stated else full.partition("/")[2] for full in self.capacity}

    @cached_property
    def consumes(self) -> Mapping[Counter, Fraction]:
        total: dict[Counter, Fraction] = {}
        for consumption in self.spec.get("consumesCounters") or ():
            for name, counter in (consumption.get("counters") or {}).items():
                key = Counter(consumption["counterSet"], name)
                total[key] = total.get(key, Fraction(0)) + quantity.parse(counter["value"])
        return total

    @cached_property
    def binding_conditions(self) -> Sequence[str]:
        return self.spec.get("bindingConditions") or ()

    def attribute(self, name: str) -> tuple[str, object] | None:
        """Type and value of an attribute by its full name."""
        attributes = self.spec.get("attributes") or {}
        stated = attributes.get(name)
        if stated is None:
            domain, _, bare = name.partition("/")
            stated = attributes.get(bare) if domain == self.id.driver else None
        for kind in ("string", "int", "bool", "version"):
            if stated is not None and stated.get(kind) is not None:
                return kind, stated[kind]
        return None


@frozen(eq=False)
class Slice:
    """One ResourceSlice."""

    name: str
    generation: int
    expected: int
    """How many slices the pool has in this generation."""
    place: Place | None
    """None where each device says it for itself."""
    devices: tuple[Device, ...]
    counters: Mapping[Counter, Fraction]
    counter_sets: tuple[str, ...]


@frozen(eq=False)
class Reach:
    """What of a pool one node can use. Nothing is taken from a pool that is incomplete or invalid."""

    pool: Pool
    devices: tuple[Device, ...]
    is_incomplete: bool = False
    is_invalid: bool = False

    @property
    def usable(self) -> tuple[Device, ...]:
        return () if self.is_incomplete or self.is_invalid else self.devices

    @property
    def binds_later(self) -> bool:
        return any(device.binding_conditions for device in self.devices)


class Pool:
    """The newest generation of a pool."""

    def __init__(self, id: PoolId, slices: Iterable[Slice]) -> None:
        self.id = id
        every = sorted(slices, key=lambda each: each.name)
        newest = max(each.generation for each in every)
        self.slices = [each for each in every if each.generation == newest]
        self.is_complete = len(self.slices) == self.slices[0].expected

    @cached_property
    def devices(self) -> tuple[Device, ...]:
        return tuple(device for each in self.slices for device in each.devices)

    @cached_property
    def by_name(self) -> Mapping[str, Device]:
        return {device.id.name: device for device in self.devices}

    @cached_property
    def counters(self) -> Mapping[Counter, Fraction]:
        """What there is of each counter when no device is taken."""
        total: dict[Counter, Fraction] = {}
        for each in self.slices:
            total |= each.counters
        return total

    @cached_property
    def node_names(self) -> frozenset[str] | None:
        """The only nodes that can reach anything of it; None where that depends on more than their names."""
        if any(each.counter_sets for each in self.slices):
            return None
        places = [place for each in self.slices for place in _places(each)]
        return frozenset(place.node_name for place in places) if all(p.node_name for p in places) else None

    @cached_property
    def _counters_are_sound(self) -> bool:
        sets = [name for each in self.slices for name in each.counter_sets]
        if len(set(sets)) < len(sets):
            return False
        return all(counter in self.counters for device in self.devices for counter in device.consumes)

    def reach(self, node: Obj) -> Reach | None:
        """What the node can use; None where the pool has nothing to do with it."""
        devices: list[Device] = []
        concerns = False
        for each in self.slices:
            if each.counter_sets:
                concerns = True
            elif each.place is not None:
                if each.place.reaches(node):
                    concerns = True
                    devices += each.devices
            else:
                mine = [device for device in each.devices if device.place.reaches(node)]
                concerns = concerns or bool(mine)
                devices += mine
        if not concerns:
            return None
        if not self.is_complete:
            return Reach(self, (), is_incomplete=True)
        names = {device.id.name for device in devices}
        is_invalid = len(names) < len(devices) or not self._counters_are_sound
        return Reach(self, tuple(devices), is_invalid=is_invalid)


def _places(each: Slice) -> Iterable[Place]:
    return [each.place] if each.place is not None else [device.place for device in each.devices]


def read_slice(obj: Obj, rules: Sequence[Obj] = ()) -> tuple[PoolId, Slice]:
    """A ResourceSlice; `rules` are the specs of DeviceTaintRules."""
    spec = obj["spec"]
    pool = spec["pool"]
    id = PoolId(spec["driver"], pool["name"])
    per_device = bool(spec.get("perDeviceNodeSelection"))
    common = Place.of(spec)
    devices = []
    for device in spec.get("devices") or ():
        device_id = DeviceId(id.driver, id.pool, device["name"])
        place = Place.of(device) if per_device else common
        devices.append(Device(device_id, device, place, per_device, preventing(taints_of(device_id, device, rules))))
    sets = spec.get("sharedCounters") or ()
    counters = {
        Counter(each["name"], name): quantity.parse(counter["value"])
        for each in sets
        for name, counter in (each.get("counters") or {}).items()
    }
    return id, Slice(
        name_of(obj),
        pool["generation"],
        pool["resourceSliceCount"],
        None if per_device else common,
        tuple(devices),
        counters,
        tuple(each["name"] for each in sets),
    )


# Taints


def preventing(taints: Iterable[Obj]) -> tuple[Obj, ...]:
    return tuple(taint for taint in taints if taint.get("effect") in PREVENTING)
