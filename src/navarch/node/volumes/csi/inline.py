"""csi: a volume that the pod brings itself and that a CSI driver of the node makes; it goes with the pod."""

from __future__ import annotations

from pathlib import Path

from navarch.api.meta import Obj
from navarch.node.volumes.base import VolumeContext, VolumeError
from navarch.node.volumes.csi.volumes import CSIVolumes


class InlineCSI:
    """What was published is taken away through `CSIVolumes`, which knows from its own files."""

    # Drivers may ask for that, and get new tokens with it.
    refreshes = True

    def __init__(self, volumes: CSIVolumes | None) -> None:
        self._volumes = volumes

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        if self._volumes is None:
            raise VolumeError("kubernetes.io/csi: no CSI drivers can be used on this node")
        return await self._volumes.publish_inline(context, volume)
