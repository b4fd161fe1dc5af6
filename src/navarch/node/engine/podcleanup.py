"""`PodCleanup`: what one pod has on the node and needs no longer, removed: instances of its containers that have
successors; all that it holds, once it has ended; everything, once it is deleted.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path

from navarch.node import podspec
from navarch.node.engine import retries
from navarch.node.engine.observed import ObservedContainer
from navarch.node.engine.poddevices import PodDevices
from navarch.node.engine.podstate import PodState
from navarch.node.runtime.base import NotFound
from navarch.node.runtime.rotated_logs import remove_logs

log = logging.getLogger(__name__)


class PodCleanup:
    """Owned by a PodWorker."""

    def __init__(self, worker: PodState, devices: PodDevices) -> None:
        self._worker = worker
        self._devices = devices
        # An ended pod that is still an object has nothing on the node but its containers and their logs.
        self._let_go = False

    async def prune(self) -> None:
        """Keep one ended instance per container beside the newest, for its log and its state; remove older ones."""
        observed = self._worker.observed
        for name, instances in observed.containers.items():
            for old in instances[2:]:
                if not old.running:
                    await self.remove_instance(old)
                    log.debug("removed an old instance of %s in %s", name, podspec.quoted(self._worker.pod))
        for old_sandbox in observed.sandboxes[1:]:
            if not any(container.sandbox_id == old_sandbox.id for container in observed.all()):
                with contextlib.suppress(NotFound):
                    await self._remove_sandbox(old_sandbox.id)

    async def remove_instance(self, old: ObservedContainer) -> None:
        """Remove a container that has ended, with its log."""
        worker, parts = self._worker, self._worker.parts
        with contextlib.suppress(NotFound):
            await parts.runtime.remove_container(old.id)
        parts.observer.forget(old.id)
        worker.messages.pop(old.id, None)
        if old.status.log_path:
            await parts.world.in_thread(remove_logs, Path(old.status.log_path))

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        runtime = self._worker.parts.runtime
        await runtime.stop_sandbox(sandbox_id)
        await runtime.remove_sandbox(sandbox_id)

    async def let_go(self) -> None:
        """Give back what a pod holds that has ended and stays as an object."""
        worker, parts = self._worker, self._worker.parts
        if not self._let_go:
            worker.volumes = {}
            self._let_go = await self._devices.give_back() and await parts.volumes.unpublish(worker.uid)
            await parts.resources.unpublish(worker.pod)
            parts.freed()
        if not self._let_go:
            worker.wake_after(retries.AGAIN)
        elif not worker.reclaimed and not worker.was_evicted:
            worker.reclaimed = True
        elif not worker.reclaimed and podspec.is_finished(worker.pod):
            # How its containers ended is told: they go with all that they wrote, as the node was short of room.
            await self._remove_content()
            worker.reclaimed = True

    async def _remove_content(self) -> None:
        """Remove containers and sandboxes, and the pod's logs."""
        worker, parts = self._worker, self._worker.parts
        for container in worker.observed.all():
            with contextlib.suppress(NotFound):
                await parts.runtime.remove_container(container.id)
            parts.observer.forget(container.id)
        for sandbox in worker.observed.sandboxes:
            with contextlib.suppress(NotFound):
                await self._remove_sandbox(sandbox.id)
        metadata = worker.pod["metadata"]
        logs = parts.config.log_directory(metadata["namespace"], metadata["name"], worker.uid)
        await parts.world.in_thread(shutil.rmtree, logs, ignore_errors=True)

    async def clean(self) -> None:
        """Remove containers, sandboxes, volumes, logs and cgroups of a pod that is deleted."""
        worker, parts = self._worker, self._worker.parts
        if worker.cleaned:
            return
        await self._remove_content()
        await parts.resources.unpublish(worker.pod)
        if not (await self._devices.give_back() and await parts.volumes.unpublish(worker.uid)):
            # As in Kubernetes, a pod is not gone while something of its volumes is here.
            worker.wake_after(retries.AGAIN)
            return
        self._forget()
        worker.cleaned = worker.reclaimed = True
        worker.wake()

    def _forget(self) -> None:
        worker, parts = self._worker, self._worker.parts
        parts.images.forget_pod(worker.uid)
        parts.source.forget_pod(worker.pod)
        parts.backoff.forget(f"{worker.uid}/")
        parts.users.release(worker.uid)
