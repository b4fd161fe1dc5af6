"""`Growing`: the node's part in making a volume bigger, once its driver's controller has done its own.

In: a volume that a pod has, or is about to have, and its claim. Out: the driver is asked to make the file system as big
as the volume; the claim's status says how far that is, and its new capacity in the end; events for the pod. A size that
the driver calls impossible is not asked for again until the claim asks for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from navarch.api import quantity
from navarch.api.errors import StatusError
from navarch.api.meta import Obj, name_of, namespace_of
from navarch.client.base import Client, PatchKind
from navarch.client.events import EventRecorder
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS
from navarch.node.plugins.sockets import PluginError
from navarch.node.volumes.base import VolumeError
from navarch.node.volumes.csi.driver import Driver, Use

_PENDING: Final = "FileSystemResizePending"
_RESIZING: Final = "Resizing"
_IN_PROGRESS: Final = "NodeResizeInProgress"
_INFEASIBLE: Final = "NodeResizeInfeasible"
# What a driver says of a size that it can never give.
_IMPOSSIBLE: Final = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "NOT_FOUND", "UNIMPLEMENTED"})


class Growing:
    def __init__(self, client: Client, recorder: EventRecorder, node_name: str) -> None:
        self._client = client
        self._recorder = recorder
        self._node_name = node_name

    async def grow(
        self,
        driver: Driver,
        use: Use,
        pod: Obj,
        claim: Obj,
        volume: Obj,
        path: Path,
        staging: Path | None,
        secrets: Mapping[str, str],
    ) -> None:
        """Bring the file system to the volume's size, if the claim does not say that it is.  Raises VolumeError."""
        size = (volume["spec"].get("capacity") or {}).get("storage") or "0"
        if use.read_only or not needs_growing(claim, size):
            return
        try:
            if await driver.expands():
                await self._say(claim, _IN_PROGRESS)
                await driver.expand(use, path, staging, quantity.value(size), secrets)
        except PluginError as error:
            words = f'MountVolume.NodeExpandVolume failed for volume "{name_of(volume)}" : {error}'
            self._recorder.event(pod, "Warning", "VolumeResizeFailed", words)
            if error.code.name in _IMPOSSIBLE:
                await self._say(claim, _INFEASIBLE)
                return
            raise VolumeError(str(error), operation="MountVolume.NodeExpandVolume", volume=name_of(volume)) from error
        await self._done(claim, size)
        words = f'MountVolume.NodeExpandVolume succeeded for volume "{name_of(volume)}" {self._node_name}'
        for told in (pod, claim):
            self._recorder.event(told, "Normal", "FileSystemResizeSuccessful", words)

    async def _say(self, claim: Obj, state: str) -> None:
        """How far it is; a claim that whoever resizes tells nothing of that gets none of it."""
        states = (claim.get("status") or {}).get("allocatedResourceStatuses") or {}
        if states.get("storage") not in (None, state):
            await self._patch(claim, {"allocatedResourceStatuses": {**states, "storage": state}})

    async def _done(self, claim: Obj, size: str) -> None:
        status = claim.get("status") or {}
        kept = [one for one in status.get("conditions") or () if one["type"] not in (_PENDING, _RESIZING)]
        await self._patch(
            claim,
            {
                "capacity": {**(status.get("capacity") or {}), "storage": size},
                "conditions": kept or None,
                "allocatedResourceStatuses": None,
            },
        )

    async def _patch(self, claim: Obj, status: Obj) -> None:
        """The claim's status; one that is gone needs none."""
        try:
            await self._client.patch(
                PERSISTENT_VOLUME_CLAIMS,
                name_of(claim),
                namespace_of(claim),
                {"status": status},
                kind=PatchKind.MERGE,
                subresource="status",
            )
        except StatusError as error:
            if error.code != 404:
                raise


def needs_growing(claim: Obj, size: str) -> bool:
    """Whether the claim's file system is smaller than its volume, and may be made as big."""
    status = claim.get("status") or {}
    if (status.get("allocatedResourceStatuses") or {}).get("storage") == _INFEASIBLE:
        return False
    has = (status.get("capacity") or {}).get("storage") or "0"
    return quantity.parse(size) > quantity.parse(has)
