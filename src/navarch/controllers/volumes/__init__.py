"""Volumes: claims are bound to volumes (`binder`), nothing goes while it is in use (`protection`), and pods that bring
the template of a claim get it (`ephemeral`)."""

from navarch.controllers.volumes.binder import VolumeBinder
from navarch.controllers.volumes.ephemeral import EphemeralVolumeController
from navarch.controllers.volumes.protection import (
    AttributesClassProtectionController,
    ClaimProtectionController,
    VolumeProtectionController,
)

__all__ = [
    "AttributesClassProtectionController",
    "ClaimProtectionController",
    "EphemeralVolumeController",
    "VolumeBinder",
    "VolumeProtectionController",
]
