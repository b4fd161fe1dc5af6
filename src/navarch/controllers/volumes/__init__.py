"""Volumes: claims are bound to volumes (`binder`), and neither goes while it is in use (`protection`)."""

from navarch.controllers.volumes.binder import VolumeBinder
from navarch.controllers.volumes.protection import ClaimProtectionController, VolumeProtectionController

__all__ = ["ClaimProtectionController", "VolumeBinder", "VolumeProtectionController"]
