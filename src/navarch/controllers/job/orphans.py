"""Pods whose Job is gone: nobody will count them, so their tracking finalizer must not hold them."""

from __future__ import annotations

from typing import ClassVar

from navarch.api.meta import Key, Obj, controller_of, key_of, namespace_of, uid_of
from navarch.client.resources import JOBS, PODS
from navarch.controllers.base import Context, Controller, Requeue, index_by_controller
from navarch.controllers.job import conditions
from navarch.controllers.job.counting import is_tracked
from navarch.controllers.job.sync import release


class JobOrphanController(Controller):
    name: ClassVar[str] = "job-orphan-pods"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._jobs = self.informer(JOBS)
        self._jobs.add_handler(updated=self._job_updated, deleted=self._job_gone)
        self._pods = self.informer(PODS)
        index_by_controller(self._pods)
        self._pods.add_handler(self._pod_seen, lambda _old, new: self._pod_seen(new))

    def _pod_seen(self, pod: Obj) -> None:
        if is_tracked(pod) and not self._has_running_job(pod):
            self.enqueue(key_of(pod), 0.1)

    def _job_updated(self, _old: Obj, job: Obj) -> None:
        if conditions.is_finished(job):
            self._job_gone(job)

    def _job_gone(self, job: Obj) -> None:
        for pod in self._pods.by_index("controller", uid_of(job)):
            if is_tracked(pod):
                self.enqueue(key_of(pod))

    def _has_running_job(self, pod: Obj) -> bool:
        reference = controller_of(pod)
        if reference is None or reference["kind"] != "Job":
            return False
        job = self._jobs.get(namespace_of(pod), reference["name"])
        return job is not None and uid_of(job) == reference["uid"] and not conditions.is_finished(job)

    async def reconcile(self, key: Key) -> Requeue | None:
        pod = self._pods.get(*key)
        if pod is None or not is_tracked(pod) or self._has_running_job(pod):
            return None
        reference = controller_of(pod)
        if reference is not None and reference["kind"] == "Job":
            # The informer of Jobs may be behind that of pods.
            live = await self.client.find(JOBS, reference["name"], key.namespace)
            if live is not None and uid_of(live) == reference["uid"] and not conditions.is_finished(live):
                return None
        await release(self.client, pod)
        return None
