"""What nobody needs any more: sandboxes and directories of pods that no longer exist, and unused images."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.engine.attempts import attempt
from navarch.node.engine.node_status import NodeReporter
from navarch.node.engine.parts import Parts
from navarch.node.engine.pods import Pods
from navarch.node.runtime.base import (
    GRACE_PERIOD,
    POD_NAME,
    POD_NAMESPACE,
    POD_UID,
    Image,
    NotFound,
    RuntimeFailure,
    Sandbox,
)
from navarch.node.runtime.rotated_logs import remove_logs

log = logging.getLogger(__name__)

_PERIOD_S: Final = 10.0
# In periods: what the runtime has to list for us, and what it has to look through.
_SANDBOXES_EVERY: Final = 6
_IMAGES_EVERY: Final = 30


class Sweeper:
    """A slow loop. `known` answers the uids of all pods that the node is to have, as its sources say."""

    def __init__(self, parts: Parts, pods: Pods, node: NodeReporter, known: Callable[[], set[str]]) -> None:
        self._parts = parts
        self._pods = pods
        self._node = node
        self._known = known
        self._first_seen: dict[str, datetime] = {}
        self._began = parts.clock.now()

    async def run(self) -> None:
        """Sweep for ever. To be started once all sources have told of their pods."""
        turn = 0
        while True:
            rarely = turn % _SANDBOXES_EVERY == 0
            if rarely:
                await self._step(self.adopt_orphans())
            if turn:
                await self._step(self.remove_stale_volumes())
                if rarely:
                    await self._step(self.remove_stale_directories())
                    await self._step(self._parts.runtime.collect())
                if turn % _IMAGES_EVERY == 0:
                    await self._step(self.free_images())
            turn += 1
            await asyncio.sleep(_PERIOD_S)

    async def _step(self, step: Awaitable[None]) -> None:
        await attempt("sweeping", step, self._parts.failures)

    async def adopt_orphans(self) -> None:
        """Stop and remove sandboxes whose pod neither the API server nor a worker knows."""
        for sandbox in await self._parts.runtime.list_sandboxes():
            uid = sandbox.labels.get(POD_UID, "")
            if not uid or self._lives(uid):
                continue
            name = f"{sandbox.labels.get(POD_NAMESPACE)}/{sandbox.labels.get(POD_NAME)}"
            log.info("removing %s (%s), which no longer exists", name, uid)
            await self._remove(sandbox)

    def _lives(self, uid: str) -> bool:
        """Asked after something was found of a pod, and anew for each: the pod may have come while others were dealt
        with."""
        return uid in self._pods.uids() or uid in self._known()

    async def _remove(self, sandbox: Sandbox) -> None:
        runtime = self._parts.runtime
        grace_s = min(int(sandbox.annotations.get(GRACE_PERIOD) or 30), 30)
        labels = {POD_UID: sandbox.labels[POD_UID]}
        async with asyncio.TaskGroup() as tasks:
            for container in await runtime.list_containers(labels):
                tasks.create_task(self._stop(container.id, grace_s))
        with contextlib.suppress(NotFound):
            await runtime.stop_sandbox(sandbox.id)
            await runtime.remove_sandbox(sandbox.id)

    async def _stop(self, container_id: str, grace_s: int) -> None:
        with contextlib.suppress(NotFound):
            await self._parts.runtime.stop_container(container_id, grace_s)

    async def remove_stale_volumes(self) -> None:
        """Unmount and remove what pods that have gone had mounted."""
        for place in await self._parts.world.in_thread(_children, self._parts.config.pods):
            if not self._lives(place.name):
                await self._parts.volumes.unpublish(place.name)

    async def remove_stale_directories(self) -> None:
        """Remove the logs and cgroups of pods that have gone, and unstage volumes that nobody uses."""
        in_thread = self._parts.world.in_thread
        await self._parts.volumes.tidy()
        for place in await in_thread(_children, self._parts.config.logs):
            if not self._lives(place.name.rpartition("_")[2]):
                await in_thread(shutil.rmtree, place, ignore_errors=True)
        await self._parts.resources.remove_stale(self._lives)

    async def remove_dead_containers(self) -> None:
        """Remove the instances of containers that have ended and have a successor, and those of pods that have ended,
        with their logs."""
        for worker in self._pods:
            kept = 0 if podspec.is_finished(worker.pod) else 1
            for instances in list(worker.observed.containers.values()):
                for old in instances[kept:]:
                    if not old.exited:
                        continue
                    with contextlib.suppress(NotFound):
                        await self._parts.runtime.remove_container(old.id)
                    self._parts.observer.forget(old.id)
                    if old.status.log_path:
                        await self._parts.world.in_thread(remove_logs, Path(old.status.log_path))
                    worker.wake()

    async def free_images(self) -> None:
        """Remove images that nobody has used for too long, and those unused for longest while the disk is fuller than
        it may be."""
        parts = self._parts
        await self._remove_old_images()
        await parts.images.keep_records_of([image.id for image in await parts.runtime.list_images()])
        mountpoint = (await parts.runtime.image_filesystem()).mountpoint
        disk = await parts.world.in_thread(os.statvfs, mountpoint)
        used_percent = 100 - disk.f_bavail * 100 // max(disk.f_blocks, 1)
        if used_percent < parts.config.images.high_percent:
            return
        goal = (used_percent - parts.config.images.low_percent) * disk.f_blocks * disk.f_frsize // 100
        freed = await self.remove_unused_images(goal)
        if freed < goal:
            message = (
                f"Failed to garbage collect required amount of images. Attempted to free {goal} bytes, "
                f"but only found {freed} bytes eligible to free."
            )
            self._node.event("Warning", "FreeDiskSpaceFailed", message)

    async def _remove_old_images(self) -> None:
        most = self._parts.config.images.max_age_s
        now = self._parts.clock.now()
        # Until the kubelet has watched for that long, it cannot know.
        if not most or now - self._began < timedelta(seconds=most):
            return
        for used, image in await self._unused_images():
            if now - used > timedelta(seconds=most):
                await self._parts.runtime.remove_image(image.id)

    async def remove_unused_images(self, goal: int | None) -> int:
        """Remove unused images, those unused for longest first, until `goal` bytes are free (None: all of them).
        Returns how many bytes are."""
        freed = 0
        for _, image in await self._unused_images():
            if goal is not None and freed >= goal:
                break
            try:
                await self._parts.runtime.remove_image(image.id)
            except RuntimeFailure as error:
                log.warning("removing image %s: %s", image.id, error)
                continue
            freed += image.size_bytes
        return freed

    async def _unused_images(self) -> list[tuple[datetime, Image]]:
        """Images that may go, with when they were last used; those unused for longest first."""
        parts = self._parts
        now = parts.clock.now()
        youngest = timedelta(seconds=parts.config.images.min_age_s)
        containers = await parts.runtime.list_containers()
        in_use = {name for container in containers for name in (container.image, container.image_ref)}
        in_use |= {
            volume["image"].get("reference", "") for worker in self._pods for volume in _image_volumes(worker.pod)
        }
        candidates: list[tuple[datetime, Image]] = []
        images = await parts.runtime.list_images()
        # One that is pulled again is as young as its pull.
        self._first_seen = {image.id: self._first_seen.get(image.id, now) for image in images}
        for image in images:
            seen = self._first_seen[image.id]
            names = {image.id, *image.tags, *image.digests}
            if image.pinned or names & in_use or any("/pause:" in tag for tag in image.tags):
                continue
            if now - seen >= youngest:
                candidates.append((parts.images.last_used.get(image.id, seen), image))
        return sorted(candidates, key=lambda pair: pair[0])


def _image_volumes(pod: Obj) -> list[Obj]:
    return [volume for volume in pod["spec"].get("volumes") or () if volume.get("image")]


def _children(place: Path) -> list[Path]:
    return [child for child in place.iterdir() if child.is_dir()] if place.is_dir() else []
