"""`VolumeManager`: a pod's volumes as a whole: published before containers start, refreshed while they run, taken away
last.

Each volume has its own retry: one that fails waits longer each time, as Kubernetes' mounts do, and the others are not
published again for its sake. A pod's volumes are published side by side, each by one attempt at a time that runs on
however long it takes: a disk that hangs has one thread, and delays its own volume and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.client.supervision import Delay
from navarch.node import oserrors
from navarch.node.config import KubeletConfig
from navarch.node.containerd import unmount_below
from navarch.node.fieldref import PodFacts
from navarch.node.references import ObjectSource
from navarch.node.volumes.base import ImageSource, VolumeContext, VolumeError, VolumePending, VolumeType
from navarch.node.volumes.claim import Claim
from navarch.node.volumes.csi.drivers import Drivers
from navarch.node.volumes.csi.growing import Growing
from navarch.node.volumes.csi.inline import InlineCSI
from navarch.node.volumes.csi.volumes import CSIVolumes
from navarch.node.volumes.empty_dir import EmptyDir
from navarch.node.volumes.host_path import HostPath
from navarch.node.volumes.image import ImageVolume
from navarch.node.volumes.measuring import ClaimMeasuring
from navarch.node.volumes.mounts import mounted_below
from navarch.node.volumes.nfs import NFS
from navarch.node.volumes.objects import ObjectVolume
from navarch.node.volumes.pod_certificate import PodCertificates
from navarch.world import World

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_DIRECTORIES: Final = {
    "emptyDir": "kubernetes.io~empty-dir",
    "configMap": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "downwardAPI": "kubernetes.io~downward-api",
    "projected": "kubernetes.io~projected",
    "hostPath": "kubernetes.io~host-path",
    "persistentVolumeClaim": "kubernetes.io~pvc",
    "image": "kubernetes.io~image",
}
# Threads at once; one that takes longer than others should wait for it no longer counts.
_THREADS: Final = 16
_LENT_S: Final = 5.0
# How long Kubernetes waits for a pod's volumes before it tells that they are not there.
_PATIENCE_S: Final = 123.0
# How long taking away waits for an attempt that is about to end.
_ENDING_S: Final = 1.0
# As Kubernetes waits between attempts to mount: from half a second to two minutes.
_FIRST_DELAY_S: Final = 0.5
_LAST_DELAY_S: Final = 122.0


@dataclass(slots=True)
class _Publication:
    """How far one volume of a pod is: where it is published, or what went wrong and when it is tried again."""

    delay: Delay = field(default_factory=lambda: Delay(_FIRST_DELAY_S, _LAST_DELAY_S))
    path: Path | None = None
    error: VolumeError | None = None
    again_s: float = 0.0
    attempt: asyncio.Task[None] | None = None
    began_s: float = 0.0

    @property
    def hangs(self) -> bool:
        return self.attempt is not None and not self.attempt.done()


class _Slot:
    """One of the threads that may run at once; given back once, by whoever is first."""

    def __init__(self, threads: asyncio.Semaphore) -> None:
        self._threads: asyncio.Semaphore | None = threads

    def give_back(self) -> None:
        if self._threads is not None:
            self._threads.release()
        self._threads = None


class VolumeManager:
    """Volumes live in `<pods>/<uid>/volumes/<type>/<name>`, as Kubernetes lays them out."""

    def __init__(
        self,
        config: KubeletConfig,
        source: ObjectSource,
        world: World,
        drivers: Drivers | None = None,
        growing: Growing | None = None,
        certificates: PodCertificates | None = None,
    ) -> None:
        self._config = config
        self._source = source
        self._world = world
        self._threads = asyncio.Semaphore(_THREADS)
        self._publications: dict[str, dict[str, _Publication]] = {}
        self.csi = None
        if drivers is not None and growing is not None:
            self.csi = CSIVolumes(drivers, growing, config.node_name, config.data, config.pods, self._in_thread)
        self.measuring = ClaimMeasuring(drivers, self._in_thread, world)
        self._claims = Claim(config.data, self.csi, self.measuring)
        self._certificates = certificates
        self._types: dict[str, VolumeType] = {
            "emptyDir": EmptyDir(),
            "hostPath": HostPath(config.data),
            "persistentVolumeClaim": self._claims,
            "ephemeral": self._claims,
            "csi": InlineCSI(self.csi),
            "nfs": NFS(),
            "image": ImageVolume(config.runtime_socket, config.data),
            "projected": ObjectVolume("projected", world, certificates),
            **{kind: ObjectVolume(kind, world) for kind in ("configMap", "secret", "downwardAPI")},
        }

    async def publish(self, pod: Obj, facts: PodFacts, image: ImageSource | None = None) -> dict[str, Path]:
        """The host path of every volume by name. Called again it brings up to date those that are made of objects.

        Raises VolumeError for the first that cannot be published, once all that can be are or two minutes have passed;
        its `retry_s` says when the soonest attempt is due. Cancelling it ends the wait alone."""
        context = VolumeContext(pod, self._source, facts, self._in_thread, image)
        known = self._publications.setdefault(pod["metadata"]["uid"], {})
        volumes = pod["spec"].get("volumes") or []
        attempts = [
            attempt
            for volume in volumes
            if (attempt := self._attempt(context, volume, known.setdefault(volume["name"], _Publication())))
        ]
        if attempts:
            done, _ = await asyncio.wait(attempts, timeout=_PATIENCE_S)
            for attempt in attempts:
                if attempt in done and not attempt.cancelled():
                    attempt.result()
        errors = [error for volume in volumes if (error := _error_of(volume, known[volume["name"]])) is not None]
        if not errors:
            return {name: publication.path for name, publication in known.items() if publication.path is not None}
        first = next((error for error in errors if not isinstance(error, VolumePending)), errors[0])
        first.retry_s = min(error.retry_s for error in errors)
        raise first

    def refreshes(self, pod: Obj) -> bool:
        """Whether any of the pod's volumes follows objects."""
        return any(self._type_of(volume)[1].refreshes for volume in pod["spec"].get("volumes") or [])

    def _attempt(self, context: VolumeContext, volume: Obj, publication: _Publication) -> asyncio.Task[None] | None:
        """The attempt at a volume that is running, or a new one; None where none is due."""
        if publication.hangs:
            return publication.attempt
        _, handler = self._type_of(volume)
        if publication.path is not None and publication.error is None and not handler.refreshes:
            return None
        now_s = self._world.monotonic()
        if publication.error is not None and now_s < publication.again_s:
            publication.error.retry_s = publication.again_s - now_s
            return None
        publication.began_s = now_s
        publication.attempt = asyncio.create_task(
            self._publish(context, volume, publication), name=f"volume {volume['name']}"
        )
        return publication.attempt

    async def _publish(self, context: VolumeContext, volume: Obj, publication: _Publication) -> None:
        kind, handler = self._type_of(volume)
        try:
            place = self._place(context.pod["metadata"]["uid"], kind, volume["name"])
            publication.path = await handler.publish(context, volume, place)
        except VolumePending as error:
            publication.error, publication.again_s = error, self._world.monotonic() + error.wait_s
            return
        except (VolumeError, StatusError, OSError) as error:
            failed = _told(error, volume)
            failed.retry_s = publication.delay.failed()
            publication.error, publication.again_s = failed, self._world.monotonic() + failed.retry_s
            return
        publication.error = None
        publication.delay.succeeded()

    def _type_of(self, volume: Obj) -> tuple[str, VolumeType]:
        for kind, handler in self._types.items():
            if kind in volume:
                return kind, handler
        stated = [kind for kind in volume if kind != "name"]
        if not stated:
            return "emptyDir", self._types["emptyDir"]
        return stated[0], _Unsupported(stated[0])

    def _place(self, uid: str, kind: str, name: str) -> Path:
        return self._config.pod_directory(uid) / "volumes" / _DIRECTORIES.get(kind, f"kubernetes.io~{kind}") / name

    async def _in_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        await self._threads.acquire()
        slot = _Slot(self._threads)
        lent = asyncio.get_running_loop().call_later(_LENT_S, slot.give_back)
        try:
            return await self._world.in_own_thread(function, *args, **kwargs)
        finally:
            lent.cancel()
            slot.give_back()

    async def unpublish(self, uid: str) -> bool:
        """Unmount and remove everything of a pod; a volume's data elsewhere stays. Returns whether nothing is left: the
        caller comes again where something is. Idempotent."""
        running = [publication for publication in self._publications.get(uid, {}).values() if publication.hangs]
        if running:
            await asyncio.wait([one.attempt for one in running if one.attempt is not None], timeout=_ENDING_S)
            soonest_s = self._world.monotonic() - _PATIENCE_S
            if any(one.hangs and one.began_s > soonest_s for one in running):
                # It might still write where everything is to be taken away.
                return False
        self.abandon(uid)
        if self.csi is not None:
            try:
                await self.csi.unpublish(uid)
            except (VolumeError, OSError) as error:
                log.warning("volumes of pod %s: UnmountVolume.TearDown failed: %s", uid, error)
                return False
        self._claims.forget(self._config.pod_directory(uid))
        return await self._in_thread(_remove, self._config.pod_directory(uid))

    async def tidy(self) -> None:
        """Let go of what pods left that went while no kubelet ran."""
        if self.csi is not None:
            await self.csi.tidy()

    def abandon(self, uid: str) -> None:
        """Nobody waits for the pod's volumes any more."""
        if self._certificates is not None:
            self._certificates.forget(uid)
        for publication in self._publications.pop(uid, {}).values():
            if publication.attempt is not None:
                publication.attempt.cancel()


