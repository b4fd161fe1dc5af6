"""Pressure: whether the node runs short of memory, disk or process ids. Read from the kernel at most every few
seconds."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node.config import KubeletConfig
from navarch.world import Clock

# A condition stays for a while after its cause has gone, so that the scheduler does not see it flutter.
_HOLD: Final = timedelta(minutes=5)
_PID_PERCENT: Final = 95


class Pressure:
    """What the conditions MemoryPressure, DiskPressure and PIDPressure say, and eviction acts on."""

    def __init__(self, config: KubeletConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._last_seen: dict[str, datetime] = {}

    def memory_available(self) -> int:
        """Bytes of memory that could be used without swapping."""
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return 0

    def disk_available_percent(self) -> int:
        """How much of the node's file system is free, in percent."""
        disk = os.statvfs(self._config.data if self._config.data.exists() else "/")
        return disk.f_bavail * 100 // max(disk.f_blocks, 1)

    def _pids_used_percent(self) -> int:
        try:
            running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
            limit = int(Path("/proc/sys/kernel/pid_max").read_text())
        except (OSError, ValueError):
            return 0
        return running * 100 // max(limit, 1)

    def memory_short(self) -> bool:
        return self.memory_available() < self._config.eviction_memory_available

    def disk_short(self) -> bool:
        return self.disk_available_percent() < self._config.eviction_nodefs_available_percent

    def conditions(self) -> list[Obj]:
        """The three conditions, without times."""
        return [
            self._condition("MemoryPressure", self.memory_short(), "InsufficientMemory", "SufficientMemory", "memory"),
            self._condition("DiskPressure", self.disk_short(), "DiskPressure", "NoDiskPressure", "disk"),
            self._condition(
                "PIDPressure", self._pids_used_percent() > _PID_PERCENT, "InsufficientPID", "SufficientPID", "PID"
            ),
        ]

    def _condition(self, kind: str, short: bool, bad: str, good: str, what: str) -> Obj:
        now = self._clock.now()
        if short:
            self._last_seen[kind] = now
        seen = self._last_seen.get(kind)
        if seen is not None and now - seen < _HOLD:
            words = f"kubelet has insufficient {what} available" if what != "disk" else "kubelet has disk pressure"
            return {"type": kind, "status": "True", "reason": f"KubeletHas{bad}", "message": words}
        words = f"kubelet has sufficient {what} available" if what != "disk" else "kubelet has no disk pressure"
        return {"type": kind, "status": "False", "reason": f"KubeletHas{good}", "message": words}
