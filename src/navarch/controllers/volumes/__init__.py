"""Volumes: claims are bound to volumes (`binder`), these are attached to nodes (`attach`), nothing goes while it is in
use (`protection`), and pods that bring the template of a claim get it (`ephemeral`)."""

from navarch.controllers.volumes.attach import AttachDetachController
from navarch.controllers.volumes.binder import VolumeBinder
from navarch.controllers.volumes.ephemeral import EphemeralVolumeController
from navarch.controllers.volumes.expand import VolumeExpandController
from navarch.controllers.volumes.local_path import LocalPathProvisioner
from navarch.controllers.volumes.protection import (
    AttributesClassProtectionController,
    ClaimProtectionController,
    VolumeProtectionController,
)

__all__ = [
    "AttachDetachController",
    "AttributesClassProtectionController",
    "ClaimProtectionController",
    "EphemeralVolumeController",
    "LocalPathProvisioner",
    "VolumeBinder",
    "VolumeExpandController",
    "VolumeProtectionController",
]
