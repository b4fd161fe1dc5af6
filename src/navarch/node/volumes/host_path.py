"""hostPath: a path of the node itself, checked to be of the type that the pod expects."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node.volumes.base import VolumeContext, VolumeError, on_this_node

_CHECKS: Final = {
    "Directory": (stat.S_ISDIR, "is not a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "is not a directory"),
    "File": (stat.S_ISREG, "is not a file"),
    "FileOrCreate": (stat.S_ISREG, "is not a file"),
    "Socket": (stat.S_ISSOCK, "is not a socket"),
    "CharDevice": (stat.S_ISCHR, "is not a character device"),
    "BlockDevice": (stat.S_ISBLK, "is not a block device"),
}


class HostPath:
    """Nothing is ever removed: the path is the node's."""

    refreshes = False

    def __init__(self, root: Path) -> None:
        self._root = root

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        stated = volume["hostPath"]
        path = on_this_node(Path(stated["path"]), self._root)
        return await context.in_thread(check_host_path, path, stated.get("type") or "")


def check_host_path(path: Path, kind: str) -> Path:
    """The path, made where its type says so.  Raises VolumeError where it is not of that type."""
    if not kind:
        # No check asked for. The runtime makes a missing directory, as Docker did, but only if its parent is there.
        if not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        return path
    if kind == "DirectoryOrCreate" and not path.exists():
        path.mkdir(parents=True, mode=0o755)
    elif kind == "FileOrCreate" and not path.exists():
        try:
            path.touch(mode=0o644)
        except OSError as error:
            raise VolumeError(f"hostPath type check failed: {path} {error.strerror}") from error
    matches, complaint = _CHECKS[kind]
    try:
        mode = path.stat().st_mode
    except OSError:
        raise VolumeError(f"hostPath type check failed: {path} {complaint}") from None
    if not matches(mode):
        raise VolumeError(f"hostPath type check failed: {path} {complaint}")
    return path
