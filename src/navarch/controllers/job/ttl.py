"""TTL after finished: deletes Jobs `ttlSecondsAfterFinished` after their end, with their pods."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, is_deleting, uid_of
from navarch.api.time import parse_time
from navarch.client.resources import JOBS
from navarch.controllers.base import Context, Controller, Requeue
from navarch.controllers.job import conditions


def expiry(job: Obj) -> datetime | None:
    """When a finished Job is due; None where it is not."""
    ttl_s = job["spec"].get("ttlSecondsAfterFinished")
    if ttl_s is None or is_deleting(job):
        return None
    listed = (job.get("status") or {}).get("conditions") or []
    ended = conditions.of_type(listed, "Complete") or conditions.of_type(listed, "Failed")
    if ended is None or not ended.get("lastTransitionTime"):
        return None
    return parse_time(ended["lastTransitionTime"]) + timedelta(seconds=int(ttl_s))


class TTLAfterFinishedController(Controller):
    name: ClassVar[str] = "ttl-after-finished"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._jobs = self.watch_primary(JOBS, lambda job: expiry(job) is not None)

    async def reconcile(self, key: Key) -> Requeue | None:
        job = self._jobs.get(*key)
        due = expiry(job) if job is not None else None
        if job is None or due is None:
            return None
        wait_s = (due - self.clock.now()).total_seconds()
        if wait_s > 0:
            return Requeue(wait_s)
        # The TTL may have been raised a moment ago, so the API server is asked once more.
        live = await self.client.find(JOBS, key.name, key.namespace)
        if live is None or uid_of(live) != uid_of(job) or (expiry(live) or due) > self.clock.now():
            return None
        try:
            await self.client.delete(
                JOBS, key.name, key.namespace, propagation="Foreground", uid=uid_of(live),
                resource_version=live["metadata"]["resourceVersion"],
            )  # fmt: skip
        except StatusError as error:
            if error.code != 404:
                raise
        return None
