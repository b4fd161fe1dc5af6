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
_MS_SHARED: Final = 1 << 20
_MNT_DETACH: Final = 2


def mount(kind: str, place: Path, options: str = "") -> None:
    """Mount a file system that has no source (`tmpfs`, `hugetlbfs`).  Raises VolumeError."""
    _mount(kind, kind, place, 0, options, what=kind)


def bind(source: str, place: Path, *, what: str) -> None:
    """Show a file or directory at another place as well.  Raises VolumeError."""
    _mount(source, None, place, _MS_BIND, None, what=what)


def share(folder: Path) -> str:
    """Have mounts below a folder seen across the mounts of it that containers have, and theirs here: what pods that ask
    for propagation need, CSI drivers among them. Where the machine's own mounts are shared, as systemd makes them, they
    are already; else the folder becomes a mount of its own. Answers why that cannot be done, if it cannot."""
    place = folder.resolve()
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    holding = [fields for fields in lines if place.is_relative_to(_unescaped(fields[4]))]
    # Of two at one place the later one hides the other.
    deepest = max(reversed(holding), key=lambda fields: len(_unescaped(fields[4])))
    if any(field.startswith("shared:") for field in deepest[6 : deepest.index("-")]):
        return ""
    if mounted_below(place):
        return "something is mounted below it"
    try:
        bind(str(place), place, what=str(place))
        _mount("none", None, place, _MS_SHARED, None, what=f"{place} as shared")
    except VolumeError as error:
        return str(error)
    return ""


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
