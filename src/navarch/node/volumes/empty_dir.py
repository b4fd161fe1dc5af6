"""emptyDir: a directory that lives as long as the pod, on the node's disk or in memory (`medium: Memory`)."""

from __future__ import annotations

import os
from pathlib import Path

from navarch.api.meta import Obj
from navarch.kinds.core.resource_lists import pod_limits
from navarch.node.resources.amounts import whole
from navarch.node.volumes.base import VolumeContext, VolumeError
from navarch.node.volumes.mounts import mount


class EmptyDir:
    """Writable by everyone, since any user may run in the pod; of the pod's group where it has one."""

    refreshes = False

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        stated = volume.get("emptyDir") or {}
        most = memory_size(stated, context.pod, whole((context.facts.allocatable or {}).get("memory") or 0))
        return await context.in_thread(_make, stated, place, context.fs_group, most)


def memory_size(stated: Obj, pod: Obj, allocatable: int) -> int:
    """How big a directory in memory may become: no bigger than all that its pod may have, or any pod; 0 where nobody
    says."""
    limits = [whole(stated.get("sizeLimit") or 0), pod_limits(pod, "memory"), allocatable]
    return min((limit for limit in limits if limit > 0), default=0)


def _make(stated: Obj, place: Path, group: int | None, most: int) -> Path:
    fresh = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    medium = stated.get("medium") or ""
    if medium and not os.path.ismount(place):
        _mount(place, medium, most if medium == "Memory" else whole(stated.get("sizeLimit") or 0))
        fresh = True
    if fresh:
        place.chmod(0o777)
        if group is not None:
            os.chown(place, -1, group)
            place.chmod(0o2777)
    return place


def _mount(place: Path, medium: str, limit: int) -> None:
    options = [f"size={limit}"] if limit > 0 else []
    kind = "tmpfs"
    if medium.startswith("HugePages"):
        kind = "hugetlbfs"
        if "-" in medium:
            options.append(f"pagesize={medium.partition('-')[2].replace('i', '')}")
    elif medium != "Memory":
        raise VolumeError(f'unknown storage medium "{medium}"')
    mount(kind, place, ",".join(options))
