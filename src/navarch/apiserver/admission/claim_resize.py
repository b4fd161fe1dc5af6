"""PersistentVolumeClaimResize: a claim may ask for more where it is bound, and its class lets volumes grow."""

from __future__ import annotations

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Attributes, Plugin, Reader
from navarch.kinds.resources import STORAGE_CLASSES


class PersistentVolumeClaimResize(Plugin):
    name = "PersistentVolumeClaimResize"
    resources = frozenset({("", "persistentvolumeclaims")})
    operations = frozenset({"UPDATE"})

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def validate(self, attributes: Attributes) -> None:
        claim, old = attributes.obj, attributes.old
        if attributes.subresource or claim is None or old is None or _size(claim) == _size(old):
            return
        if quantity.parse(_size(old)) >= quantity.parse(_size(claim)):
            return
        if (old.get("status") or {}).get("phase") != "Bound":
            raise attributes.refused("Only bound persistent volume claims can be expanded")
        name = claim["spec"].get("storageClassName")
        found = self._reader.get(STORAGE_CLASSES, "", name) if name else None
        if found is None or not found.get("allowVolumeExpansion"):
            raise attributes.refused(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize"
            )


def _size(claim: Obj) -> str:
    return str(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0"))
