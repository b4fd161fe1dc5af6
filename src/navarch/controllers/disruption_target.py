"""Ending a pod from outside: say why in its DisruptionTarget condition, then delete it."""

from __future__ import annotations

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, name_of, namespace_of, uid_of
from navarch.api.time import format_time
from navarch.client.base import Client, PatchKind
from navarch.client.resources import PODS
from navarch.kinds.core.pod_state import condition_of, is_finished
from navarch.world import Clock


async def mark(client: Client, clock: Clock, pod: Obj, reason: str, message: str, *, failed: bool = False) -> None:
    """Set the condition; `failed` also ends the pod's life on paper, where no kubelet is left to do so."""
    current = condition_of(pod, "DisruptionTarget")
    status: Obj = {}
    if current is None or current.get("status") != "True" or current.get("reason") != reason:
        status["conditions"] = [
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": format_time(clock.now()),
            }
        ]
    if failed and not is_finished(pod):
        status["phase"] = "Failed"
    if not status:
        return
    patch = {"metadata": {"uid": uid_of(pod)}, "status": status}
    await client.patch(PODS, name_of(pod), namespace_of(pod), patch, kind=PatchKind.STRATEGIC, subresource="status")


async def delete(client: Client, pod: Obj, *, grace_s: int | None = None) -> None:
    """Delete the pod; one that is gone or was replaced is no error."""
    try:
        await client.delete(PODS, name_of(pod), namespace_of(pod), uid=uid_of(pod), grace_s=grace_s)
    except StatusError as error:
        if error.code not in (404, 409):
            raise
