"""The Job controller: one reconciliation counts what has ended, decides, and makes or removes pods.

In: the Job and its pods. Out: pods, `status`, and events. Order within one pass: decide, change pods, write the status,
then release the pods that the status has counted. Invariant: a pod that ended is counted once (`counting`), and a Job
is only declared Complete or Failed when every pod has ended and been counted.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, Resource, is_deleting, name_of, namespace_of, uid_of
from navarch.api.selectors import label_selector_of
from navarch.api.time import format_time, parse_time
from navarch.client.base import Client, PatchKind
from navarch.client.resources import JOBS, PODS
from navarch.controllers.adoption import Claimer
from navarch.controllers.base import Context, Requeue
from navarch.controllers.job import conditions, failure, indexes
from navarch.controllers.job.counting import FINALIZER, Tally, is_tracked, tally
from navarch.controllers.pod_control import BatchError, all_at_once, slow_start
from navarch.controllers.pod_owner import PodOwner
from navarch.controllers.pods import removal_order, same_semantics
from navarch.kinds.core.pod_state import is_active, is_finished

_BURST = 500


class JobController(PodOwner):
    name: ClassVar[str] = "job"
    component: ClassVar[str] = "job-controller"
    resource: ClassVar[Resource] = JOBS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._streaks: dict[Key, failure.Streak] = {}

    def calm_s(self, owner: Obj) -> float:
        # Many pods end together; a status write takes them all in.
        return min(int(owner["spec"].get("parallelism") or 1) / 1000, 1.0) * 0.5

    # Reconciling.

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self.owners.get(*key)
        if cached is None:
            self.expectations.forget(key)
            self._streaks.pop(key, None)
            return None
        if cached["spec"].get("managedBy", "kubernetes.io/job-controller") != "kubernetes.io/job-controller":
            return None
        job = self.newest(JOBS, cached)
        if conditions.is_finished(job):
            self._streaks.pop(key, None)
            return None
        may_manage = self.expectations.satisfied(key)
        claimer = Claimer(
            self.client, JOBS, job, PODS, label_selector_of(job["spec"].get("selector")), finalizers=[FINALIZER]
        )
        pods = await claimer.claim(
            self.pods.by_index("controller", uid_of(job)), self.pods.by_index("orphan", key.namespace)
        )
        now = self.clock.now()
        # Those that were taken away on purpose, to suspend or to shrink, have lost their finalizer and did not fail.
        judged = [pod for pod in pods if is_finished(pod) or is_tracked(pod)]
        if key not in self._streaks or self._streaks[key].job_uid != uid_of(job):
            self._streaks[key] = failure.Streak(uid_of(job))
        self._streaks[key].see(job, judged)
        counted = tally(job, pods)
        status = dict(job.get("status") or {})
        status["conditions"] = list(status.get("conditions") or [])
        if not status.get("startTime") and not job["spec"].get("suspend"):
            status["startTime"] = format_time(now)
        self._judge(job, counted, status, now)
        self._suspend_or_resume(job, status, now)
        ending = _ending(status)
        failed: BatchError | None = None
        wait_s: float | None = None
        if may_manage and not is_deleting(job):
            try:
                wait_s = await self._manage(key, job, pods, counted, ending, now)
            except BatchError as error:
                failed = error
        self._count(job, status, counted)
        finished = ending is not None and self._finish(job, status, counted, ending, now)
        if not same_semantics(status, job.get("status") or {}):
            await self.write_status(JOBS, job, status)
            if finished and ending is not None:
                self._tell_finished(job, status, ending)
        await all_at_once([release(self.client, pod) for pod in counted.released])
        if failed is not None:
            raise failed.cause
        return self._next_look(job, status, wait_s, now)

    def _suspend_or_resume(self, job: Obj, status: Obj, now: datetime) -> None:
        if _ending(status) is not None:
            return
        suspended = bool(job["spec"].get("suspend"))
        was = conditions.of_type(status["conditions"], "Suspended") is not None
        if suspended and not was:
            told = conditions.make("Suspended", "True", "JobSuspended", "Job suspended", now)
            status["conditions"] = conditions.set_condition(status["conditions"], told)
            status.pop("startTime", None)
            self.recorder.event(job, "Normal", "Suspended", "Job suspended")
        elif not suspended and was:
            told = conditions.make("Suspended", "False", "JobResumed", "Job resumed", now)
            status["conditions"] = conditions.set_condition(status["conditions"], told)
            status["startTime"] = format_time(now)
            self.recorder.event(job, "Normal", "Resumed", "Job resumed")

    def _judge(self, job: Obj, counted: Tally, status: Obj, now: datetime) -> None:
        """Set SuccessCriteriaMet or FailureTarget once the Job's fate is clear."""
        if _ending(status) is not None:
            return
        # A Job that fails by one rule and succeeds by another has failed.
        verdict = self._failure(job, counted, status, now) or _success(job, counted)
        if verdict is not None:
            type, reason, message = verdict
            told = conditions.make(type, "True", reason, message, now)
            status["conditions"] = conditions.set_condition(status["conditions"], told)

    def _failure(self, job: Obj, counted: Tally, status: Obj, now: datetime) -> tuple[str, str, str] | None:
        spec = job["spec"]
        target = "FailureTarget"
        if counted.job_failure:
            return target, "PodFailurePolicy", counted.job_failure
        limit = int(spec.get("backoffLimit", 6))
        if counted.all_failed > limit or failure.restarts_exceed(job, counted.active):
            return target, "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        if self._deadline_s(job, status, now) == 0.0:
            return target, "DeadlineExceeded", "Job was active longer than specified deadline"
        if spec.get("backoffLimitPerIndex") is None:
            return None
        most = spec.get("maxFailedIndexes")
        if most is not None and len(counted.failed_indexes) > int(most):
            message = "Job has exceeded the specified maximal number of failed indexes"
            return target, "MaxFailedIndexesExceeded", message
        ended = len(counted.failed_indexes | counted.completed)
        if counted.failed_indexes and ended >= int(spec.get("completions") or 0):
            return target, "FailedIndexes", "Job has failed indexes"
        return None

    def _deadline_s(self, job: Obj, status: Obj, now: datetime) -> float | None:
        deadline_s = job["spec"].get("activeDeadlineSeconds")
        if deadline_s is None or not status.get("startTime") or job["spec"].get("suspend"):
            return None
        due = parse_time(status["startTime"]) + timedelta(seconds=int(deadline_s))
        return max((due - now).total_seconds(), 0.0)

    # Pods.

    async def _manage(
        self, key: Key, job: Obj, pods: list[Obj], counted: Tally, ending: Obj | None, now: datetime
    ) -> float | None:
        """Make or delete pods; returns how long a back-off still lasts."""
        active = counted.active
        if ending is not None or job["spec"].get("suspend"):
            failing = ending is not None and ending["type"] == "FailureTarget"
            await self._delete(key, job, active, counted=failing)
            return None
        wanted = self._wanted_active(job, counted)
        if doomed := _surplus(job, active, max(len(active) - wanted, 0)):
            await self._delete(key, job, doomed)
            return None
        missing = wanted - len(active)
        if failure.replaces_failed_only(job):
            missing -= counted.terminating
        if missing <= 0:
            return None
        per_index = job["spec"].get("backoffLimitPerIndex") is not None
        if not per_index:
            wait_s = self._streaks[key].wait_s(now)
            if wait_s > 0:
                return wait_s
        if not indexes.is_indexed(job):
            await self._create(key, job, [None] * min(missing, _BURST), pods)
            return None
        taken = (
            counted.completed | counted.failed_indexes | {i for p in active if (i := indexes.index_of(p)) is not None}
        )
        if failure.replaces_failed_only(job):
            taken |= {i for p in pods if is_deleting(p) and not is_active(p) and is_tracked(p)
                      and not failure.has_failed(job, p) and (i := indexes.index_of(p)) is not None}  # fmt: skip
        completions = int(job["spec"].get("completions") or 0)
        free, wait_s = self._ready_indexes(job, pods, missing, completions, taken, now)
        await self._create(key, job, list(free[: min(missing, _BURST)]), pods)
        return wait_s or None

    def _ready_indexes(
        self, job: Obj, pods: list[Obj], missing: int, completions: int, taken: set[int], now: datetime
    ) -> tuple[list[int], float]:
        """Of the first indexes without a pod, as many as may run at a time, those that may have one now, and how long
        the next of the others has to wait: one that waits holds its place."""
        free = indexes.first_free(missing, completions, taken)
        if job["spec"].get("backoffLimitPerIndex") is None:
            return free, 0.0
        failed: dict[int, list[Obj]] = {}
        candidates = set(free)
        for pod in pods:
            index = indexes.index_of(pod)
            if index in candidates and index is not None and failure.has_failed(job, pod):
                failed.setdefault(index, []).append(pod)
        waits = {
            index: wait
            for index, group in failed.items()
            if (wait := failure.index_backoff_s(group, indexes.failures_before(group) + 1, now)) > 0
        }
        return [index for index in free if index not in waits], min(waits.values(), default=0.0)

    def _wanted_active(self, job: Obj, counted: Tally) -> int:
        parallelism = int(job["spec"].get("parallelism", 1))
        completions = job["spec"].get("completions")
        if completions is None:
            # A work queue: once one pod has succeeded the others finish, and no new ones come.
            return len(counted.active) if counted.all_succeeded else parallelism
        left = int(completions) - counted.all_succeeded - len(counted.failed_indexes)
        return max(min(left, parallelism), 0)

    async def _create(self, key: Key, job: Obj, numbers: list[Any], pods: list[Obj]) -> None:
        template = job["spec"]["template"]

        async def create(position: int) -> None:
            index = numbers[position]
            if index is None:
                await self.control.create(job, template, finalizers=[FINALIZER])
            else:
                await self._create_index(job, template, index, pods)

        await self.create_pods(key, len(numbers), create)

    async def _create_index(self, job: Obj, template: Obj, index: int, pods: list[Obj]) -> None:
        marks = {indexes.INDEX: str(index)}
        annotations = dict(marks)
        if job["spec"].get("backoffLimitPerIndex") is not None:
            failed = [p for p in pods if indexes.index_of(p) == index and failure.has_failed(job, p)]
            counted = [p for p in failed if (m := failure.match(job, p)) is None or m.action != "Ignore"]
            annotations[indexes.FAILURES] = str(indexes.failures_before(failed) + (1 if counted else 0))
            if len(counted) < len(failed):
                ignored = indexes.failures_before(failed, ignored=True) + 1
                annotations[indexes.IGNORED_FAILURES] = str(ignored)

        def change(pod: Obj) -> None:
            spec = pod["spec"]
            spec.setdefault("hostname", f"{name_of(job)}-{index}")
            source = {"fieldRef": {"fieldPath": f"metadata.labels['{indexes.INDEX}']"}}
            for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
                env = container.setdefault("env", [])
                if not any(entry.get("name") == "JOB_COMPLETION_INDEX" for entry in env):
                    env.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": source})

        await self.control.create(
            job,
            template,
            generate_name=f"{name_of(job)}-{index}-",
            labels=marks,
            annotations=annotations,
            finalizers=[FINALIZER],
            change_spec=change,
        )

    async def _delete(self, key: Key, job: Obj, pods: list[Obj], *, counted: bool = False) -> None:
        """Delete pods; those that are not to be counted as failed lose their finalizer first."""
        if not pods:
            return
        pods = pods[:_BURST]
        self.expectations.expect_deletions(key, [uid_of(pod) for pod in pods])

        async def delete(position: int) -> None:
            pod = pods[position]
            try:
                if not counted:
                    await release(self.client, pod)
                await self.control.delete(job, pod)
            finally:
                # The tally after it will show the pod as going; nothing is gained by waiting for its event.
                self.expectations.deletion_observed(key, uid_of(pod))

        await slow_start(len(pods), delete)

    # Status.

    def _count(self, job: Obj, status: Obj, counted: Tally) -> None:
        stopped = _ending(status) is not None or bool(job["spec"].get("suspend"))
        status["active"] = 0 if stopped else len(counted.active)
        status["ready"] = 0 if stopped else counted.ready
        status["terminating"] = counted.terminating + (len(counted.active) if stopped else 0)
        status["succeeded"] = counted.succeeded
        status["failed"] = counted.failed
        uncounted: Obj = {}
        if counted.uncounted_succeeded:
            uncounted["succeeded"] = counted.uncounted_succeeded
        if counted.uncounted_failed:
            uncounted["failed"] = counted.uncounted_failed
        status["uncountedTerminatedPods"] = uncounted
        if indexes.is_indexed(job):
            status["completedIndexes"] = indexes.show(counted.completed)
            if job["spec"].get("backoffLimitPerIndex") is not None:
                status["failedIndexes"] = indexes.show(counted.failed_indexes)
        for name in ("active", "succeeded", "failed", "completedIndexes"):
            if not status.get(name):
                status.pop(name, None)

    def _finish(self, job: Obj, status: Obj, counted: Tally, ending: Obj, now: datetime) -> bool:
        """Turn the interim condition into the final one when no pod is left to wait for."""
        uncounted = status["uncountedTerminatedPods"] or counted.is_behind
        if counted.active or counted.terminating or uncounted or is_deleting(job):
            return False
        # One that ends while it is suspended has no start any more, which what has ended must have.
        status.setdefault("startTime", format_time(now))
        final = "Complete" if ending["type"] == "SuccessCriteriaMet" else "Failed"
        told = conditions.make(final, "True", ending["reason"], ending["message"], now)
        status["conditions"] = conditions.set_condition(status["conditions"], told)
        if final == "Complete":
            status["completionTime"] = format_time(now)
        return True

    def _tell_finished(self, job: Obj, status: Obj, ending: Obj) -> None:
        if ending["type"] == "SuccessCriteriaMet":
            completions = job["spec"].get("completions")
            if completions is not None and int(status.get("succeeded") or 0) > int(completions):
                message = "Too many succeeded pods running after completion count reached"
                self.recorder.event(job, "Warning", "TooManySucceededPods", message)
            self.recorder.event(job, "Normal", "Completed", "Job completed")
        else:
            self.recorder.event(job, "Warning", ending["reason"], ending["message"])

    def _next_look(self, job: Obj, status: Obj, wait_s: float | None, now: datetime) -> Requeue | None:
        waits = [wait for wait in (wait_s, self._deadline_s(job, status, now)) if wait]
        return Requeue(min(waits) + 0.05) if waits and _ending(status) is None else None


