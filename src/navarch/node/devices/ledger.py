"""Which devices there are, and which container has which. Pure.

A resource (`example.com/gpu`) has devices, each healthy or not, near some memory nodes or none. What an init container
has, the containers after it take over; what a sidecar or a container of the pod has is its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from navarch.api import quantity
from navarch.api.meta import Obj, uid_of
from navarch.kinds.core.resource_lists import limits_of
from navarch.node import podspec
from navarch.node.resources.numa import mask_of, masks
from navarch.node.resources.topology_manager import Hint, Hints, NotAdmitted

HEALTHY: Final = "Healthy"


class DeviceState(NamedTuple):
    healthy: bool
    nodes: frozenset[int] = frozenset()


class Share(NamedTuple):
    """Whose devices of which resource."""

    uid: str
    container: str
    resource: str


class NotEnough(NotAdmitted):
    """Devices that a pod asks for are not there; the message is Kubernetes'."""


@dataclass(slots=True)
class Ledger:
    """`devices` by resource and id; `given` the ids that each share has."""

    devices: dict[str, dict[str, DeviceState]] = field(default_factory=dict)
    given: dict[Share, tuple[str, ...]] = field(default_factory=dict)
    # The machine's NUMA nodes; where nobody says, those that devices name.
    nodes: Sequence[int] = ()

    def taken(self, resource: str) -> set[str]:
        return {one for share, ids in self.given.items() if share.resource == resource for one in ids}

    def free(self, resource: str) -> list[str]:
        """Healthy devices that nobody has."""
        taken = self.taken(resource)
        return [name for name, state in self.devices.get(resource, {}).items() if state.healthy and name not in taken]

    def keep_only(self, uids: Collection[str]) -> bool:
        """Take back the devices of all pods but these; whether there were any."""
        gone = [share for share in self.given if share.uid not in uids]
        for share in gone:
            del self.given[share]
        return bool(gone)

    def of(self, uid: str, container: str = "") -> dict[str, tuple[str, ...]]:
        """The devices of a container, by resource."""
        return {share.resource: ids for share, ids in self.given.items() if share[:2] == (uid, container)}

    def reserve(self, pod: Obj, container: Obj, near: int | None = None) -> bool:
        """Give a container the devices that it asks for, those `near` some NUMA nodes first; whether it has got any.
        Raises NotEnough."""
        changed, uid = False, uid_of(pod)
        for resource, wanted in self.wanted(container).items():
            share = Share(uid, container["name"], resource)
            if share in self.given:
                continue
            again = sorted(self.reusable(pod, container, resource))[:wanted]
            free, missing = self.free(resource), wanted - len(again)
            if missing > len(free):
                self._complain(resource, missing, len(free))
            self.given[share] = (*again, *sorted(free, key=lambda one: self._order(resource, one, near))[:missing])
            changed = True
        return changed

    def _order(self, resource: str, device: str, near: int | None) -> tuple[int, str]:
        """Near ones come before those of other nodes, and these before those that are near none."""
        nodes = self.devices[resource][device].nodes
        if near is None:
            return 0, device
        return (0 if mask_of(nodes) & near else 1 if nodes else 2), device

    def reusable(self, pod: Obj, container: Obj, resource: str) -> set[str]:
        """What init containers before it had, and none that runs beside it has."""
        uid, found = uid_of(pod), set[str]()
        for other, lasting in _in_order(pod):
            if other["name"] == container["name"]:
                break
            ids = self.given.get(Share(uid, other["name"], resource), ())
            found = found.difference(ids) if lasting else found.union(ids)
        return found

    def hints(self, pod: Obj, container: Obj) -> Hints:
        """The sets of NUMA nodes that a container's devices could be near."""
        return {
            resource: self._hints(
                resource, wanted, self.given.get(Share(uid_of(pod), container["name"], resource)),
                self.reusable(pod, container, resource),
            )
            for resource, wanted in self.wanted(container).items()
        }  # fmt: skip

    def pod_hints(self, pod: Obj) -> Hints:
        """The same for all of a pod's containers together."""
        found: dict[str, Sequence[Hint] | None] = {}
        for resource, wanted in self._wanted_by_pod(pod).items():
            given = {
                one
                for share, ids in self.given.items()
                if (share.uid, share.resource) == (uid_of(pod), resource)
                for one in ids
            }
            found[resource] = self._hints(resource, wanted, tuple(given) or None, set())
        return found

    def _wanted_by_pod(self, pod: Obj) -> Mapping[str, int]:
        sidecars: Counter[str] = Counter()
        most: Counter[str] = Counter()
        for container in podspec.init_containers(pod):
            wanted = Counter(self.wanted(container))
            most |= sidecars + wanted
            if podspec.is_sidecar(container):
                sidecars += wanted
        lasting = sum((Counter(self.wanted(one)) for one in podspec.containers(pod)), sidecars)
        return lasting | most

    def _hints(
        self, resource: str, wanted: int, given: Sequence[str] | None, reusable: Collection[str]
    ) -> Sequence[Hint] | None:
        known = self.devices.get(resource, {})
        if not any(state.nodes for state in known.values()):
            return None
        if given is not None:
            if len(given) != wanted:
                return []
            usable, must = set(given), set[str]()
        else:
            usable, must = {*self.free(resource), *reusable}, set(reusable)
        if len(usable) < wanted:
            return []
        near = {name: mask_of(state.nodes) for name, state in known.items()}
        nodes = {node for state in known.values() for node in state.nodes}
        narrowest, found = len(nodes), []
        for mask in masks(self.nodes or nodes):
            if sum(1 for at in near.values() if at & mask) >= wanted:
                narrowest = min(narrowest, mask.bit_count())
            if all(near.get(one, 0) & mask for one in must) and (
                sum(1 for one in usable if near.get(one, 0) & mask) >= wanted
            ):
                found.append(mask)
        return [Hint(mask, mask.bit_count() == narrowest) for mask in found]

    def _complain(self, resource: str, missing: int, free: int) -> None:
        known = self.devices.get(resource, {})
        if known and not any(state.healthy for state in known.values()):
            names = f"[{' '.join(sorted(known))}]"
            raise NotEnough(f"no healthy devices present; cannot allocate unhealthy devices {resource}: {names}")
        words = f"Requested: {missing}, Available: {free}"
        raise NotEnough(f"requested number of devices unavailable for {resource}. {words}")

    def wants(self, pod: Obj) -> bool:
        """Whether a pod asks for any device."""
        return any(self.wanted(container) for container in podspec.all_containers(pod))

    def wanted(self, container: Obj) -> Mapping[str, int]:
        """What a container asks for, by resource."""
        limits = limits_of(container)
        return {name: quantity.value(limits[name]) for name in limits if name in self.devices and limits[name] != "0"}


def _in_order(pod: Obj) -> Iterable[tuple[Obj, bool]]:
    """Containers as they start, and whether each runs on beside those after it."""
    for container in podspec.init_containers(pod):
        yield container, podspec.is_sidecar(container)
    for container in podspec.containers(pod):
        yield container, True
