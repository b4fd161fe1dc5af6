"""StorageObjectInUseProtection: claims, volumes and classes of their attributes are held by a finalizer until nobody
uses them any more."""

from __future__ import annotations

from typing import Final

from navarch.apiserver.admission.base import Attributes, Plugin

_FINALIZERS: Final = {
    ("", "persistentvolumeclaims"): "kubernetes.io/pvc-protection",
    ("", "persistentvolumes"): "kubernetes.io/pv-protection",
    ("storage.k8s.io", "volumeattributesclasses"): "kubernetes.io/vac-protection",
}


class StorageObjectInUseProtection(Plugin):
    name = "StorageObjectInUseProtection"
    leaves_whole = True
    resources = frozenset(_FINALIZERS)
    operations = frozenset({"CREATE"})

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.obj is None:
            return
        finalizers = attributes.obj["metadata"].setdefault("finalizers", [])
        resource = attributes.kind.resource
        finalizer = _FINALIZERS[resource.group, resource.plural]
        if finalizer not in finalizers:
            finalizers.append(finalizer)