def _ending(status: Obj) -> Obj | None:
    """The interim condition that says how the Job will end."""
    listed = status.get("conditions") or []
    return conditions.of_type(listed, "SuccessCriteriaMet") or conditions.of_type(listed, "FailureTarget")


def _success(job: Obj, counted: Tally) -> tuple[str, str, str] | None:
    message = failure.success_rule(job, counted.completed)
    if message is not None:
        return "SuccessCriteriaMet", "SuccessPolicy", message
    completions = job["spec"].get("completions")
    if completions is None:
        complete = counted.all_succeeded > 0 and not counted.active and not counted.terminating
    else:
        complete = counted.all_succeeded >= int(completions)
    if not complete:
        return None
    return "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"


def _surplus(job: Obj, active: list[Obj], surplus: int) -> list[Obj]:
    """The pods to give up. Of an indexed Job all those that stand for no index, or for one that another pod stands for,
    go even where there are not too many; then, as for every Job, those that have got least far."""
    if not indexes.is_indexed(job):
        return removal_order(active)[:surplus] if surplus else []
    completions = int(job["spec"].get("completions") or 0)
    seen: set[int] = set()
    useless: list[Obj] = []
    useful: list[Obj] = []
    if not surplus and _stand_for_one_index_each(active, completions):
        return []
    for pod in reversed(removal_order(active)):
        index = indexes.index_of(pod)
        if index is None or index >= completions or index in seen:
            useless.append(pod)
        else:
            seen.add(index)
            useful.insert(0, pod)
    return useless + useful[: max(surplus - len(useless), 0)]


def _stand_for_one_index_each(active: list[Obj], completions: int) -> bool:
    held = {index for pod in active if (index := indexes.index_of(pod)) is not None and index < completions}
    return len(held) == len(active)


async def release(client: Client, pod: Obj) -> None:
    """Take the tracking finalizer off."""
    if not is_tracked(pod):
        return
    patch = {"metadata": {"uid": uid_of(pod), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}}
    try:
        await client.patch(PODS, name_of(pod), namespace_of(pod), patch, kind=PatchKind.STRATEGIC)
    except StatusError as error:
        if error.code not in (404, 409, 422):
            raise
