"""persistentVolumeClaim: a claim that is bound to a volume of any kind that this node can set up. A generic ephemeral
volume is a claim that is the pod's own.

The data belongs to the volume and outlives the pod.
"""

from __future__ import annotations

import stat
from pathlib import Path

from navarch.api.meta import Obj, controller_of, is_deleting, name_of, uid_of
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from navarch.kinds.storage import local_path
from navarch.node import podspec
from navarch.node.volumes.base import VolumeContext, VolumeError, chown_group, on_this_node
from navarch.node.volumes.csi.volumes import CSIVolumes
from navarch.node.volumes.host_path import check_host_path
from navarch.node.volumes.local_path import have_directory
from navarch.node.volumes.measuring import ClaimMeasuring
from navarch.node.volumes.nfs import mount_export


class Claim:
    """Looked at again while the pod runs: a driver may want to publish anew. `csi` is None where no driver can be."""

    refreshes = True

    def __init__(self, root: Path, csi: CSIVolumes | None, measuring: ClaimMeasuring) -> None:
        self._root = root
        self._csi = csi
        self._measuring = measuring
        # Directories of the node are prepared for a pod once.
        self._local: dict[Path, Path] = {}

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        known = self._local.get(place)
        if known is not None:
            return known
        claimed, name = _claimed(context.pod, volume)
        claim = await self._bound(context, claimed, name)
        persistent = await context.source.get(PERSISTENT_VOLUMES, "", claim["spec"]["volumeName"])
        if persistent is None:
            raise VolumeError(f'persistentvolume "{claim["spec"]["volumeName"]}" not found')
        _check_mode(context.pod, volume["name"], persistent)
        try:
            path = await self._persistent(context, claimed, claim, persistent, place)
        except VolumeError as error:
            error.volume = error.volume or name_of(persistent)
            raise
        self._measuring.mounted(uid_of(context.pod), volume["name"], name, persistent, path)
        return path

    async def _bound(self, context: VolumeContext, claimed: Obj, name: str) -> Obj:
        where = f"{context.namespace}/{name}"
        claim = await context.source.get(PERSISTENT_VOLUME_CLAIMS, context.namespace, name)
        if claim is None:
            raise VolumeError(f'error getting PVC "{where}": could not find v1.PersistentVolumeClaim')
        if claimed.get("ephemeral"):
            owner = controller_of(claim)
            if owner is None or owner.get("uid") != uid_of(context.pod):
                pod = f"{context.namespace}/{name_of(context.pod)}"
                raise VolumeError(f"PVC {where} was not created for pod {pod} (pod is not owner)")
        if is_deleting(claim) and not (context.pod.get("status") or {}).get("startTime"):
            raise VolumeError(f'PVC "{where}" is being deleted')
        if not claim["spec"].get("volumeName") or (claim.get("status") or {}).get("phase") != "Bound":
            raise VolumeError(f'PVC "{where}" is not bound')
        return claim

    async def _persistent(self, context: VolumeContext, claimed: Obj, claim: Obj, persistent: Obj, place: Path) -> Path:
        spec = persistent["spec"]
        if spec.get("csi") and self._csi is not None:
            return await self._csi.publish_persistent(context, claimed, claim, persistent)
        if spec.get("hostPath"):
            stated = spec["hostPath"]
            path = on_this_node(Path(stated["path"]), self._root)
            path = await context.in_thread(check_host_path, path, stated.get("type") or "DirectoryOrCreate")
        elif spec.get("nfs"):
            options, read_only = spec.get("mountOptions") or (), bool(claimed.get("readOnly"))
            read_only = read_only or bool(spec["nfs"].get("readOnly"))
            path = await context.in_thread(mount_export, spec["nfs"], options, place, read_only=read_only)
        elif spec.get("local"):
            path = on_this_node(Path(spec["local"]["path"]), self._root)
            if local_path.is_ours(persistent):
                await context.in_thread(have_directory, path, persistent)
            block = spec.get("volumeMode") == "Block"
            group = None if block or claimed.get("readOnly") else context.fs_group
            path = await context.in_thread(_local, path, group, context.regroups_always, block)
        else:
            raise VolumeError(f'no volume plugin matched for persistent volume "{name_of(persistent)}"')
        self._local[place] = path
        return path

    def forget(self, pod_directory: Path) -> None:
        """The pod has gone."""
        self._measuring.forget(pod_directory.name)
        for place in [place for place in self._local if place.is_relative_to(pod_directory)]:
            del self._local[place]


def _claimed(pod: Obj, volume: Obj) -> tuple[Obj, str]:
    """How the pod asks for the claim, and the claim's name."""
    if volume.get("ephemeral"):
        return {"ephemeral": True}, f"{name_of(pod)}-{volume['name']}"
    claimed = volume["persistentVolumeClaim"]
    return claimed, claimed["claimName"]


def _check_mode(pod: Obj, name: str, persistent: Obj) -> None:
    """A device is not mounted, and a file system is no device."""
    mode = persistent["spec"].get("volumeMode") or "Filesystem"
    field = "volumeDevices" if mode == "Filesystem" else "volumeMounts"
    for container in podspec.all_containers(pod):
        if any(one["name"] == name for one in container.get(field) or ()):
            raise VolumeError(f"volume {name} has volumeMode {mode}, but is specified in {field}")


def _local(path: Path, group: int | None, regroups_always: bool, block: bool) -> Path:
    """A directory of the node, given to the pod's group where it has one; or a device."""
    if not path.exists():
        operation = "MapVolume.MapBlockVolume" if block else "MountVolume.NewMounter initialization"
        raise VolumeError(f'path "{path}" does not exist', operation=operation)
    if block:
        if not stat.S_ISBLK(path.stat().st_mode):
            raise VolumeError(f'path "{path}" is not a block device', operation="MapVolume.MapBlockVolume")
        return path.resolve()
    if group is not None and path.is_dir() and (regroups_always or path.stat().st_gid != group):
        chown_group(path, group)
    return path
