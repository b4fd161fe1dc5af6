"""Disruptions that did not come about: a pod that was to be ended, and two minutes later still is there.

In: pods whose DisruptionTarget condition is True. Out: the condition False, so that a Job does not take a later failure
of the pod for a disruption.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, is_deleting, uid_of
from navarch.api.time import format_time, parse_time
from navarch.client.base import PatchKind
from navarch.client.resources import PODS
from navarch.controllers.base import Context, Controller, Requeue
from navarch.kinds.core.pod_state import condition_of, is_finished

_PATIENCE = timedelta(minutes=2)


def stale_at(pod: Obj) -> datetime | None:
    """When the pod's disruption is stale; None where there is none, or where it came about."""
    condition = condition_of(pod, "DisruptionTarget")
    if condition is None or condition.get("status") != "True" or is_deleting(pod) or is_finished(pod):
        return None
    since = condition.get("lastTransitionTime")
    return parse_time(since) + _PATIENCE if since else None


class StaleDisruptionController(Controller):
    name: ClassVar[str] = "stale-disruptions"
    workers: ClassVar[int] = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pods = self.watch_primary(PODS, lambda pod: stale_at(pod) is not None)

    async def reconcile(self, key: Key) -> Requeue | None:
        pod = self._pods.get(*key)
        due = stale_at(pod) if pod is not None else None
        if pod is None or due is None:
            return None
        now = self.clock.now()
        if now < due:
            return Requeue((due - now).total_seconds())
        told = {"type": "DisruptionTarget", "status": "False", "lastTransitionTime": format_time(now)}
        patch = {"metadata": {"uid": uid_of(pod)}, "status": {"conditions": [told]}}
        kind = PatchKind.STRATEGIC
        try:
            await self.client.patch(PODS, key.name, key.namespace, patch, kind=kind, subresource="status")
        except StatusError as error:
            if error.code not in (404, 409):
                raise
        return None
