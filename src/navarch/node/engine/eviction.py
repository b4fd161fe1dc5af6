"""Eviction: pods that must go so that the node stays usable, when memory or disk runs short, or when a pod uses more
local
storage than it may.

Who goes first is Kubernetes' order: pods that use more than they requested, then those of lower priority, then those
that exceed their requests by most. One pod at a time: what it frees is seen before the next is chosen.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.kinds.core.resource_lists import limits_of, pod_requests
from navarch.node import podspec
from navarch.node.engine.gc import Sweeper
from navarch.node.engine.node_status import NodeReporter
from navarch.node.engine.parts import Parts
from navarch.node.engine.pods import Pods
from navarch.node.engine.worker import PodWorker
from navarch.node.resources.amounts import whole
from navarch.node.runtime.base import POD_UID, RuntimeFailure

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 10.0
_STORAGE_EVERY: Final = 6


class Evictor:
    """A slow loop that reads a few numbers of the kernel's."""

    def __init__(self, parts: Parts, pods: Pods, node: NodeReporter, sweeper: Sweeper) -> None:
        self._parts = parts
        self._pods = pods
        self._node = node
        self._sweeper = sweeper

    async def run(self) -> None:
        """Watch for ever."""
        turn = 0
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            turn += 1
            try:
                await self.look()
                if turn % _STORAGE_EVERY == 0:
                    await self.check_local_storage()
            except (RuntimeFailure, OSError) as error:
                log.warning("eviction: %s", error)
            except Exception as error:
                self._parts.failures.note("eviction", error)

    async def look(self) -> None:
        """Act on pressure, if there is any."""
        pressure, config = self._node.pressure, self._parts.config
        if pressure.memory_short():
            self._node.event("Warning", "EvictionThresholdMet", "Attempting to reclaim memory")
            words = _threshold("memory", config.eviction_memory_available, pressure.memory_available())
            await self._evict_one("memory", words)
        elif pressure.disk_short():
            self._node.event("Warning", "EvictionThresholdMet", "Attempting to reclaim ephemeral-storage")
            # Images that nobody uses come back by a pull; pods do not.
            if not await self._sweeper.remove_unused_images(1):
                disk = os.statvfs(config.data)
                threshold = disk.f_blocks * disk.f_frsize * config.eviction_nodefs_available_percent // 100
                words = _threshold("ephemeral-storage", threshold, disk.f_bavail * disk.f_frsize)
                await self._evict_one("ephemeral-storage", words)

    async def _evict_one(self, resource: str, words: str) -> None:
        usage = await self._usage(resource)
        candidates = [worker for worker in self._pods if not worker.ending and not critical(worker)]
        ranked = rank(candidates, resource, usage)
        if ranked:
            evict(ranked[0], f"The node was low on resource: {resource}. {words}")

    async def _usage(self, resource: str) -> dict[str, int]:
        """Bytes in use by uid of pod."""
        result: dict[str, int] = {}
        for stats in await self._parts.runtime.stats():
            uid = stats.labels.get(POD_UID, "")
            used = stats.memory_working_set_bytes if resource == "memory" else stats.layer_used_bytes
            result[uid] = result.get(uid, 0) + used
        return result

    async def check_local_storage(self) -> None:
        """Evict pods whose emptyDir volumes, or whose containers' local storage, are larger than their limits."""
        usage = await self._usage("ephemeral-storage")
        for worker in self._pods:
            if worker.ending:
                continue
            complaint = await asyncio.to_thread(over_limit, worker.pod, worker.volumes, usage.get(worker.uid, 0))
            if complaint:
                evict(worker, complaint)


def critical(worker: PodWorker) -> bool:
    """Whether the node is better off with this pod than with what it would free."""
    return worker.static or podspec.is_critical(worker.pod)


def rank(workers: Sequence[PodWorker], resource: str, usage: dict[str, int]) -> list[PodWorker]:
    """The order in which pods are evicted, first first."""

    def key(worker: PodWorker) -> Any:
        over = usage.get(worker.uid, 0) - pod_requests(worker.pod).get(resource, 0)
        return (over <= 0, int(worker.pod["spec"].get("priority") or 0), -over)

    return sorted(workers, key=key)


def evict(worker: PodWorker, message: str) -> None:
    """End a pod as Failed with reason Evicted."""
    worker.event("Warning", "Evicted", message)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message}
    worker.fail("Evicted", message, [condition])


def over_limit(pod: Obj, volumes: dict[str, Path], layer_bytes: int) -> str:
    """Why a pod's use of local storage exceeds what it may; empty where it does not."""
    total = layer_bytes
    for volume in pod["spec"].get("volumes") or []:
        stated = volume.get("emptyDir")
        place = volumes.get(volume["name"])
        if stated is None or place is None or stated.get("medium"):
            continue
        used = tree_bytes(place)
        total += used
        limit = stated.get("sizeLimit")
        if limit is not None and whole(limit) and used > whole(limit):
            shown = quantity.canonical(limit)
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{shown}". '
    limits = [limits_of(container).get("ephemeral-storage") for container in podspec.containers(pod)]
    if limits and all(limit is not None for limit in limits):
        allowed = sum(whole(limit) for limit in limits)
        if total > allowed:
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {allowed}. "
    return ""


def tree_bytes(place: Path) -> int:
    """The bytes that a directory tree occupies on disk."""
    total = 0
    for directory, _, files in os.walk(place):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except OSError:
                continue
    return total


def _threshold(resource: str, threshold: int, available: int) -> str:
    return f"Threshold quantity: {_readable(threshold)}, available: {_readable(available)}. "


def _readable(amount: int) -> str:
    return f"{amount // 1024}Ki"
