"""`VolumeManager`: a pod's volumes as a whole: published before containers start, refreshed while they run, taken away
last.

Each volume has its own retry: one that fails waits longer each time, as Kubernetes' mounts do, and the others are not
published again for its sake. Whatever touches a disk runs in a few threads, so that a disk that hangs delays volumes
and nothing else.
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
from navarch.node.config import KubeletConfig
from navarch.node.containerd import unmount_below
from navarch.node.fieldref import PodFacts
from navarch.node.references import ObjectSource
from navarch.node.volumes.base import ImageSource, VolumeContext, VolumeError, VolumePending, VolumeType
from navarch.node.volumes.claim import Claim
from navarch.node.volumes.empty_dir import EmptyDir
from navarch.node.volumes.host_path import HostPath
from navarch.node.volumes.image import ImageVolume
from navarch.node.volumes.mounts import mounted_below
from navarch.node.volumes.objects import ObjectVolume
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
# Of the few threads that a process has; the others have work that must not wait for a disk.
_THREADS: Final = 3
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


class VolumeManager:
    """Volumes live in `<pods>/<uid>/volumes/<type>/<name>`, as Kubernetes lays them out."""

    def __init__(self, config: KubeletConfig, source: ObjectSource, world: World) -> None:
        self._config = config
        self._source = source
        self._world = world
        self._threads = asyncio.Semaphore(_THREADS)
        self._publications: dict[str, dict[str, _Publication]] = {}
        self._types: dict[str, VolumeType] = {
            "emptyDir": EmptyDir(),
            "hostPath": HostPath(),
            "persistentVolumeClaim": Claim(),
            "image": ImageVolume(config.runtime_socket, config.data),
            **{kind: ObjectVolume(kind, world) for kind in ("configMap", "secret", "downwardAPI", "projected")},
        }

    async def publish(self, pod: Obj, facts: PodFacts, image: ImageSource | None = None) -> dict[str, Path]:
        """The host path of every volume by name. Called again it brings up to date those that are made of objects.

        Raises VolumeError for the first that cannot be published, once all that can be are; its `retry_s` says when
        the soonest attempt is due."""
        context = VolumeContext(pod, self._source, facts, self._in_thread, image)
        known = self._publications.setdefault(pod["metadata"]["uid"], {})
        errors = []
        for volume in pod["spec"].get("volumes") or []:
            publication = known.setdefault(volume["name"], _Publication())
            await self._publish(context, volume, publication)
            if publication.error is not None:
                errors.append(publication.error)
        if not errors:
            return {name: publication.path for name, publication in known.items() if publication.path is not None}
        first = next((error for error in errors if not isinstance(error, VolumePending)), errors[0])
        first.retry_s = min(error.retry_s for error in errors)
        raise first

    def refreshes(self, pod: Obj) -> bool:
        """Whether any of the pod's volumes follows objects."""
        return any(self._type_of(volume)[1].refreshes for volume in pod["spec"].get("volumes") or [])

    async def _publish(self, context: VolumeContext, volume: Obj, publication: _Publication) -> None:
        kind, handler = self._type_of(volume)
        if publication.path is not None and publication.error is None and not handler.refreshes:
            return
        now_s = self._world.monotonic()
        if publication.error is not None and now_s < publication.again_s:
            publication.error.retry_s = publication.again_s - now_s
            return
        try:
            place = self._place(context.pod["metadata"]["uid"], kind, volume["name"])
            publication.path = await handler.publish(context, volume, place)
        except VolumePending as error:
            publication.error = error
            return
        except (VolumeError, StatusError, OSError) as error:
            failed = VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}')
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
        async with self._threads:
            return await self._world.in_thread(function, *args, **kwargs)

    async def unpublish(self, uid: str) -> bool:
        """Unmount and remove everything of a pod; a volume's data elsewhere stays. Returns whether nothing is left: the
        caller comes again where something is. Idempotent."""
        self._publications.pop(uid, None)
        return await self._in_thread(_remove, self._config.pod_directory(uid))


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
