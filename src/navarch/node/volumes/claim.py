"""persistentVolumeClaim: a claim that is bound to a volume which is a path of this node (`hostPath`, `local`)."""

from __future__ import annotations

from pathlib import Path

from navarch.api.meta import Obj
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from navarch.node.volumes.base import VolumeContext, VolumeError, chown_group
from navarch.node.volumes.host_path import check_host_path


class Claim:
    """The data belongs to the volume and outlives the pod."""

    refreshes = False

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        name = volume["persistentVolumeClaim"]["claimName"]
        claim = await context.source.get(PERSISTENT_VOLUME_CLAIMS, context.namespace, name)
        if claim is None:
            raise VolumeError(
                f'error getting PVC "{context.namespace}/{name}": could not find v1.PersistentVolumeClaim'
            )
        bound = claim["spec"].get("volumeName")
        if not bound or (claim.get("status") or {}).get("phase") != "Bound":
            raise VolumeError(f'PVC "{context.namespace}/{name}" is not bound')
        persistent = await context.source.get(PERSISTENT_VOLUMES, "", bound)
        if persistent is None:
            raise VolumeError(f'persistentvolume "{bound}" not found')
        spec = persistent["spec"]
        if spec.get("hostPath"):
            stated = spec["hostPath"]
            kind = stated.get("type") or "DirectoryOrCreate"
            return await context.in_thread(check_host_path, Path(stated["path"]), kind)
        if spec.get("local"):
            return await context.in_thread(
                _local, Path(spec["local"]["path"]), context.fs_group, context.regroups_always
            )
        raise VolumeError(f'no volume plugin matched for persistent volume "{bound}"')


def _local(path: Path, group: int | None, regroups_always: bool) -> Path:
    """A directory of the node, given to the pod's group where it has one."""
    if not path.exists():
        raise VolumeError(f'path "{path}" does not exist')
    if group is not None and path.is_dir() and (regroups_always or path.stat().st_gid != group):
        chown_group(path, group)
    return path
