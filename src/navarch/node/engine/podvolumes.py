"""`PodVolumes`: the volumes of one pod, published beside its worker's turns and brought up to date now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.engine import retries
from navarch.node.engine.podstate import PodState
from navarch.node.runtime.base import Image
from navarch.node.volumes.base import VolumeError, VolumePending

_SLOW_SYNC: Final = 4
_MOMENT_S: Final = 0.1


class PodVolumes:
    """Owned by a PodWorker; `image` gets the image of a volume that is one."""

    def __init__(self, worker: PodState, image: Callable[[Obj], Awaitable[Image]]) -> None:
        self._worker = worker
        self._image = image
        self._refresh_at: datetime | None = None
        self._publishing: asyncio.Task[dict[str, Path]] | None = None
        # Whether what they show has changed since they were last published, or since that began.
        self._outdated = False
        # The last error that an event was made of.
        self._told_of: VolumeError | None = None

    def outdate(self) -> None:
        """What they are made of has changed: the next turn has them published again."""
        self._refresh_at, self._outdated = None, True

    def stop(self) -> None:
        """Publish no more."""
        if self._publishing is not None:
            self._publishing.cancel()
            self._publishing = None

    def set_up(self) -> bool:
        """Whether the volumes are there; what is missing or out of date is published beside the turns."""
        if not self._worker.pod["spec"].get("volumes") or not self._due():
            return True
        if self._publishing is None:
            self._publishing = self._publish()
        if not self._publishing.done():
            self._publishing.remove_done_callback(self._ended)
            self._publishing.add_done_callback(self._ended)
            return bool(self._worker.volumes)
        outcome, self._publishing = self._publishing, None
        return self._take(outcome)

    def begin(self) -> None:
        """Have them published while the turn looks at the runtime; it takes up what comes of that."""
        if self._worker.pod["spec"].get("volumes") and self._due() and self._publishing is None:
            self._publishing = self._publish()

    def _ended(self, _: object) -> None:
        self._worker.wake()

    async def soon(self) -> bool:
        """Whether the volumes are there in a moment, as most are: that is less than what another turn costs."""
        if self._publishing is None:
            return False
        # This turn takes up what comes of them: no other is needed for that.
        self._publishing.remove_done_callback(self._ended)
        await asyncio.wait({self._publishing}, timeout=_MOMENT_S)
        return self.set_up()

    def _publish(self) -> asyncio.Task[dict[str, Path]]:
        # What comes of it says when the next is due.
        self._refresh_at, self._outdated = None, False
        facts = self._worker.parts.facts(self._worker.ips())
        return asyncio.create_task(
            self._worker.parts.volumes.publish(self._worker.pod, facts, self._image),
            name=f"volumes of {podspec.quoted(self._worker.pod)}",
        )

    def _take(self, outcome: asyncio.Task[dict[str, Path]]) -> bool:
        try:
            self._worker.volumes = outcome.result()
        except VolumePending:
            # Its end wakes the worker, unless it came before this was looked at.
            self._worker.wake_after(retries.SOON)
            return False
        except VolumeError as error:
            if error is not self._told_of:
                # The same error again is one whose next attempt is not due yet.
                self._told_of = error
                self._worker.event("Warning", "FailedMount", str(error))
            if self._worker.volumes:
                # What was set up before still serves; it is only not up to date.
                self._refresh_at = self._worker.parts.clock.now() + retries.AGAIN
                return True
            self._worker.wake_after(timedelta(seconds=error.retry_s))
            return False
        if self._outdated:
            self._worker.wake()
            return True
        wait_s = self._worker.parts.config.sync_period_s * (1 + self._worker.parts.random.random() / 2)
        self._refresh_at = self._worker.parts.clock.now() + timedelta(seconds=wait_s)
        return True

    def _due(self) -> bool:
        return self._refresh_at is None or self._worker.parts.clock.now() >= self._refresh_at

    def schedule_refresh(self) -> None:
        """Say when the worker takes its next turn for them."""
        if self._worker.parts.volumes.refreshes(self._worker.pod) and self._refresh_at is not None:
            self._worker.wake_at(self._refresh_at)
        else:
            # Events tell of everything; this is for what they might have missed.
            self._worker.wake_after(timedelta(seconds=self._worker.parts.config.sync_period_s * _SLOW_SYNC))
