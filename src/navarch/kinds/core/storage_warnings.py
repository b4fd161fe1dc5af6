"""Warnings about persistent volumes and the claims on them: what is on its way out, and what is surely not meant.

In: a PersistentVolume, or a claim's spec.  Out: texts for `Warning` headers, in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.core.node_warnings import node_term_warnings
from navarch.kinds.core.pod_validation_resources import read_amount
from navarch.kinds.core.volume_sources import DEPRECATED_SOURCES

CLASS_ANNOTATION: Final = "volume.beta.kubernetes.io/storage-class"
MOUNT_OPTIONS_ANNOTATION: Final = "volume.beta.kubernetes.io/mount-options"
# Those of the deprecated sources that Kubernetes speaks of, in its order.
_SPOKEN_OF: Final = ("cephfs", "photonPersistentDisk", "rbd", "scaleIO", "storageos", "glusterfs")


def class_annotation_warning() -> str:
    since = 'deprecated since v1.8; use "storageClassName" attribute instead'
    return f"metadata.annotations[{CLASS_ANNOTATION}]: {since}"


def volume_warnings(volume: Obj) -> Iterator[str]:
    """Of a PersistentVolume."""
    annotations, spec = volume["metadata"].get("annotations") or (), volume["spec"]
    if CLASS_ANNOTATION in annotations:
        yield class_annotation_warning()
    if MOUNT_OPTIONS_ANNOTATION in annotations:
        since = 'deprecated since v1.31; use "mountOptions" attribute instead'
        yield f"metadata.annotations[{MOUNT_OPTIONS_ANNOTATION}]: {since}"
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        advice = "Instead, the recommended approach is to use dynamic provisioning."
        yield f"spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. {advice}"
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms")
    for index, term in enumerate(terms or ()):
        yield from node_term_warnings(term, f"spec.nodeAffinity.required.nodeSelectorTerms[{index}]")
    for field in _SPOKEN_OF:
        if spec.get(field) is not None:
            yield f"spec.{'storageOS' if field == 'storageos' else field}: {DEPRECATED_SOURCES[field]}"


def claim_warnings(spec: Obj, path: str = "spec") -> Iterator[str]:
    """Of what a claim asks for, on its own or as a template in a pod."""
    for field in ("requests", "limits"):
        value = ((spec.get("resources") or {}).get(field) or {}).get("storage")
        yield from fraction_warning(value, f"{path}.resources.{field}[storage]")


def fraction_warning(value: object, path: str) -> Iterator[str]:
    """Bytes are counted in whole ones."""
    amount = read_amount(value) if value is not None else None
    if amount is not None and amount.denominator != 1:
        yield f'{path}: fractional byte value "{value}" is invalid, must be an integer'
