"""CPUs that containers have for themselves: the `static` policy of Kubernetes' CPU manager.

A container of a Guaranteed pod that asks for whole CPUs gets some that no other container runs on; all others share the
rest, those reserved for the system among them. Which ones, `cpu_choice` says, near the nodes that the topology manager
names. Who has which CPU is kept in `cpu_manager_state`. With the policy `none` all share all.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

from navarch.api.fnv import fnv1a
from navarch.api.meta import Obj, uid_of
from navarch.kinds.core.resource_lists import qos_class, requests_of
from navarch.node import podspec
from navarch.node.config import KubeletConfig
from navarch.node.resources import checkpoints, cpu_choice, cpusets
from navarch.node.resources.amounts import milli_cpu
from navarch.node.resources.capacity import reserved
from navarch.node.resources.numa import Machine, bits, masks
from navarch.node.resources.topology_manager import Hint, Hints, NotAdmitted

log = logging.getLogger(__name__)

STATIC: Final = "static"
STRICT: Final = "strict-cpu-reservation"
FULL_CORES: Final = "full-pcpus-only"
ACROSS_NODES: Final = "distribute-cpus-across-numa"
BY_SOCKET: Final = "align-by-socket"
BY_CACHE: Final = "prefer-align-cpus-by-uncorecache"
OPTIONS: Final = (FULL_CORES, ACROSS_NODES, BY_SOCKET, STRICT, BY_CACHE)
_STATE: Final = "cpu_manager_state"
_NAME: Final = "CPU manager"
_NOTHING: Final = frozenset[int]()


class NotEnoughCPUs(NotAdmitted):
    """The message is Kubernetes'."""


class WholeCoresOnly(NotAdmitted):
    """Threads are asked for that are no whole cores, or there are not as many whole cores."""

    reason = "SMTAlignmentError"

    @property
    def told(self) -> str:
        return str(self)


