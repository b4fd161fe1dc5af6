"""emptyDir: a directory that lives as long as the pod, on the node's disk or in memory (`medium: Memory`)."""

# ruff: noqa: ASYNC240 - the files are local and small: a thread would cost more than it saves.

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from navarch.api.meta import Obj
from navarch.node.resources.amounts import whole
from navarch.node.volumes.base import VolumeContext, VolumeError

_MNT_DETACH = 2


class EmptyDir:
    """Writable by everyone, since any user may run in the pod; of the pod's group where it has one."""

    refreshes = False

    async def set_up(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        stated = volume.get("emptyDir") or {}
        fresh = not place.exists()
        place.mkdir(parents=True, exist_ok=True)
        medium = stated.get("medium") or ""
        if medium and not os.path.ismount(place):
            _mount(place, medium, stated.get("sizeLimit"))
            fresh = True
        if fresh:
            place.chmod(0o777)
            if context.fs_group is not None:
                os.chown(place, -1, context.fs_group)
                place.chmod(0o2777)
        return place

    def tear_down(self, place: Path) -> None:
        if os.path.ismount(place):
            ctypes.CDLL(None, use_errno=True).umount2(str(place).encode(), _MNT_DETACH)
        shutil.rmtree(place, ignore_errors=True)


def _mount(place: Path, medium: str, limit: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = []
    if limit is not None and whole(limit) > 0:
        options.append(f"size={whole(limit)}")
    kind = b"tmpfs"
    if medium.startswith("HugePages"):
        kind = b"hugetlbfs"
        if "-" in medium:
            options.append(f"pagesize={medium.partition('-')[2].replace('i', '')}")
    elif medium != "Memory":
        raise VolumeError(f'unknown storage medium "{medium}"')
    if libc.mount(kind, str(place).encode(), kind, 0, ",".join(options).encode()) != 0:
        raise VolumeError(f"mounting {kind.decode()} failed: {os.strerror(ctypes.get_errno())}")
