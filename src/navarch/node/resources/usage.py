"""What pods use: memory, disk and inodes of their containers' layers, logs and volumes, processes.

Figures of containers are the runtime's. Logs and volumes are measured here by walking their folders, in a thread, and
what was measured is kept for a while: whoever asks says how old it may be.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.world import World

_EPHEMERAL: Final = ("emptyDir", "configMap", "secret", "downwardAPI", "projected")


class Use(NamedTuple):
    """Of a folder, or of a layer."""

    bytes: int = 0
    inodes: int = 0

    def __add__(self, other: object) -> Use:
        if not isinstance(other, Use):
            return NotImplemented
        return Use(self.bytes + other.bytes, self.inodes + other.inodes)


NOTHING: Final = Use()


@dataclass(frozen=True, slots=True)
class ContainerUse:
    memory: int = 0
    layer: Use = NOTHING
    log: Use = NOTHING


@dataclass(frozen=True, slots=True)
class PodUse:
    """`volumes` are those that are on the node's own disk and end with the pod, by name."""

    containers: Mapping[str, ContainerUse] = field(default_factory=dict)
    volumes: Mapping[str, Use] = field(default_factory=dict)
    processes: int = 0

    @property
    def memory(self) -> int:
        return sum(one.memory for one in self.containers.values())

    def disk(self, *, layers: bool = True, logs: bool = True, volumes: bool = True) -> Use:
        """What the pod uses of disks."""
        parts: list[Use] = []
        for one in self.containers.values():
            parts += [one.layer] * layers + [one.log] * logs
        if volumes:
            parts += self.volumes.values()
        return total(parts)


def total(parts: Iterable[Use]) -> Use:
    listed = list(parts)
    return Use(sum(one.bytes for one in listed), sum(one.inodes for one in listed))


def tree(place: Path) -> Use:
    """What a folder and all below it occupy on its own file system; a file of several names is counted once."""
    try:
        top = os.lstat(place)
    except OSError:
        return Use()
    used, inodes = top.st_blocks * 512, 1
    seen: set[int] = set()
    waiting = [os.fspath(place)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    about = entry.stat(follow_symlinks=False)
                    if about.st_dev != top.st_dev or about.st_ino in seen:
                        continue
                    if about.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        seen.add(about.st_ino)
                    used, inodes = used + about.st_blocks * 512, inodes + 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            # It goes while it is looked at.
            continue
    return Use(used, inodes)


class Measured(NamedTuple):
    at: datetime
    volumes: Mapping[str, Use]
    logs: Mapping[str, Use]


class DiskUsage:
    """Measures pods' logs and volumes. Of one pod there is one measurement at a time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[str, Measured] = {}
        self._running: dict[str, asyncio.Task[Measured]] = {}

    async def of(self, pod: Obj, volumes: Mapping[str, Path], logs: Path, *, max_age_s: float) -> Measured:
        """What was measured in the last `max_age_s`, or is now."""
        uid = str(pod["metadata"]["uid"])
        kept = self._kept.get(uid)
        if kept is not None and self._world.now() - kept.at < timedelta(seconds=max_age_s):
            return kept
        task = self._running.get(uid)
        if task is None:
            task = asyncio.create_task(self._measure(uid, pod, dict(volumes), logs), name=f"disk usage of {uid}")
            self._running[uid] = task
            task.add_done_callback(lambda _: self._running.pop(uid, None))
        return await asyncio.shield(task)

    async def _measure(self, uid: str, pod: Obj, volumes: Mapping[str, Path], logs: Path) -> Measured:
        found = await self._world.in_thread(_measure, pod, volumes, logs)
        measured = Measured(self._world.now(), *found)
        self._kept[uid] = measured
        return measured

    def keep_only(self, uids: Iterable[str]) -> None:
        """Forget pods that have gone."""
        known = set(uids)
        self._kept = {uid: measured for uid, measured in self._kept.items() if uid in known}


def local_volumes(pod: Obj) -> Sequence[str]:
    """The volumes that are on the node's own disk and end with the pod."""
    return [
        volume["name"]
        for volume in pod["spec"].get("volumes") or ()
        if any(kind in volume for kind in _EPHEMERAL) and not (volume.get("emptyDir") or {}).get("medium")
    ]


def _measure(pod: Obj, volumes: Mapping[str, Path], logs: Path) -> tuple[Mapping[str, Use], Mapping[str, Use]]:
    used = {name: tree(volumes[name]) for name in local_volumes(pod) if name in volumes}
    written = {one["name"]: tree(logs / one["name"]) for one in podspec.all_containers(pod)}
    return used, written
