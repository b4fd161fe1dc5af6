"""How full the volumes of claims are, and whether their drivers say that something is wrong with them.

In: what pods have mounted. Out: bytes and inodes, as the driver tells them or, of a directory or an export, as its file
system does. Devices and paths of the host are not measured, as in Kubernetes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node.plugins.sockets import PluginError
from navarch.node.volumes.base import InThread
from navarch.node.volumes.csi.driver import Health
from navarch.node.volumes.csi.drivers import Drivers
from navarch.world import Clock

log = logging.getLogger(__name__)

# How long whoever asks waits for a disk or a driver.
_PATIENCE_S: Final = 5.0
_OF_FILE_SYSTEMS: Final = ("local", "nfs")


@dataclass(slots=True)
class _Mounted:
    claim: str
    path: Path
    driver: str = ""
    handle: str = ""
    measurement: asyncio.Task[Health | None] | None = None


@dataclass(frozen=True, slots=True)
class ClaimUse:
    """Of one volume of a pod."""

    volume: str
    claim: str
    health: Health


@dataclass(slots=True)
class _OfPod:
    mounted: dict[str, _Mounted] = field(default_factory=dict)
    at: datetime | None = None
    found: list[ClaimUse] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ClaimMeasuring:
    """`drivers` is None where no driver can be."""

    def __init__(self, drivers: Drivers | None, in_thread: InThread, clock: Clock) -> None:
        self._drivers = drivers
        self._in_thread = in_thread
        self._clock = clock
        self._pods: dict[str, _OfPod] = {}

    def mounted(self, uid: str, volume: str, claim: str, persistent: Obj, path: Path) -> None:
        """A pod has a volume, at that path."""
        spec = persistent["spec"]
        if spec.get("volumeMode") == "Block":
            return
        source = spec.get("csi")
        if source:
            entry = _Mounted(claim, path, source["driver"], source["volumeHandle"])
        elif any(spec.get(kind) for kind in _OF_FILE_SYSTEMS):
            entry = _Mounted(claim, path)
        else:
            return
        self._pods.setdefault(uid, _OfPod()).mounted[volume] = entry

    def forget(self, uid: str) -> None:
        self._pods.pop(uid, None)

    async def of(self, uid: str, *, max_age_s: float) -> list[ClaimUse]:
        """What was measured of a pod's claims in the last `max_age_s`, or is now."""
        pod = self._pods.get(uid)
        if pod is None:
            return []
        async with pod.lock:
            if pod.at is None or self._clock.now() - pod.at >= timedelta(seconds=max_age_s):
                mounted = list(pod.mounted.items())
                found = await asyncio.gather(*(self._measured(one) for _, one in mounted))
                pod.found = [
                    ClaimUse(volume, one.claim, health)
                    for (volume, one), health in zip(mounted, found, strict=True)
                    if health is not None
                ]
                pod.at = self._clock.now()
            return pod.found

    async def _measured(self, mounted: _Mounted) -> Health | None:
        """None where nobody can say for now. A disk that hangs is asked by one thread, however often it is asked."""
        if mounted.measurement is None:
            mounted.measurement = asyncio.create_task(self._health(mounted), name=f"measuring {mounted.path}")
        task = mounted.measurement
        await asyncio.wait([task], timeout=_PATIENCE_S)
        if not task.done():
            return None
        mounted.measurement = None
        return task.result()

    async def _health(self, mounted: _Mounted) -> Health | None:
        if not mounted.driver:
            try:
                return Health(await self._in_thread(_of_file_system, mounted.path))
            except OSError as error:
                log.debug("measuring %s: %s", mounted.path, error)
                return None
        driver = self._drivers.get(mounted.driver) if self._drivers is not None else None
        if driver is None:
            return None
        try:
            return await driver.health(mounted.handle, mounted.path)
        except PluginError as error:
            log.debug("measuring %s: %s", mounted.path, error)
            return None


def _of_file_system(path: Path) -> Mapping[str, Mapping[str, int]]:
    told = os.statvfs(path)
    size = told.f_frsize
    return {
        "bytes": {
            "available": told.f_bavail * size,
            "total": told.f_blocks * size,
            "used": (told.f_blocks - told.f_bfree) * size,
        },
        "inodes": {"available": told.f_ffree, "total": told.f_files, "used": told.f_files - told.f_ffree},
    }
