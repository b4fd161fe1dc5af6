"""Volumes: claims are bound to volumes (`binder`), neither goes while it is in use (`protection`), and pods that bring
the template of a claim get it (`ephemeral`)."""

from navarch.controllers.volumes.binder import VolumeBinder
from navarch.controllers.volumes.ephemeral import EphemeralVolumeController
from navarch.controllers.volumes.protection import ClaimProtectionController, VolumeProtectionController

__all__ = ["ClaimProtectionController", "EphemeralVolumeController", "VolumeBinder", "VolumeProtectionController"]
