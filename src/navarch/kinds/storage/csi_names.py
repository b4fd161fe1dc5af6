"""Names that controllers and kubelets make of a volume of a CSI driver, each for itself, and that must be the same."""

from __future__ import annotations

import hashlib


def unique_name(driver: str, handle: str) -> str:
    """The volume in a node's status: among `volumesInUse` and `volumesAttached`."""
    return f"kubernetes.io/csi/{driver}^{handle}"


def attachment_name(handle: str, driver: str, node: str) -> str:
    """The VolumeAttachment that is for this volume on this node."""
    return f"csi-{hashlib.sha256(f'{handle}{driver}{node}'.encode()).hexdigest()}"
