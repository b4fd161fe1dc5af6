"""Mounting and letting go, by system calls: what volumes need of the kernel.

Nothing here waits for anybody, but a file system may make the caller wait; so it is called in threads.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Final

from navarch.node.volumes.base import VolumeError

_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2


def mount(kind: str, place: Path, options: str = "") -> None:
    """Mount a file system that has no source (`tmpfs`, `hugetlbfs`).  Raises VolumeError."""
    _mount(kind, kind, place, 0, options, what=kind)


def bind(source: str, place: Path, *, what: str) -> None:
    """Show a file or directory at another place as well.  Raises VolumeError."""
    _mount(source, None, place, _MS_BIND, None, what=what)


def _mount(source: str, kind: str | None, place: Path, flags: int, options: str | None, *, what: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [None if text is None else text.encode() for text in (kind, options)]
    if libc.mount(source.encode(), str(place).encode(), encoded[0], flags, encoded[1]) != 0:
        raise VolumeError(f"mounting {what} failed: {os.strerror(ctypes.get_errno())}")


def detach(place: Path) -> bool:
    """Take away what is mounted at a place; who uses it keeps it. Returns whether it went."""
    return bool(ctypes.CDLL(None, use_errno=True).umount2(str(place).encode(), _MNT_DETACH) == 0)


def is_mount_point(place: Path) -> bool:
    """Whether something is mounted right there, be it a file, or a directory from the same file system."""
    try:
        text = str(place.parent.resolve() / place.name)
    except OSError:
        return False
    return any(_unescaped(line.split()[4]) == text for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _unescaped(raw: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), raw)


def mounted_below(directory: Path) -> bool:
    """Whether anything is still mounted inside a directory."""
    prefix = f"{directory.resolve()}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4].startswith(prefix) for line in lines)
