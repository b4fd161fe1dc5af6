"""`VolumeManager`: a pod's volumes as a whole: set up before containers start, refreshed while they run, torn down
last."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.api.time import Clock
from navarch.node.config import KubeletConfig
from navarch.node.containerd import unmount_below
from navarch.node.fieldref import PodFacts
from navarch.node.references import ObjectSource
from navarch.node.volumes.base import ImageSource, VolumeContext, VolumeError, VolumePending, VolumeType
from navarch.node.volumes.claim import Claim
from navarch.node.volumes.empty_dir import EmptyDir
from navarch.node.volumes.host_path import HostPath
from navarch.node.volumes.image import ImageVolume
from navarch.node.volumes.objects import ObjectVolume

log = logging.getLogger(__name__)

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


class VolumeManager:
    """Volumes live in `<pods>/<uid>/volumes/<type>/<name>`, as Kubernetes lays them out."""

    def __init__(self, config: KubeletConfig, source: ObjectSource, clock: Clock) -> None:
        self._config = config
        self._source = source
        self._types: dict[str, VolumeType] = {
            "emptyDir": EmptyDir(),
            "hostPath": HostPath(),
            "persistentVolumeClaim": Claim(),
            "image": ImageVolume(config.runtime_socket, config.data),
            **{kind: ObjectVolume(kind, clock) for kind in ("configMap", "secret", "downwardAPI", "projected")},
        }

    async def set_up(self, pod: Obj, facts: PodFacts, image: ImageSource | None = None) -> dict[str, Path]:
        """The host path of every volume by name.  Raises VolumeError for the first that cannot be set up; called again
        it brings up to date those that are made of objects."""
        volumes = pod["spec"].get("volumes") or []
        return {volume["name"]: await self._set_up(pod, volume, facts, image) for volume in volumes}

    def refreshes(self, pod: Obj) -> bool:
        """Whether any of the pod's volumes follows objects."""
        return any(self._type_of(volume)[1].refreshes for volume in pod["spec"].get("volumes") or [])

    async def _set_up(self, pod: Obj, volume: Obj, facts: PodFacts, image: ImageSource | None) -> Path:
        kind, handler = self._type_of(volume)
        place = self._place(pod["metadata"]["uid"], kind, volume["name"])
        context = VolumeContext(pod, self._source, facts, image)
        try:
            return await handler.set_up(context, volume, place)
        except VolumePending:
            raise
        except VolumeError as error:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error
        except (StatusError, OSError) as error:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}') from error

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

    def tear_down(self, uid: str) -> None:
        """Unmount and remove everything of a pod. Idempotent; a volume's data elsewhere stays."""
        directory = self._config.pod_directory(uid)
        if not directory.exists():
            return
        unmount_below([directory])
        if _mounted_below(directory):
            # Removing would reach through the mount, to files that are not the pod's.
            log.warning("%s cannot be removed: something is still mounted there", directory)
            return
        shutil.rmtree(directory, ignore_errors=True)


def _mounted_below(directory: Path) -> bool:
    prefix = f"{directory.resolve()}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4].startswith(prefix) for line in lines)


class _Unsupported:
    """A type that this node has no way to mount."""

    refreshes = False

    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def set_up(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        raise VolumeError(f"no volume plugin matched: {self._kind} is not supported on this node")

    def tear_down(self, place: Path) -> None:
        """Nothing was set up."""
