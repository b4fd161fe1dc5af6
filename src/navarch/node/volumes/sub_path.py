"""subPath: one file or directory of a volume, held fast while it is handed to a container.

Containers that share a volume can turn a directory into a link at any moment, also between a check and the runtime's
mount. So the path is walked once, by descriptors that follow no link, and what was found is bind-mounted into a folder
that no container sees; the runtime is told of that.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from navarch.node.volumes.base import VolumeError
from navarch.node.volumes.mounts import bind, detach


def bind_sub_path(volume: Path, sub_path: str, place: Path) -> Path:
    """`place`, where the file or directory at `sub_path` now is; made as a directory where the volume lacks it.

    Raises VolumeError where the path leads out of the volume."""
    descriptor = _open_inside(volume, sub_path)
    try:
        _unmount(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if place.exists() and not place.is_dir():
                place.unlink()
            place.mkdir(exist_ok=True)
        else:
            if place.is_dir():
                place.rmdir()
            place.touch()
        bind(f"/proc/self/fd/{descriptor}", place, what=f"subPath {sub_path!r}")
    finally:
        os.close(descriptor)
    return place


def _unmount(place: Path) -> None:
    """Let go of what an earlier instance of the container was given; what runs keeps its own mount."""
    while os.path.ismount(place) or _is_mounted_file(place):
        if not detach(place):
            return


def _is_mounted_file(place: Path) -> bool:
    """`ismount` does not notice a file that is mounted from the same file system."""
    text = str(place)
    return any(line.split()[4] == text for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _open_inside(volume: Path, sub_path: str) -> int:
    """A descriptor of what `sub_path` means now. Links within the volume are followed, but only by name: the walk
    itself meets none, or it ends."""
    if sub_path.startswith("/") or ".." in Path(sub_path).parts:
        raise VolumeError(f"subPath {sub_path!r} must be relative and may not contain '..'")
    root = Path(os.path.realpath(volume))
    resolved = Path(os.path.realpath(root / sub_path))
    if not resolved.is_relative_to(root):
        raise VolumeError(f"subPath {sub_path!r} is outside of the volume")
    current = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    owner = os.fstat(current)
    for part in resolved.relative_to(root).parts:
        try:
            following = _step(current, part, owner)
        finally:
            os.close(current)
        current = following
        if stat.S_ISLNK(os.fstat(current).st_mode):
            os.close(current)
            raise VolumeError(f"subPath {sub_path!r} was changed while it was looked at")
    return current


def _step(parent: int, part: str, owner: os.stat_result) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(part, flags, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(part, 0o700, dir_fd=parent)
    made = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        # As the volume itself is, so that whoever can write there can write here.
        os.fchown(made, -1, owner.st_gid)
        os.fchmod(made, stat.S_IMODE(owner.st_mode))
    finally:
        os.close(made)
    return os.open(part, flags, dir_fd=parent)
