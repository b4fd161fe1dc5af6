"""image: the files of a container image, read-only. The image is pulled as those of containers are.

CRI can mount images itself only since containerd 2.1; a view of the image's snapshot works with all versions.
"""

from __future__ import annotations

import os
from pathlib import Path

from navarch.api.meta import Obj
from navarch.node.containerd import pick_snapshotter
from navarch.node.images.archives import mount_image
from navarch.node.volumes.base import VolumeContext, VolumeError


class ImageVolume:
    """The view goes with the mount: containerd drops it once its lease has run out."""

    refreshes = False

    def __init__(self, socket: Path, data: Path) -> None:
        self._socket = socket
        self._data = data
        self._snapshotter = ""

    async def publish(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        if await context.in_thread(os.path.ismount, place):
            return place
        if context.image is None:
            raise VolumeError("images cannot be pulled for volumes here")
        image = await context.image(volume)
        await context.in_thread(place.mkdir, parents=True, exist_ok=True)
        self._snapshotter = self._snapshotter or await context.in_thread(pick_snapshotter, self._data)
        try:
            await mount_image(self._socket, image.id, place, snapshotter=self._snapshotter)
        except RuntimeError as error:
            raise VolumeError(str(error)) from error
        return place
