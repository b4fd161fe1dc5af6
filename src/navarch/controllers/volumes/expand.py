"""Growing: a claim that asks for more than its volume has is told who will see to it.

In: bound claims and their volumes. Out: an event. Nothing here makes a volume bigger: that is the resizer's beside its
CSI driver (`external-resizer`), and on the node the kubelet's (`node/volumes/csi/growing.py`).
"""

from __future__ import annotations

from typing import ClassVar

from navarch.api import quantity
from navarch.api.meta import Key, Obj
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS
from navarch.controllers.base import Context, Controller, Requeue


class VolumeExpandController(Controller):
    name: ClassVar[str] = "persistentvolume-expander"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._claims = self.informer(PERSISTENT_VOLUME_CLAIMS)
        self._claims.add_handler(updated=self._updated)
        self._recorder = context.recorder("volume_expand")

    def _updated(self, old: Obj, claim: Obj) -> None:
        if _requested(claim) != _requested(old) and grows(claim):
            self.enqueue(Key(claim["metadata"]["namespace"], claim["metadata"]["name"]))

    async def reconcile(self, key: Key) -> Requeue | None:
        claim = self._claims.get(*key)
        if claim is not None and grows(claim):
            message = "waiting for an external controller to expand this PVC"
            self._recorder.event(claim, "Normal", "ExternalExpanding", message)
        return None


def _requested(claim: Obj) -> str:
    return str(((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0"))


def grows(claim: Obj) -> bool:
    """Whether a bound claim asks for more than it has."""
    status = claim.get("status") or {}
    if status.get("phase") != "Bound":
        return False
    return quantity.parse(_requested(claim)) > quantity.parse((status.get("capacity") or {}).get("storage") or "0")
