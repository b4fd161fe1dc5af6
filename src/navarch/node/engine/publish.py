"""A pod's status on its way to the API server: computed anew for every write, patched where it differs, until it is
there.

It also ends a deleted pod: after its last status has been taken, the object is deleted with grace period 0.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from navarch.api.errors import StatusError
from navarch.api.meta import is_deleting, revision_of
from navarch.client.base import PatchKind
from navarch.client.resources import PODS
from navarch.client.supervision import unless_cancelled
from navarch.node import podspec
from navarch.node.engine.podstate import PodState
from navarch.node.engine.status import StatusInputs, pod_status
from navarch.node.engine.status_patch import status_patch

log = logging.getLogger(__name__)

_FIRST_RETRY_S: Final = 0.2
_LAST_RETRY_S: Final = 10.0


class Publisher:
    """Owned by a PodWorker; `changed` says that the status may differ now."""

    def __init__(self, worker: PodState, inputs: Callable[[], StatusInputs]) -> None:
        self._worker = worker
        self._inputs = inputs
        self._dirty = asyncio.Event()
        # The status of a stopped pod that is deleted has been taken.
        self.final_published = False
        self.deleted = False

    def changed(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Publish for ever; failures are tried again."""
        retry_s = _FIRST_RETRY_S
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await unless_cancelled(self._publish())
            except (StatusError, OSError) as error:
                if isinstance(error, StatusError) and error.code in (404, 409, 410):
                    # Gone, or another pod of that name: the informer will tell. A conflict is computed anew.
                    if error.code != 409:
                        if self._worker.static:
                            self._worker.mirror = None
                        else:
                            self._worker.object_gone()
                        continue
                else:
                    # Once per interruption: there are as many pods that try again as the node has.
                    level = logging.WARNING if retry_s == _FIRST_RETRY_S else logging.DEBUG
                    log.log(level, "status of %s: %s", podspec.quoted(self._worker.pod), error)
                retry_s = await self._again_after(retry_s)
            except Exception as error:
                self._worker.parts.failures.note(f"status of {podspec.quoted(self._worker.pod)}", error)
                self._worker.troubled(f"status: {type(error).__name__}: {error}")
                retry_s = await self._again_after(retry_s)
            else:
                retry_s = _FIRST_RETRY_S

    async def _again_after(self, retry_s: float) -> float:
        """Publish again in a while; answers how long to wait the next time."""
        await asyncio.sleep(retry_s)
        self._dirty.set()
        return min(retry_s * 2, _LAST_RETRY_S)

    async def _publish(self) -> None:
        worker = self._worker
        if worker.gone:
            return
        stopped = worker.ending and not worker.observed.any_running and not worker.observed.sandbox_ready
        new = pod_status(self._inputs())
        if worker.static:
            # What is remembered of a static pod between two computations is here, whether or not it has a mirror pod.
            worker.pod = {**worker.pod, "status": new}
        shown = worker.mirror if worker.static else worker.pod
        if shown is None:
            return
        metadata = shown["metadata"]
        patch = status_patch(shown.get("status") or {}, new)
        if patch:
            answer = await worker.parts.client.patch(
                PODS,
                metadata["name"],
                metadata["namespace"],
                {"metadata": {"uid": metadata["uid"]}, "status": patch},
                kind=PatchKind.STRATEGIC,
                subresource="status",
            )
            answer.setdefault("apiVersion", "v1")
            answer.setdefault("kind", "Pod")
            answer["metadata"].pop("managedFields", None)
            if worker.static:
                worker.mirror = answer
            elif revision_of(answer) > revision_of(worker.pod):
                if worker.learn(answer):
                    worker.wake()
                else:
                    # Others may have written into it, and what they wrote may count.
                    self.changed()
        if stopped and is_deleting(worker.pod):
            if not self.final_published:
                self.final_published = True
                worker.wake()
            elif worker.cleaned and not self.deleted:
                await self._delete()

    async def _delete(self) -> None:
        metadata = self._worker.pod["metadata"]
        try:
            await self._worker.parts.client.delete(
                PODS, metadata["name"], metadata["namespace"], grace_s=0, uid=metadata["uid"]
            )
        except StatusError as error:
            if error.code not in (404, 409):
                raise
        self.deleted = True
        self._worker.wake()