def _told(error: Exception, volume: Obj) -> VolumeError:
    """An error as events tell of it: which operation failed for which volume."""
    operation, name = "MountVolume.SetUp", ""
    if isinstance(error, VolumeError):
        operation, name = error.operation, error.volume
    why = oserrors.words(error)
    return VolumeError(f'{operation} failed for volume "{name or volume["name"]}" : {why}')


def _error_of(volume: Obj, publication: _Publication) -> VolumeError | None:
    if publication.hangs:
        words = "timed out waiting for the condition"
        return VolumeError(f"Unable to attach or mount volumes: unmounted volumes=[{volume['name']}]: {words}")
    return publication.error


def _remove(directory: Path) -> bool:
    if not directory.exists():
        return True
    unmount_below([directory])
    if mounted_below(directory):
        # Removing would reach through the mount, to files that are not the pod's.
        log.warning("%s cannot be removed yet: something is still mounted there", directory)
        return False
    failures: list[str] = []
    shutil.rmtree(directory, onerror=lambda _, path, error: failures.append(f"{path}: {error[1]}"))
    if directory.exists():
        log.warning("%s cannot be removed yet: %s", directory, "; ".join(failures[:3]))
        return False
    return True


class _Unsupported:
    """A type that this node has no way to mount."""

    refreshes = False

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        raise VolumeError(f"no volume plugin matched: {self._kind} is not supported on this node")
