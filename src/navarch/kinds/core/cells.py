"""Cells that several core kinds show: what volumes and claims have in common, the creation time as such."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.base import Column

NONE: Final = "<none>"
UNSET: Final = "<unset>"
_SHORT_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def access_modes(modes: Iterable[str]) -> str:
    """`RWO,ROX`: each mode once, in Kubernetes' order."""
    given = set(modes)
    return ",".join(short for mode, short in _SHORT_MODES.items() if mode in given)


def _created_cell(obj: Obj, now: datetime) -> str:
    return str(obj["metadata"].get("creationTimestamp") or "")


CREATED_AT: Final = Column("Created At", _created_cell, type="date", description="When the object was created")


def storage_phase(obj: Obj, now: datetime) -> str:
    """The phase of a volume or claim; one that is being deleted says so."""
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str((obj.get("status") or {}).get("phase") or "")


def _class_cell(obj: Obj, now: datetime) -> str:
    # The annotation of earlier days comes first, even where it is empty.
    annotations = obj["metadata"].get("annotations") or {}
    return str(annotations.get("volume.beta.kubernetes.io/storage-class", obj["spec"].get("storageClassName") or ""))


def _attributes_class_cell(obj: Obj, now: datetime) -> str:
    name = obj["spec"].get("volumeAttributesClassName")
    return UNSET if name is None else str(name)


def _volume_mode_cell(obj: Obj, now: datetime) -> str:
    return str(obj["spec"].get("volumeMode") or UNSET)


STORAGE_CLASSES: Final = (
    Column("StorageClass", _class_cell, description="Its class"),
    Column("VolumeAttributesClass", _attributes_class_cell, description="Its attributes class"),
)
VOLUME_MODE: Final = Column("VolumeMode", _volume_mode_cell, wide=True, description="File system or block device")
