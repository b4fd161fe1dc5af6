"""emptyDir: a directory that lives as long as the pod, on the node's disk or in memory (`medium: Memory`)."""

from __future__ import annotations

import os
from pathlib import Path

from navarch.api.meta import Obj
from navarch.node.resources.amounts import whole
from navarch.node.volumes.base import VolumeContext, VolumeError
from navarch.node.volumes.mounts import mount


class EmptyDir:
    """Writable by everyone, since any user may run in the pod; of the pod's group where it has one."""

    refreshes = False

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        return await context.in_thread(_make, volume.get("emptyDir") or {}, place, context.fs_group)


def _make(stated: Obj, place: Path, group: int | None) -> Path:
    fresh = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    medium = stated.get("medium") or ""
    if medium and not os.path.ismount(place):
        _mount(place, medium, stated.get("sizeLimit"))
        fresh = True
    if fresh:
        place.chmod(0o777)
        if group is not None:
            os.chown(place, -1, group)
            place.chmod(0o2777)
    return place


def _mount(place: Path, medium: str, limit: object) -> None:
    options = []
    if limit is not None and whole(limit) > 0:
        options.append(f"size={whole(limit)}")
    kind = "tmpfs"
    if medium.startswith("HugePages"):
        kind = "hugetlbfs"
        if "-" in medium:
            options.append(f"pagesize={medium.partition('-')[2].replace('i', '')}")
    elif medium != "Memory":
        raise VolumeError(f'unknown storage medium "{medium}"')
    mount(kind, place, ",".join(options))
