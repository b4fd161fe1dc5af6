"""image: the files of a container image, read-only. The image is pulled as those of containers are.

CRI can mount images itself only since containerd 2.1; a view of the image's snapshot works with all versions.
"""

# ruff: noqa: ASYNC240 - the files are local and small: a thread would cost more than it saves.

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path
from typing import Final

from navarch.api.meta import Obj
from navarch.node.containerd import pick_snapshotter
from navarch.node.images.archives import mount_image
from navarch.node.volumes.base import VolumeContext, VolumeError

_MNT_DETACH: Final = 2


class ImageVolume:
    """The view goes with the mount: containerd drops it once its lease has run out."""

    refreshes = False

    def __init__(self, socket: Path, data: Path) -> None:
        self._socket = socket
        self._data = data
        self._snapshotter = ""

    async def set_up(self, context: VolumeContext, volume: Obj, place: Path) -> Path:
        if os.path.ismount(place):
            return place
        if context.image is None:
            raise VolumeError("images cannot be pulled for volumes here")
        image = await context.image(volume)
        place.mkdir(parents=True, exist_ok=True)
        self._snapshotter = self._snapshotter or pick_snapshotter(self._data)
        try:
            await mount_image(self._socket, image.id, place, snapshotter=self._snapshotter)
        except RuntimeError as error:
            raise VolumeError(str(error)) from error
        return place

    def tear_down(self, place: Path) -> None:
        if os.path.ismount(place):
            ctypes.CDLL(None, use_errno=True).umount2(str(place).encode(), _MNT_DETACH)
        shutil.rmtree(place, ignore_errors=True)
