"""What is left on the node, by signal of eviction: memory, disk and inodes of the file systems, process ids.

Read from the kernel, a few small files and a few `statvfs`; a network file system may make its readers wait, so that
this is called in a thread. `root` is where /proc and /sys are, for tests on a prepared tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from navarch.node.resources import cgroups
from navarch.node.thresholds import (
    ALLOCATABLE_MEMORY,
    CONTAINER_DISK,
    CONTAINER_INODES,
    IMAGE_DISK,
    IMAGE_INODES,
    MEMORY,
    NODE_DISK,
    NODE_INODES,
    PIDS,
)


class Left(NamedTuple):
    """How much is available, of how much."""

    available: int
    capacity: int


Signals = Mapping[str, Left]


@dataclass(slots=True)
class Places:
    """The file systems that are looked at: of the kubelet's data, and of images (which containers' layers share)."""

    node: Path
    images: Path
    cgroup_root: str
    allocatable_memory: Callable[[], int]
    root: Path = Path("/")

    @property
    def separate_images(self) -> bool:
        """Whether images are on a file system of their own."""
        try:
            return os.stat(self.images).st_dev != os.stat(self.node).st_dev
        except OSError:
            return False


def observe(places: Places) -> Signals:
    """What is left now; what cannot be told is not in it."""
    found: dict[str, Left] = {}
    memory = memory_left(places.root)
    if memory is not None:
        found[MEMORY] = memory
    used = cgroups.working_set(places.cgroup_root)
    if used is not None and (most := places.allocatable_memory()):
        found[ALLOCATABLE_MEMORY] = Left(max(most - used, 0), most)
    for place, disk, inodes in (
        (places.node, NODE_DISK, NODE_INODES),
        (places.images, IMAGE_DISK, IMAGE_INODES),
        (places.images, CONTAINER_DISK, CONTAINER_INODES),
    ):
        try:
            about = os.statvfs(place)
        except OSError:
            continue
        found[disk] = Left(about.f_bavail * about.f_frsize, about.f_blocks * about.f_frsize)
        if about.f_files:
            # Some file systems (btrfs) have as many inodes as fit.
            found[inodes] = Left(about.f_favail, about.f_files)
    processes = processes_left(places.root)
    if processes is not None:
        found[PIDS] = processes
    return found


def memory_left(root: Path = Path("/")) -> Left | None:
    """Memory that could be used without swapping; what could be dropped of the page cache is counted."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    amounts = {line.partition(":")[0]: line.split()[1] for line in lines if ":" in line}
    try:
        return Left(int(amounts["MemAvailable"]) * 1024, int(amounts["MemTotal"]) * 1024)
    except (KeyError, ValueError):
        return None


def processes_left(root: Path = Path("/")) -> Left | None:
    """Process ids (and those of threads) that are free."""
    try:
        running = int((root / "proc/loadavg").read_text().split()[3].partition("/")[2])
        limits = [int((root / "proc/sys/kernel" / name).read_text()) for name in ("pid_max", "threads-max")]
    except (OSError, ValueError, IndexError):
        return None
    most = min(limits)
    return Left(most - running, most)
