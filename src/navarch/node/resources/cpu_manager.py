"""CPUs that containers have for themselves: the `static` policy of Kubernetes' CPU manager.

A container of a Guaranteed pod that asks for whole CPUs gets some that no other container runs on; all others share the
rest, those reserved for the system among them. Whole cores come before single threads. Who has which CPU is kept in
`cpu_manager_state`. With the policy `none` all share all.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from navarch.api.meta import Obj, uid_of
from navarch.kinds.core.resource_lists import qos_class, requests_of
from navarch.node import podspec
from navarch.node.config import KubeletConfig
from navarch.node.resources import cpusets
from navarch.node.resources.amounts import milli_cpu
from navarch.node.resources.capacity import reserved

log = logging.getLogger(__name__)

STATIC: Final = "static"
_STATE: Final = "cpu_manager_state"


class NotEnoughCPUs(Exception):
    """The message is Kubernetes'."""


def cores_of(root: Path = Path("/")) -> Mapping[int, str]:
    """The CPUs that there are, each with its core: the CPUs that are threads of the same one."""
    place = root / "sys/devices/system/cpu"
    try:
        online = cpusets.parse((place / "online").read_text())
    except (OSError, ValueError):
        online = frozenset(os.sched_getaffinity(0))
    found = {}
    for cpu in sorted(online):
        try:
            found[cpu] = (place / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            found[cpu] = str(cpu)
    return found


class CPUManager:
    """`cores` says which CPUs there are (`cores_of`). With the policy `none` nothing is given, and nothing kept."""

    def __init__(self, config: KubeletConfig, cores: Mapping[int, str]) -> None:
        self.on = config.managers.cpu_policy == STATIC
        self._options = config.managers.cpu_options
        self._cores = cores
        self._file = config.data / _STATE
        self._given: dict[tuple[str, str], frozenset[int]] = {}
        self._reserved = frozenset[int]()
        if self.on:
            kept = config.reserved.cpus or sorted(cores)[: -(-int(reserved(config, "cpu") * 1000) // 1000)]
            self._reserved = frozenset(kept) & frozenset(cores)
            self._given = self._read()

    def _taken(self) -> frozenset[int]:
        return frozenset().union(*self._given.values())

    def shared(self) -> frozenset[int]:
        """The CPUs of containers that have none for themselves."""
        left = frozenset(self._cores) - self._taken()
        return left - self._reserved if self._options.get("strict-cpu-reservation") == "true" else left

    def allocatable(self) -> frozenset[int]:
        """Those that can be given away."""
        return frozenset(self._cores) - self._reserved

    def exclusive(self, uid: str, container: str) -> frozenset[int]:
        return self._given.get((uid, container), frozenset())

    def cpuset(self, uid: str, container: str) -> str:
        """What the kernel is told for a container; empty where it may run everywhere."""
        return cpusets.text_of(self.exclusive(uid, container) or self.shared()) if self.on else ""

    def holders(self) -> set[str]:
        return {uid for uid, _ in self._given}

    def reserve(self, pod: Obj, uids: Collection[str]) -> bool:
        """Give a pod the CPUs that its containers have for themselves; `uids` are those of the pods that hold theirs.
        Whether what is shared has changed.  Raises NotEnoughCPUs, and gives nothing then."""
        if not self.on:
            return False
        before = self.shared()
        self._given = {key: cpus for key, cpus in self._given.items() if key[0] in uids}
        made: dict[tuple[str, str], frozenset[int]] = {}
        reusable: frozenset[int] = frozenset()
        for container, lasting in _in_order(pod):
            wanted = _whole_cpus(pod, container)
            if not wanted:
                continue
            cpus = self._pick(wanted, reusable, frozenset().union(*made.values()) - reusable)
            made[uid_of(pod), container["name"]] = cpus
            reusable = reusable - cpus if lasting else reusable | cpus
        self._given.update(made)
        self._write()
        return self.shared() != before

    def release(self, uid: str) -> bool:
        """A pod has gone. Whether what is shared has changed."""
        left = {key: cpus for key, cpus in self._given.items() if key[0] != uid}
        changed, self._given = len(left) != len(self._given), left
        if changed:
            self._write()
        return changed

    def _pick(self, wanted: int, reusable: frozenset[int], own: frozenset[int]) -> frozenset[int]:
        """What init containers had comes first, then whole cores, then single threads of cores that are in use."""
        free = self.allocatable() - self._taken() - own - reusable
        if wanted > len(free) + len(reusable):
            raise NotEnoughCPUs(
                "not enough cpus available to satisfy request: "
                f"requested={wanted}, available={len(free) + len(reusable)}"
            )
        chosen = sorted(reusable)[:wanted]
        by_core: dict[str, list[int]] = {}
        for cpu in sorted(free):
            by_core.setdefault(self._cores[cpu], []).append(cpu)
        whole = [cpus for core, cpus in by_core.items() if len(cpus) == len(cpusets.parse(core))]
        for cpus in whole:
            if len(chosen) + len(cpus) <= wanted:
                chosen += cpus
        for cpus in sorted(by_core.values(), key=len):
            chosen += [cpu for cpu in cpus if cpu not in chosen][: wanted - len(chosen)]
        return frozenset(chosen)

    # What is kept.

    def _write(self) -> None:
        entries: dict[str, dict[str, str]] = {}
        for (uid, container), cpus in self._given.items():
            entries.setdefault(uid, {})[container] = cpusets.text_of(cpus)
        state = {"policyName": STATIC, "defaultCpuSet": cpusets.text_of(self.shared()), "entries": entries}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            partial = self._file.with_suffix(".partial")
            partial.write_text(json.dumps(state))
            partial.replace(self._file)
        except OSError as error:
            log.error("who has which CPU could not be written down: %s", error)

    def _read(self) -> dict[tuple[str, str], frozenset[int]]:
        try:
            state: Any = json.loads(self._file.read_text())
            found = {
                (uid, name): cpusets.parse(text)
                for uid, containers in state["entries"].items()
                for name, text in containers.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {key: cpus for key, cpus in found.items() if cpus <= frozenset(self._cores)}


def _whole_cpus(pod: Obj, container: Obj) -> int:
    """How many CPUs a container has for itself; 0 where it shares."""
    if qos_class(pod["spec"]) != "Guaranteed":
        return 0
    milli = milli_cpu(requests_of(container).get("cpu", 0))
    return milli // 1000 if milli % 1000 == 0 else 0


def _in_order(pod: Obj) -> Iterable[tuple[Obj, bool]]:
    """Containers as they start, and whether each runs on beside those after it."""
    for container in podspec.init_containers(pod):
        yield container, podspec.is_sidecar(container)
    for container in podspec.containers(pod):
        yield container, True
