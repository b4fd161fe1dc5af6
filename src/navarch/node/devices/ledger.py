"""Which devices there are, and which container has which. Pure.

A resource (`example.com/gpu`) has devices, each healthy or not, near some memory nodes or none. What an init container
has, the containers after it take over; what a sidecar or a container of the pod has is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from navarch.api import quantity
from navarch.api.meta import Obj, uid_of
from navarch.kinds.core.resource_lists import limits_of
from navarch.node import podspec

HEALTHY: Final = "Healthy"


class DeviceState(NamedTuple):
    healthy: bool
    nodes: frozenset[int] = frozenset()


class Share(NamedTuple):
    """Whose devices of which resource."""

    uid: str
    container: str
    resource: str


class NotEnough(Exception):
    """Devices that a pod asks for are not there; the message is Kubernetes'."""


@dataclass(slots=True)
class Ledger:
    """`devices` by resource and id; `given` the ids that each share has."""

    devices: dict[str, dict[str, DeviceState]] = field(default_factory=dict)
    given: dict[Share, tuple[str, ...]] = field(default_factory=dict)

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

    def reserve(self, pod: Obj, pick: Pick) -> None:
        """Give a pod the devices that its containers ask for.  Raises NotEnough, and gives nothing then."""
        made: dict[Share, tuple[str, ...]] = {}
        reusable: dict[str, list[str]] = {}
        uid = uid_of(pod)
        for container, lasting in _in_order(pod):
            for resource, wanted in self._wanted(container).items():
                again = reusable.get(resource, [])[:wanted]
                held = {one for share, ids in made.items() if share.resource == resource for one in ids}
                free = [one for one in self.free(resource) if one not in held]
                missing = wanted - len(again)
                if missing > len(free):
                    self._complain(resource, missing, len(free))
                ids = (*again, *(pick(container["name"], resource, free, missing) if missing else ()))
                made[Share(uid, container["name"], resource)] = ids
                left = [one for one in reusable.get(resource, []) if one not in ids]
                reusable[resource] = left if lasting else [*left, *ids]
        self.given.update(made)

    def _complain(self, resource: str, missing: int, free: int) -> None:
        known = self.devices.get(resource, {})
        if known and not any(state.healthy for state in known.values()):
            names = f"[{' '.join(sorted(known))}]"
            raise NotEnough(f"no healthy devices present; cannot allocate unhealthy devices {resource}: {names}")
        words = f"Requested: {missing}, Available: {free}"
        raise NotEnough(f"requested number of devices unavailable for {resource}. {words}")

    def wants(self, pod: Obj) -> bool:
        """Whether a pod asks for any device."""
        return any(self._wanted(container) for container in podspec.all_containers(pod))

    def _wanted(self, container: Obj) -> Mapping[str, int]:
        limits = limits_of(container)
        return {name: quantity.value(limits[name]) for name in limits if name in self.devices and limits[name] != "0"}


Pick = Callable[[str, str, Sequence[str], int], Sequence[str]]
"""Chooses among the free devices of a resource: for a container, the resource, the free ones, how many."""


def _in_order(pod: Obj) -> Iterable[tuple[Obj, bool]]:
    """Containers as they start, and whether each runs on beside those after it."""
    for container in podspec.init_containers(pod):
        yield container, podspec.is_sidecar(container)
    for container in podspec.containers(pod):
        yield container, True
