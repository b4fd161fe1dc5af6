"""Project quotas: a directory that the file system (xfs, or ext4 with `prjquota`) lets grow to a size and no further.

The directory gets a project of its own, which what is made below inherits, and the project a limit. Where the file
system does not count by projects, nothing happens and the reason is told.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import zlib
from pathlib import Path
from typing import Final

_GET: Final = 0x801C581F
_SET: Final = 0x401C5820
# struct fsxattr: flags, extent size, extents, project, CoW extent size, padding.
_ATTRIBUTES: Final = struct.Struct("=IIIII8x")
_INHERIT: Final = 0x200
_PROJECT_QUOTA: Final = 2
_SET_LIMITS: Final = 0x800008
_XFS_SET_LIMITS: Final = ord("X") << 8 | 4
_BLOCK_LIMITS_VALID: Final = 1
_XFS_BLOCK_LIMITS: Final = 1 << 2 | 1 << 3
_KNOWN: Final = ("xfs", "ext4")


def limit_directory(path: Path, size_bytes: int) -> str:
    """Why the directory is not limited; empty where it is."""
    if size_bytes <= 0:
        return "no size was asked for"
    device, kind, options = _file_system(path)
    if kind not in _KNOWN or not any(option in options for option in ("prjquota", "pquota")):
        return f"{kind or 'the file system'} is mounted without project quotas"
    # Nobody hands out numbers; one that two directories share would only count them together.
    project = zlib.crc32(str(path).encode()) or 1
    try:
        _set_project(path, project)
        _set_limit(device, kind, project, size_bytes)
    except OSError as error:
        return str(error)
    return ""


def _file_system(path: Path) -> tuple[str, str, list[str]]:
    """Device, type and options of the file system that a path is on."""
    status = os.stat(path).st_dev
    number = f"{os.major(status)}:{os.minor(status)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == number:
            kind, device, options = fields[fields.index("-") + 1 :][:3]
            return device, kind, options.split(",")
    return "", "", []


def _set_project(path: Path, project: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        held = bytearray(_ATTRIBUTES.size)
        fcntl.ioctl(descriptor, _GET, held)
        flags, extent, extents, _, cow = _ATTRIBUTES.unpack(held)
        fcntl.ioctl(descriptor, _SET, _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, project, cow))
    finally:
        os.close(descriptor)


def _set_limit(device: str, kind: str, project: int, size_bytes: int) -> None:
    if kind == "xfs":
        # struct fs_disk_quota: version, kind of quota, which fields count, who, hard and soft limit in 512 bytes.
        limits = struct.pack("=bbHIQQ88x", 1, 2, _XFS_BLOCK_LIMITS, project, size_bytes // 512, size_bytes // 512)
        command = _XFS_SET_LIMITS
    else:
        # struct if_dqblk: hard and soft limit in kB, and which fields count.
        limits = struct.pack(
            "=QQQQQQQQI4x", size_bytes // 1024, size_bytes // 1024, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS_VALID
        )
        command = _SET_LIMITS
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.quotactl(command << 8 | _PROJECT_QUOTA, device.encode(), project, limits) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"limiting project {project}: {os.strerror(number)}")
