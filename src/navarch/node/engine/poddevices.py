"""`PodDevices`: the devices of one pod: what plugins say of those that its containers ask for, and its claims, which
drivers prepare beside its worker's turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.devices.manager import AllocationRefused
from navarch.node.dra.claims import DeviceError, has_claims
from navarch.node.engine import retries
from navarch.node.engine.podstate import PodState

log = logging.getLogger(__name__)


class PodDevices:
    """Owned by a PodWorker."""

    def __init__(self, worker: PodState) -> None:
        self._worker = worker
        self._preparing: asyncio.Task[None] | None = None

    async def are_granted(self) -> bool:
        """Whether the pod's plugins have said what its containers need; one that will not ends the pod."""
        worker = self._worker
        try:
            await worker.parts.devices.prepare(worker.pod)
        except AllocationRefused as error:
            worker.event("Warning", error.reason, error.told)
            worker.fail(error.reason, f"Pod was rejected: {error.told}")
            return False
        return True

    def prepare(self) -> bool:
        """Whether drivers have prepared what the pod claims; that is done beside the turns."""
        worker = self._worker
        if not has_claims(worker.pod):
            return True
        if self._preparing is None:
            self._preparing = asyncio.create_task(
                worker.parts.device_claims.prepare(worker.pod), name=f"claims of {podspec.quoted(worker.pod)}"
            )
            self._preparing.add_done_callback(lambda _: worker.wake())
        if not self._preparing.done():
            return False
        outcome, self._preparing = self._preparing, None
        try:
            outcome.result()
        except DeviceError as error:
            words = f"Failed to prepare dynamic resources: prepare dynamic resources: {error}"
            worker.event("Warning", "FailedPrepareDynamicResources", words)
            worker.wake_after(3 * retries.SOON)
            return False
        return True

    def stop(self) -> None:
        """Prepare no more."""
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None

    async def give_back(self) -> bool:
        """Whether nothing of what the pod claimed is prepared for it any more."""
        worker = self._worker
        if not has_claims(worker.pod):
            return True
        try:
            await worker.parts.device_claims.unprepare(worker.uid)
        except DeviceError as error:
            log.warning("%s: unprepare dynamic resources: %s", podspec.quoted(worker.pod), error)
            return False
        return True

    def statuses(self, container: Obj) -> Sequence[Obj]:
        """What the pod's status says of a container's devices."""
        worker, parts = self._worker, self._worker.parts
        if not parts.config.features.on("ResourceHealthStatus"):
            return ()
        of_claims = parts.device_claims.statuses(worker.pod, container)
        return [*parts.devices.statuses(worker.pod, container), *of_claims]
