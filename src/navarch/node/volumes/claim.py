"""persistentVolumeClaim: a claim that is bound to a volume which is a path of this node (`hostPath`, `local`)."""

# ruff: noqa: ASYNC240 - the files are local and small: a thread would cost more than it saves.

from __future__ import annotations

from pathlib import Path

from navarch.api.meta import Obj
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from navarch.node.volumes.base import VolumeContext, VolumeError
from navarch.node.volumes.host_path import check_host_path


class Claim:
    """The data belongs to the volume and outlives the pod."""

    refreshes = False

    async def set_up(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
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
            return check_host_path(Path(spec["hostPath"]["path"]), spec["hostPath"].get("type") or "DirectoryOrCreate")
        if spec.get("local"):
            path = Path(spec["local"]["path"])
            if not path.exists():
                raise VolumeError(f'path "{path}" does not exist')
            return path
        raise VolumeError(f'no volume plugin matched for persistent volume "{bound}"')

    def tear_down(self, place: Path) -> None:
        """The volume keeps its data."""