class CPUManager:
    """With the policy `none` nothing is given.  Raises NotRestored."""

    def __init__(self, config: KubeletConfig, machine: Machine) -> None:
        self._policy = config.managers.cpu_policy
        self.on = self._policy == STATIC
        stated = config.managers.cpu_options
        self._options = {name for name in OPTIONS if stated.get(name, "").lower() in ("true", "1", "t")}
        self._machine = machine
        self._file = config.data / _STATE
        self._given: dict[tuple[str, str], frozenset[int]] = {}
        self._reserved = _NOTHING
        # What init containers of a pod had, and the next ones may have.
        self._reusable: dict[str, frozenset[int]] = {}
        if self.on:
            amount = -(-int(reserved(config, "cpu") * 1000) // 1000)
            every = frozenset(machine.cpus)
            self._reserved = (config.reserved.cpus or cpu_choice.packed(machine.cpus, every, amount)) & every
        self._given = self._restored()

    def _taken(self) -> frozenset[int]:
        return _NOTHING.union(*self._given.values())

    def shared(self) -> frozenset[int]:
        """The CPUs of containers that have none for themselves."""
        left = frozenset(self._machine.cpus) - self._taken()
        return left - self._reserved if STRICT in self._options else left

    def allocatable(self) -> frozenset[int]:
        """Those that can be given away."""
        return frozenset(self._machine.cpus) - self._reserved if self.on else _NOTHING

    def exclusive(self, uid: str, container: str) -> frozenset[int]:
        return self._given.get((uid, container), _NOTHING)

    def cpuset(self, uid: str, container: str) -> str:
        """What the kernel is told for a container; empty where it may run everywhere."""
        return cpusets.text_of(self.exclusive(uid, container) or self.shared()) if self.on else ""

    def holders(self) -> set[str]:
        return {uid for uid, _ in self._given}

    def _free(self) -> frozenset[int]:
        kept = self._reserved
        if FULL_CORES in self._options:
            # The other threads of a core that is partly reserved would be no whole core.
            cores = {self._machine.cpus[cpu].core for cpu in kept}
            kept = frozenset(number for number, cpu in self._machine.cpus.items() if cpu.core in cores)
        return frozenset(self._machine.cpus) - kept - self._taken()

    # Hints.

    def hints(self, pod: Obj, container: Obj) -> Hints:
        wanted = self._whole(pod, container)
        if not wanted:
            return {}
        uid = uid_of(pod)
        given = self.exclusive(uid, container["name"])
        if given:
            return {"cpu": self._hints(given, _NOTHING, wanted) if len(given) == wanted else []}
        return {"cpu": self._hints(self._free(), self._reusable.get(uid, _NOTHING), wanted)}

    def pod_hints(self, pod: Obj) -> Hints:
        lasting = sum(self._whole(pod, one) for one in podspec.containers(pod))
        most, sidecars = 0, 0
        for container in podspec.init_containers(pod):
            wanted = self._whole(pod, container)
            most = max(most, sidecars + wanted)
            sidecars += wanted if podspec.is_sidecar(container) else 0
        wanted = max(most, sidecars + lasting)
        if not wanted:
            return {}
        given = _NOTHING.union(*(cpus for (uid, _), cpus in self._given.items() if uid == uid_of(pod)))
        if given and len(given) == wanted:
            return {"cpu": self._hints(given, _NOTHING, wanted)}
        return {"cpu": self._hints(self._free(), given, wanted)}

    def _hints(self, free: frozenset[int], reusable: frozenset[int], wanted: int) -> list[Hint]:
        nodes = self._machine.nodes
        narrowest, found = len(nodes), []
        for mask in masks(nodes):
            inside = self._machine.cpus_of(mask)
            if len(inside) >= wanted:
                narrowest = min(narrowest, mask.bit_count())
            if reusable <= inside and len(inside & (free | reusable)) >= wanted:
                found.append(mask)
        return [Hint(mask, self._preferred(mask, narrowest)) for mask in found]

    def _preferred(self, mask: int, narrowest: int) -> bool:
        if mask.bit_count() == narrowest:
            return True
        sockets = len({cpu.socket for cpu in self._machine.cpus.values()})
        nodes_per_socket = len(self._machine.nodes) // sockets
        if BY_SOCKET not in self._options or not nodes_per_socket:
            return False
        return len(self._sockets(mask)) == -(-narrowest // nodes_per_socket)

    def _sockets(self, mask: int) -> set[int]:
        wanted = set(bits(mask))
        return {cpu.socket for cpu in self._machine.cpus.values() if cpu.node in wanted}

    # Giving.

    def allocate(self, pod: Obj, container: Obj, near: Hint) -> None:
        wanted = self._whole(pod, container)
        if not wanted:
            return
        uid, name = uid_of(pod), container["name"]
        cpus = self.exclusive(uid, name)
        if not cpus:
            reusable = self._reusable.get(uid, _NOTHING)
            cpus = self._choose(wanted, reusable, near)
            self._given[uid, name] = cpus
            self._write()
        had = self._reusable.get(uid, _NOTHING)
        goes_on = container in podspec.containers(pod) or podspec.is_sidecar(container)
        self._reusable[uid] = had - cpus if goes_on else had | cpus

    def _choose(self, wanted: int, reusable: frozenset[int], near: Hint) -> frozenset[int]:
        self._check(wanted, reusable)
        free = self._free() | reusable
        if wanted > len(free):
            words = f"requested={wanted}, available={len(free)}"
            raise NotEnoughCPUs(f"not enough cpus available to satisfy request: {words}")
        chosen = _NOTHING
        close = free if near.nodes is None else free & self._near(near.nodes)
        # What init containers had comes first.
        for some in (reusable & close, close, free):
            left = some - chosen
            chosen |= self._take(left, min(wanted - len(chosen), len(left)))
        return chosen

    def _near(self, mask: int) -> frozenset[int]:
        if BY_SOCKET not in self._options:
            return self._machine.cpus_of(mask)
        sockets = self._sockets(mask)
        return frozenset(number for number, cpu in self._machine.cpus.items() if cpu.socket in sockets)

    def _check(self, wanted: int, reusable: frozenset[int]) -> None:
        if FULL_CORES not in self._options:
            return
        per_core = self._machine.cpus_per_core
        if wanted % per_core:
            words = f"requested {wanted} cpus not multiple cpus per core = {per_core}"
            raise WholeCoresOnly(f"SMT Alignment Error: {words}")
        available = len(self._free() | reusable)
        if wanted > available:
            words = f"available physical CPUs = {available}, requested CPUs = {wanted}, CPUs per core = {per_core}"
            raise WholeCoresOnly(f"SMT Alignment Error: not enough free physical CPUs: {words}")

    def _take(self, free: frozenset[int], wanted: int) -> frozenset[int]:
        cpus = self._machine.cpus
        if ACROSS_NODES in self._options:
            group = self._machine.cpus_per_core if FULL_CORES in self._options else 1
            return cpu_choice.distributed(cpus, free, wanted, group)
        return cpu_choice.packed(cpus, free, wanted, by_cache=BY_CACHE in self._options)

    def release(self, uid: str) -> bool:
        """A pod has gone. Whether what is shared has changed."""
        self._reusable.pop(uid, None)
        return self._forget([key for key in self._given if key[0] == uid])

    def keep_only(self, uids: Collection[str]) -> bool:
        return self._forget([key for key in self._given if key[0] not in uids])

    def _forget(self, keys: Collection[tuple[str, str]]) -> bool:
        for key in keys:
            del self._given[key]
        if keys:
            self._write()
        return bool(keys)

    def _whole(self, pod: Obj, container: Obj) -> int:
        """How many CPUs a container has for itself; 0 where it shares."""
        if not self.on or qos_class(pod["spec"]) != "Guaranteed" or pod["spec"].get("resources"):
            # What a pod has as a whole is its containers' together.
            return 0
        milli = milli_cpu(requests_of(container).get("cpu", 0))
        return milli // 1000 if milli % 1000 == 0 else 0

    # What is kept.

    def _write(self) -> None:
        entries: dict[str, dict[str, str]] = {}
        for (uid, container), cpus in self._given.items():
            entries.setdefault(uid, {})[container] = cpusets.text_of(cpus)
        shared = cpusets.text_of(self.shared()) if self.on else ""
        state = {"policyName": self._policy, "defaultCpuSet": shared, "entries": entries}
        if not entries:
            del state["entries"]
        try:
            checkpoints.write(self._file, {**state, "checksum": checksum(state)})
        except OSError as error:
            log.error("who has which CPU could not be written down: %s", error)

    def _restored(self) -> dict[tuple[str, str], frozenset[int]]:
        """Raises NotRestored."""
        state = checkpoints.restored(self._file, _NAME, self._policy, checksum)
        if state is None:
            self._write()
            return {}
        try:
            found = {
                (uid, name): cpusets.parse(text)
                for uid, containers in (state.get("entries") or {}).items()
                for name, text in containers.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise checkpoints.NotRestored(f"could not parse cpuset: {error}", _NAME, self._file) from error
        return {key: cpus for key, cpus in found.items() if cpus <= frozenset(self._machine.cpus)}


def checksum(state: Mapping[str, Any]) -> int:
    """As Kubernetes counts it, over what Go prints of the state: tools that read the file look at it."""
    entries = state.get("entries") or {}
    listed = " ".join(
        f"{uid}:map[{' '.join(f'{name}:{cpus}' for name, cpus in sorted(entries[uid].items()))}]"
        for uid in sorted(entries)
    )
    printed = (
        f"(*state.CPUManagerCheckpoint){{PolicyName:(string){state['policyName']} "
        f"DefaultCPUSet:(string){state['defaultCpuSet']} Entries:(map[string]map[string]string)map[{listed}] "
        "Checksum:(checksum.Checksum)0}"
    )
    return fnv1a(printed.encode())
