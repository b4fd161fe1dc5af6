"""Rotation of containers' logs: one that has grown too long is moved to `0.log.<time>` and its container writes a new
one; older ones are compressed (`0.log.<time>.gz`), the oldest removed.

The newest of the rotated ones stays as it is, for those who still read it. A step that fails, as on a full disk, leaves
nothing half done behind: the log goes on where it was, and is looked at again the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from navarch.node.engine.attempts import attempt
from navarch.node.engine.observed import ObservedContainer
from navarch.node.engine.parts import Parts
from navarch.node.engine.pods import Pods
from navarch.node.runtime.rotated_logs import make_way, size_of


class LogRotator:
    """Looks after the logs of the containers that run, so many at once as configured."""

    def __init__(self, parts: Parts, pods: Pods) -> None:
        self._parts = parts
        self._pods = pods

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._parts.config.container_log_check_s)
            await self.look()

    async def look(self) -> None:
        """Rotate what has grown too long."""
        waiting = [one for worker in self._pods for one in worker.observed.all() if one.running and one.status.log_path]
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(self._parts.config.container_log_workers, len(waiting))):
                tasks.create_task(self._work(waiting), name="log rotation")

    async def _work(self, waiting: list[ObservedContainer]) -> None:
        while waiting:
            container = waiting.pop()
            path = container.status.log_path
            await attempt(f"rotating {path}", self._look_at(container.id, Path(path)), self._parts.failures)

    async def _look_at(self, container_id: str, path: Path) -> None:
        config, in_thread = self._parts.config, self._parts.world.in_thread
        size = await in_thread(size_of, path)
        if size is None:
            # Somebody took it away; what the container says meanwhile goes nowhere.
            await self._parts.runtime.reopen_log(container_id)
            return
        if size < config.container_log_max_bytes:
            return
        # One more is about to come, and the new log.
        await in_thread(make_way, path, config.container_log_max_files - 2)
        moved = path.with_name(f"{path.name}.{self._parts.clock.now().astimezone():%Y%m%d-%H%M%S}")
        await in_thread(path.rename, moved)
        try:
            await self._parts.runtime.reopen_log(container_id)
        except BaseException:
            with contextlib.suppress(OSError):
                moved.rename(path)
            raise
