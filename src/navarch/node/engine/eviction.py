"""Eviction: pods that must go so that the node stays usable, when memory, disk, inodes or process ids run short, or
when a pod uses more local storage than it may.

What is left is looked at every few seconds, in a thread; memory, which goes fastest, every second. Before a pod has to
go, what nobody needs is taken away (images, containers that have ended). One pod at a time: what it frees is seen
before the next is chosen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.engine.attempts import attempt
from navarch.node.engine.gc import Sweeper
from navarch.node.engine.node_status import NodeReporter
from navarch.node.engine.parts import Parts
from navarch.node.engine.pods import Pods
from navarch.node.engine.podstate import EVICTED
from navarch.node.engine.ranking import Words, has_storage_limits, low_on, over_limit, rank
from navarch.node.engine.worker import PodWorker
from navarch.node.resources import cgroups
from navarch.node.resources.amounts import whole
from navarch.node.resources.signals import Places, memory_left, observe
from navarch.node.resources.usage import ContainerUse, PodUse, Use
from navarch.node.runtime.base import POD_UID, ContainerStats
from navarch.node.thresholds import MEMORY, Threshold

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 10.0
_MEMORY_EVERY_S: Final = 1.0
# Pods have this long to go because of a threshold that allows none.
_AT_ONCE_S: Final = 1
_GONE_WITHIN_S: Final = 30.0
_GONE_CHECK_S: Final = 0.25


class Evictor:
    """A slow loop. `usage` is asked for what pods use."""

    def __init__(self, parts: Parts, pods: Pods, node: NodeReporter, sweeper: Sweeper) -> None:
        self._parts = parts
        self._pods = pods
        self._node = node
        self._sweeper = sweeper
        config = parts.config
        self._places = Places(config.data, config.data, config.cgroup_root, self._allocatable_memory)
        self._separate_images: bool | None = None
        self.evicted: dict[str, int] = {}

    def _allocatable_memory(self) -> int:
        return whole(self._node.allocatable().get("memory", 0))

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            gone = await attempt("eviction", self.look(), self._parts.failures)
            if gone is None:
                await self._pause()
            else:
                await self._until_gone(gone)

    async def _pause(self) -> None:
        """Until the next look; less if memory goes meanwhile."""
        elapsed_s = 0.0
        while elapsed_s < _LOOK_EVERY_S:
            await asyncio.sleep(_MEMORY_EVERY_S)
            elapsed_s += _MEMORY_EVERY_S
            left = memory_left(self._places.root)
            for one in self._parts.config.eviction.thresholds:
                if one.signal == MEMORY and one.hard and left and left.available < one.level.of(left.capacity):
                    return

    async def _until_gone(self, worker: PodWorker) -> None:
        """Until it has given back what it held, not only stopped: its files may be all that is short."""
        waited_s = 0.0
        while waited_s < _GONE_WITHIN_S and not worker.reclaimed:
            await asyncio.sleep(_GONE_CHECK_S)
            waited_s += _GONE_CHECK_S

    async def look(self) -> PodWorker | None:
        """Act on what is short, if anything is. Returns a pod that has to go."""
        if self._separate_images is None:
            self._places.images = Path((await self._parts.runtime.image_filesystem()).mountpoint)
            self._separate_images = await self._parts.world.in_thread(lambda: self._places.separate_images)
        due = self._node.pressure.take(await self._parts.world.in_thread(observe, self._places))
        if self._parts.config.eviction.local_storage:
            over = await self._over_limits()
            if over is not None:
                return over
        return await self._reclaim(due) if due else None

    async def _reclaim(self, due: Sequence[Threshold]) -> PodWorker | None:
        threshold, config = due[0], self._parts.config
        resource = threshold.resource
        log.info("short of %s: reclaiming", resource)
        self._node.event("Warning", "EvictionThresholdMet", f"Attempting to reclaim {resource}")
        if resource in ("ephemeral-storage", "inodes") and await self._reclaim_unused(threshold):
            return None
        candidates = {worker.uid: worker for worker in self._pods if not worker.ending}
        uses = await self.uses(list(candidates.values()), processes=resource == "pids")
        separate = bool(self._separate_images)
        for pod in rank([one.pod for one in candidates.values()], threshold.signal, uses, separate_images=separate):
            worker = candidates[pod["metadata"]["uid"]]
            if critical(worker):
                log.info("%s stays, whatever the node is short of", podspec.quoted(pod))
                continue
            level = self._node.pressure.level_of(resource, due)
            words = low_on(resource, pod, uses.get(worker.uid), level)
            grace_s = _AT_ONCE_S if threshold.hard else max(_AT_ONCE_S, config.eviction.longest_grace_s)
            self._evict(worker, words, grace_s, threshold.signal, disruption=True)
            return worker
        log.warning("no pod can be evicted from the node")
        return None

    async def _reclaim_unused(self, threshold: Threshold) -> bool:
        """Take away what nobody needs; whether that was enough."""
        if self._separate_images and threshold.signal.startswith("nodefs"):
            return False
        await self._sweeper.remove_dead_containers()
        await self._sweeper.remove_unused_images(None)
        return not self._node.pressure.take(await self._parts.world.in_thread(observe, self._places))

    async def _over_limits(self) -> PodWorker | None:
        """Evict pods that use more local storage than they may."""
        bounded = [worker for worker in self._pods if not worker.ending and has_storage_limits(worker.pod)]
        if not bounded:
            return None
        uses, found = await self.uses(bounded), None
        for worker in bounded:
            use = uses.get(worker.uid)
            message = over_limit(worker.pod, use, separate_images=bool(self._separate_images)) if use else ""
            if message and not critical(worker):
                self._evict(worker, Words(message, {}), _AT_ONCE_S, "ephemeral-storage limit", disruption=False)
                found = worker
        return found

    def _evict(self, worker: PodWorker, words: Words, grace_s: int, signal: str, *, disruption: bool) -> None:
        """End a pod as Failed with reason Evicted."""
        self.evicted[signal] = self.evicted.get(signal, 0) + 1
        worker.parts.recorder.event(worker.pod, "Warning", "Evicted", words.message, annotations=words.annotations)
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
        conditions: list[Obj] = [{**condition, "message": words.message}] if disruption else []
        worker.fail(EVICTED, words.message, conditions, grace_s=grace_s)

    async def uses(self, workers: Sequence[PodWorker], *, processes: bool = False) -> Mapping[str, PodUse]:
        """What pods use, by uid; of logs and volumes as it was in the last minute or so."""
        by_pod: dict[str, list[ContainerStats]] = {}
        for stats in await self._parts.runtime.stats():
            by_pod.setdefault(stats.labels.get(POD_UID, ""), []).append(stats)
        found = await asyncio.gather(*(self._use(one, by_pod.get(one.uid, []), processes) for one in workers))
        return {one.uid: use for one, use in zip(workers, found, strict=True) if use is not None}

    async def _use(self, worker: PodWorker, stats: Sequence[ContainerStats], processes: bool) -> PodUse | None:
        if not stats:
            return None
        config, metadata = self._parts.config, worker.pod["metadata"]
        logs = config.log_directory(metadata["namespace"], metadata["name"], worker.uid)
        disks = await self._parts.disks.of(worker.pod, worker.volumes, logs, max_age_s=config.volume_stats_s)
        containers = {
            one.name: ContainerUse(
                one.memory_working_set_bytes,
                Use(one.layer_used_bytes, one.layer_inodes),
                disks.logs.get(one.name, Use()),
            )
            for one in stats
        }
        running = 0
        if processes:
            parent = cgroups.cgroup_parent(worker.pod, config)
            running = await self._parts.world.in_thread(cgroups.processes, parent)
        return PodUse(containers, disks.volumes, running)


def critical(worker: PodWorker) -> bool:
    """Whether the node is better off with this pod than with what it would free."""
    return worker.static or podspec.is_critical(worker.pod)
