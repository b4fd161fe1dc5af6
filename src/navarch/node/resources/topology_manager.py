"""Which NUMA nodes a container gets its CPUs, memory and devices from: Kubernetes' topology manager.

Whoever gives something away is a `Provider` and says by hints from which sets of nodes it could. A policy makes one of
all hints, or refuses the pod: the narrowest set that all prefer, else one that is as wide as the most demanding needs.
Then each gives what it has near that. With the policy `none` nobody is asked.

Hints are merged one resource after the other, since only the set that is left, and whether all wanted the same, matter
to what comes after: thousands of combinations of the sets of eight nodes are never made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from navarch.api.meta import Obj, uid_of
from navarch.node import podspec
from navarch.node.config import ManagersConfig
from navarch.node.resources.numa import Machine, mask_of

NONE: Final = "none"
MOST_NODES: Final = 8


class Hint(NamedTuple):
    """A resource could come from these nodes; None: from wherever."""

    nodes: int | None
    preferred: bool


_ANYWHERE: Final = (Hint(None, preferred=True),)
_NOWHERE: Final = (Hint(None, preferred=False),)
Hints = Mapping[str, Sequence[Hint] | None]
"""By resource. None: it does not matter; empty: there is no way."""


class NotAdmitted(Exception):
    """A pod cannot have what it asks for: the reason of its status, and Kubernetes' words."""

    reason = "UnexpectedAdmissionError"

    @property
    def told(self) -> str:
        return f"Allocate failed due to {self}, which is unexpected"


class Misaligned(NotAdmitted):
    """What it asks for is not close enough together."""

    reason = "TopologyAffinityError"

    def __init__(self) -> None:
        super().__init__("Resources cannot be allocated with Topology locality")

    @property
    def told(self) -> str:
        return str(self)


class Provider(Protocol):
    """Gives away something that is near some nodes. What it gave to a container it gives again."""

    def hints(self, pod: Obj, container: Obj) -> Hints: ...

    def pod_hints(self, pod: Obj) -> Hints: ...

    def allocate(self, pod: Obj, container: Obj, near: Hint) -> None:
        """Raises NotAdmitted."""

    def release(self, uid: str) -> object: ...

    def keep_only(self, uids: Collection[str]) -> object:
        """Take back what all pods but these have."""


class TopologyManager:
    """Has pods given what they ask for, by all `providers` or by none."""

    def __init__(self, config: ManagersConfig, machine: Machine, providers: Sequence[Provider]) -> None:
        self._policy = config.topology_policy
        self._by_pod = config.topology_scope == "pod"
        self._closest = config.topology_options.get("prefer-closest-numa-nodes") == "true"
        self._machine = machine
        self._providers = providers

    def admit(self, pod: Obj, holders: Collection[str]) -> None:
        """Have the pod given all that it asks for; `holders` are those that hold theirs.  Raises NotAdmitted, and
        nothing is given then."""
        uid = uid_of(pod)
        for provider in self._providers:
            provider.keep_only({*holders, uid})
        try:
            near = Hint(None, preferred=False)
            if self._policy != NONE and self._by_pod:
                near = self._merged([provider.pod_hints(pod) for provider in self._providers])
            for container in (*podspec.init_containers(pod), *podspec.containers(pod)):
                if self._policy != NONE and not self._by_pod:
                    near = self._merged([provider.hints(pod, container) for provider in self._providers])
                for provider in self._providers:
                    provider.allocate(pod, container, near)
        except NotAdmitted:
            for provider in self._providers:
                provider.release(uid)
            raise

    def _merged(self, told: Iterable[Hints]) -> Hint:
        """Raises Misaligned."""
        resources = _listed(told)
        everywhere = mask_of(self._machine.nodes)
        if self._policy == "single-numa-node":
            resources = [
                [one for one in hints if one.preferred and (one.nodes is None or one.nodes.bit_count() == 1)]
                for hints in resources
            ]
        best = self._best(resources, everywhere)
        if self._policy == "single-numa-node" and best.nodes == everywhere:
            best = Hint(None, best.preferred)
        if self._policy != "best-effort" and not best.preferred:
            raise Misaligned
        return best

    def _best(self, resources: Sequence[Sequence[Hint]], everywhere: int) -> Hint:
        found = _combined(resources, everywhere)
        preferred = [one for one in found if one.preferred]
        if preferred:
            return min(preferred, key=self._width)
        if not found:
            return Hint(everywhere, preferred=False)
        needed = max((_narrowest(hints) for hints in resources), default=0)
        fitting = [one for one in found if _count(one) <= needed]
        if not fitting:
            return min(found, key=self._width)
        widest = max(map(_count, fitting))
        return min((one for one in fitting if _count(one) == widest), key=self._width)

    def _width(self, hint: Hint) -> tuple[int, float, int]:
        mask = hint.nodes or 0
        return mask.bit_count(), self._machine.apart(mask) if self._closest else 0.0, mask


def _listed(told: Iterable[Hints]) -> list[Sequence[Hint]]:
    """The hints of each resource; who has no opinion takes anything."""
    found: list[Sequence[Hint]] = []
    for hints in told:
        if not hints:
            found.append(_ANYWHERE)
        found += [_ANYWHERE if listed is None else listed or _NOWHERE for listed in hints.values()]
    return found


def _combined(resources: Sequence[Sequence[Hint]], everywhere: int) -> list[Hint]:
    """What is left when one hint of each resource is followed, for all choices. It is preferred where all are, and all
    name the same nodes."""
    # What is left, whether it is preferred, and whether somebody has named nodes yet.
    states = {(everywhere, True, False): None}
    for hints in resources:
        # In the order in which they were reached, which decides between equals.
        reached: dict[tuple[int, bool, bool], None] = {}
        for left, preferred, named in states:
            for hint in hints:
                if hint.nodes is None:
                    reached[left, preferred and hint.preferred, named] = None
                    continue
                same = not named or hint.nodes == left
                reached[left & hint.nodes, preferred and hint.preferred and same, True] = None
        states = reached
    return [Hint(left, preferred) for left, preferred, _ in states if left]


def _count(hint: Hint) -> int:
    return (hint.nodes or 0).bit_count()


def _narrowest(hints: Sequence[Hint]) -> int:
    return min((one.nodes.bit_count() for one in hints if one.nodes is not None), default=0)
