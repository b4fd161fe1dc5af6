"""`Managers`: those that give a pod what is its alone (devices, CPUs, memory), and which of it lies near which.

In: a pod that comes, and the uids of those that hold theirs.  Out: all that it asks for is its own, or why it cannot
be; containers that share CPUs moved off those that somebody got for himself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from typing import Final

from navarch.api.meta import Obj
from navarch.client.supervision import Failures
from navarch.node.config import KubeletConfig
from navarch.node.devices.manager import DeviceManager
from navarch.node.engine.admission import Refusal
from navarch.node.engine.pods import Pods
from navarch.node.resources import cpusets
from navarch.node.resources.cpu_manager import CPUManager
from navarch.node.resources.memory_manager import MemoryManager
from navarch.node.resources.numa import machine_of
from navarch.node.resources.topology_manager import NotAdmitted, TopologyManager
from navarch.node.runtime.base import Resources, Runtime, RuntimeFailure
from navarch.world import World


class Managers:
    """One per node. What they have given is in files, so that the next kubelet knows it."""

    def __init__(self, config: KubeletConfig, world: World, failures: Failures) -> None:
        machine = machine_of()
        self.cpus: Final = CPUManager(config, machine)
        self.memory: Final = MemoryManager(config, machine)
        self.devices: Final = DeviceManager(config.device_plugins, world, failures)
        self.devices.ledger.nodes = machine.nodes
        # Devices come first, as in Kubernetes: whose error is told where several are short.
        self._topology = TopologyManager(config.managers, machine, [self.devices, self.cpus, self.memory])
        # The CPUs that containers share run on.
        self._shared = self.cpus.shared()
        self._shares_changed = asyncio.Event()

    def holders(self) -> set[str]:
        """The uids of pods that have something of their own."""
        return self.devices.holders() | self.cpus.holders() | self.memory.holders()

    def admit(self, pod: Obj, holders: Collection[str]) -> Refusal | None:
        """Give the pod all that it asks for, or nothing, and say why; only `holders` keep theirs."""
        try:
            self._topology.admit(pod, holders)
        except NotAdmitted as error:
            return Refusal(error.reason, error.told)
        finally:
            self._look_at_shares()
        return None

    def give_back(self, uid: str) -> None:
        """The pod needs nothing any more."""
        for manager in (self.devices, self.cpus, self.memory):
            manager.release(uid)
        self._look_at_shares()

    def _look_at_shares(self) -> None:
        if self.cpus.shared() != self._shared:
            self._shares_changed.set()

    async def move_containers(self, runtime: Runtime, pods: Pods) -> None:
        """Have containers that share CPUs run where they may, each time that others get or give back theirs."""
        while True:
            await self._shares_changed.wait()
            self._shares_changed.clear()
            shared = self.cpus.shared()
            if shared == self._shared:
                # Somebody got some, and was refused for another reason.
                continue
            self._shared = shared
            where = Resources(cpuset_cpus=cpusets.text_of(shared))
            for worker in pods:
                for one in worker.observed.all():
                    if one.running and not self.cpus.exclusive(worker.uid, one.name):
                        with contextlib.suppress(RuntimeFailure, ConnectionError):
                            await runtime.update_resources(one.id, where)
