"""`ResourceManager`: what the kernel is told about a pod as a whole, its cgroup, and about the classes of pods. A pod's
is made before the sandbox, and taken away when nothing of the pod runs any more.

The kernel makes its callers wait where it is busy, and a cgroup stays while a process in it is still dying: so all of
this runs in threads, and taking away is tried again for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from navarch.api.meta import Obj
from navarch.client.supervision import Delay
from navarch.node.config import KubeletConfig
from navarch.node.resources import allocatable, cgroups, qos
from navarch.world import World

log = logging.getLogger(__name__)

_ATTEMPTS: Final = 5
_FIRST_DELAY_S: Final = 0.05


class ResourceManager:
    """Cgroups of the pods of one node, below the node's own root."""

    def __init__(self, config: KubeletConfig, world: World, pods: Callable[[], Iterable[Obj]] = tuple) -> None:
        """`pods` answers those that hold the node's resources now."""
        self._config = config
        self._world = world
        self._pods = pods
        self._shares: dict[str, int] = {}

    async def publish(self, pod: Obj) -> None:
        """Have the pod's cgroup with the limits that its specification states now.  Raises OSError."""
        settings = self._config.cgroups
        if not settings.per_qos:
            return
        parent = cgroups.cgroup_parent(pod, self._config)
        await self._world.in_thread(cgroups.make_pod_cgroup, pod, parent, settings)
        await self.share()

    async def enforce(self, memory_bytes: int, cpus: int) -> None:
        """Bound what all pods have together, and what is reserved, as configured.  Raises OSError."""
        await self._world.in_thread(allocatable.enforce, self._config, memory_bytes, cpus)

    async def share(self) -> None:
        """Give each class of pods its part of the CPU, where that is another than before."""
        shares = qos.shares_of_classes(self._pods())
        if shares != self._shares:
            self._shares = shares
            await self._world.in_thread(qos.set_shares, self._config.cgroup_root, shares)

    async def unpublish(self, pod: Obj) -> bool:
        """Take the pod's cgroup away. Returns whether it is gone; the sweeper comes back for one that is not."""
        if not self._config.cgroups.per_qos:
            return True
        gone = await self._remove(cgroups.cgroup_parent(pod, self._config))
        await self.share()
        return gone

    async def remove_stale(self, lives: Callable[[str], bool]) -> None:
        """Take away the cgroups of all pods that do not live."""
        root = self._config.cgroup_root
        for uid in sorted(await self._world.in_thread(cgroups.pod_uids, root)):
            if lives(uid):
                continue
            for middle in ("", "/burstable", "/besteffort"):
                await self._remove(f"{root}{middle}/pod{uid}")

    async def _remove(self, parent: str) -> bool:
        delay = Delay(_FIRST_DELAY_S)
        for attempt in range(_ATTEMPTS):
            if await self._world.in_thread(cgroups.remove_pod_cgroup, parent):
                return True
            if attempt + 1 < _ATTEMPTS:
                await asyncio.sleep(delay.failed())
        log.info("cgroup %s stays for now: something is still in it", parent)
        return False
