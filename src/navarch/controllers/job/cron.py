"""The CronJob controller: a Job at each time of the schedule.

In: the CronJob, the Jobs that it owns. Out: Jobs named after the minute that they are for (so that no time has two),
finished ones beyond the history limits deleted, `status`. A CronJob that was away for long starts the latest missed
time only, if its starting deadline still allows it.
"""

from __future__ import annotations

import contextlib
import copy
import json
from datetime import datetime, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from navarch.api.errors import StatusError
from navarch.api.meta import Key, Obj, controller_of, controller_reference, is_deleting, name_of, namespace_of, uid_of
from navarch.api.time import format_time, parse_time
from navarch.client.resources import CRON_JOBS, JOBS
from navarch.controllers.base import Context, Controller, Requeue, index_by_controller, is_namespace_terminating
from navarch.controllers.job import conditions
from navarch.controllers.job.schedule import Schedule, parse
from navarch.controllers.pods import created_at, same_semantics
from navarch.kinds.batch.cron import schedule_problem, zone_problem

_SCHEDULED_TIME = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_TOO_MANY_MISSED = 100
_FRESH = timedelta(seconds=10)


class CronJobController(Controller):
    name: ClassVar[str] = "cronjob"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._cron_jobs = self.watch_primary(CRON_JOBS)
        self._jobs = self.informer(JOBS)
        index_by_controller(self._jobs)
        self._jobs.add_handler(self._job_changed, lambda _old, new: self._job_changed(new), self._job_changed)
        self._made: dict[str, datetime] = {}
        self._recorder = context.recorder("cronjob-controller")

    def _job_changed(self, job: Obj) -> None:
        reference = controller_of(job)
        if reference is not None and reference["kind"] == "CronJob":
            self.enqueue(Key(namespace_of(job), reference["name"]))

    async def reconcile(self, key: Key) -> Requeue | None:
        cached = self._cron_jobs.get(*key)
        if cached is None:
            return None
        cron_job = self.newest(CRON_JOBS, cached)
        jobs = self._jobs.by_index("controller", uid_of(cron_job))
        status = dict(cron_job.get("status") or {})
        self._sync_active(cron_job, jobs, status)
        requeue: Requeue | None = None
        failure: StatusError | None = None
        if not is_deleting(cron_job):
            try:
                requeue = await self._schedule(cron_job, jobs, status)
            except StatusError as error:
                # What was found out of the Jobs is written all the same.
                failure = error
        await self._clean_up(cron_job, jobs)
        if not same_semantics(status, cron_job.get("status") or {}):
            await self.write_status(CRON_JOBS, cron_job, status)
        if failure is not None:
            raise failure
        return requeue

    def _sync_active(self, cron_job: Obj, jobs: list[Obj], status: Obj) -> None:
        active = {reference["uid"]: reference for reference in status.get("active") or ()}
        by_uid = {uid_of(job): job for job in jobs}
        for job in jobs:
            uid, finished = uid_of(job), conditions.is_finished(job)
            if uid in active and finished:
                del active[uid]
                ended = "Complete" if _is_complete(job) else "Failed"
                message = f"Saw completed job: {name_of(job)}, condition: {ended}"
                self._recorder.event(cron_job, "Normal", "SawCompletedJob", message)
            elif uid not in active and not finished and not self._is_fresh(uid):
                message = f"Saw a job that the controller did not create or forgot: {name_of(job)}"
                self._recorder.event(cron_job, "Warning", "UnexpectedJob", message)
            if finished and _is_complete(job):
                done = (job.get("status") or {}).get("completionTime") or ""
                if done > (status.get("lastSuccessfulTime") or ""):
                    status["lastSuccessfulTime"] = done
        for uid, reference in list(active.items()):
            # A Job just made may not be in the informer yet; its time says so.
            if uid not in by_uid and not self._is_fresh(uid):
                message = f"Active job went missing: {reference.get('name')}"
                self._recorder.event(cron_job, "Normal", "MissingJob", message)
                del active[uid]
        status["active"] = list(active.values())

    def _is_fresh(self, uid: str) -> bool:
        """Whether the Job was made here just now, so that informer and status may not know of it yet."""
        made = self._made.get(uid)
        return made is not None and self.clock.now() - made < _FRESH

    async def _clean_up(self, cron_job: Obj, jobs: list[Obj]) -> None:
        spec = cron_job["spec"]
        finished = sorted((job for job in jobs if conditions.is_finished(job)), key=_by_start)
        for complete, limit in (
            (True, spec.get("successfulJobsHistoryLimit")),
            (False, spec.get("failedJobsHistoryLimit")),
        ):
            group = [job for job in finished if _is_complete(job) == complete and not is_deleting(job)]
            for job in group[: max(len(group) - int(limit), 0)] if limit is not None else ():
                with contextlib.suppress(StatusError):
                    # It was told of, and is tried again at the next look; the others need not wait.
                    await self._delete(cron_job, job)

    async def _delete(self, cron_job: Obj, job: Obj) -> None:
        try:
            await self.client.delete(JOBS, name_of(job), namespace_of(job), propagation="Background", uid=uid_of(job))
        except StatusError as error:
            if error.code == 404:
                return
            self._recorder.event(cron_job, "Warning", "FailedDelete", f"Deleted job: {error.message}")
            raise
        self._recorder.event(cron_job, "Normal", "SuccessfulDelete", f"Deleted job {name_of(job)}")

    # Starting.

    async def _schedule(self, cron_job: Obj, jobs: list[Obj], status: Obj) -> Requeue | None:
        spec = cron_job["spec"]
        if spec.get("suspend"):
            return None
        schedule = self._schedule_of(cron_job)
        if schedule is None:
            return None
        now = self.clock.now()
        due = self._due(cron_job, schedule, status, now)
        if due is not None:
            await self._start(cron_job, jobs, status, due, now)
        following = schedule.next_after(now)
        return Requeue((following - now).total_seconds() + 0.1) if following is not None else None

    def _schedule_of(self, cron_job: Obj) -> Schedule | None:
        """The times at which the CronJob is to run; None, after saying why, where there is no telling."""
        spec = cron_job["spec"]
        text, zone = str(spec["schedule"]), spec.get("timeZone")
        if zone and (problem := zone_problem(zone)):
            message = f"invalid timeZone: {_quoted(zone)}: {problem}"
            self._recorder.event(cron_job, "Warning", "UnknownTimeZone", message)
            return None
        try:
            schedule = parse(text, zone)
        except (ValueError, KeyError, OSError) as error:
            problem = schedule_problem(text) or str(error)
            message = f"unparseable schedule: {_quoted(text)} : {problem}"
            self._recorder.event(cron_job, "Warning", "UnparseableSchedule", message)
            return None
        if schedule.next_after(created_at(cron_job)) is None:
            # A day that no year has.
            message = f"invalid schedule: {text} : time difference between two schedules is less than 1 second"
            self._recorder.event(cron_job, "Warning", "InvalidSchedule", message)
            return None
        return schedule

    def _due(self, cron_job: Obj, schedule: Schedule, status: Obj, now: datetime) -> datetime | None:
        """The latest time that was not started yet."""
        earliest = created_at(cron_job)
        if status.get("lastScheduleTime"):
            earliest = parse_time(status["lastScheduleTime"])
        deadline_s = cron_job["spec"].get("startingDeadlineSeconds")
        if deadline_s is not None:
            earliest = max(earliest, now - timedelta(seconds=int(deadline_s)))
        latest: datetime | None = None
        candidate = schedule.next_after(earliest)
        missed = 0
        while candidate is not None and candidate <= now:
            latest = candidate
            missed += 1
            if missed > _TOO_MANY_MISSED:
                latest = self._skip_to_latest(schedule, candidate, now)
                message = (
                    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
                )
                self._recorder.event(cron_job, "Warning", "TooManyMissedTimes", message)
                break
            candidate = schedule.next_after(candidate)
        return latest

    def _skip_to_latest(self, schedule: Schedule, since: datetime, now: datetime) -> datetime:
        """The last time before now, found by halving the span rather than by walking through it."""
        low, high = since, now
        while high - low > timedelta(minutes=1):
            middle = low + (high - low) / 2
            candidate = schedule.next_after(middle)
            if candidate is not None and candidate <= now:
                low = candidate
            else:
                high = middle
        return low

    async def _start(self, cron_job: Obj, jobs: list[Obj], status: Obj, due: datetime, now: datetime) -> None:
        spec = cron_job["spec"]
        if spec.get("concurrencyPolicy") == "Forbid" and status["active"]:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._recorder.event(cron_job, "Normal", "JobAlreadyActive", message)
            return
        if spec.get("concurrencyPolicy") == "Replace":
            for reference in status["active"]:
                job = next((job for job in jobs if uid_of(job) == reference["uid"]), None)
                if job is not None:
                    await self._delete(cron_job, job)
            status["active"] = []
        wanted = make_job(cron_job, due)
        try:
            job = await self.client.create(JOBS, wanted)
        except StatusError as error:
            if is_namespace_terminating(error):
                return
            if error.code != 409:
                message = f"Error creating job: {error.message}"
                self._recorder.event(cron_job, "Warning", "FailedCreate", message)
                raise
            existing = await self.client.get(JOBS, name_of(wanted), namespace_of(wanted))
            owner = controller_of(existing)
            if owner is None or owner["uid"] != uid_of(cron_job):
                # Somebody else has made it, and has what is to be written of it in hand.
                return
            job = existing
        else:
            self._recorder.event(cron_job, "Normal", "SuccessfulCreate", f"Created job {name_of(job)}")
        self._made = {uid: made for uid, made in self._made.items() if now - made < _FRESH}
        self._made[uid_of(job)] = now
        if not conditions.is_finished(job):
            reference = {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": name_of(job),
                "namespace": namespace_of(job),
                "uid": uid_of(job),
                "resourceVersion": job["metadata"].get("resourceVersion", ""),
            }
            status["active"] = [r for r in status["active"] if r["uid"] != uid_of(job)] + [reference]
        status["lastScheduleTime"] = format_time(due)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _by_start(job: Obj) -> tuple[bool, str, str]:
    """Oldest start first, those that never started last."""
    started = (job.get("status") or {}).get("startTime") or ""
    return not started, started, name_of(job)


def _is_complete(job: Obj) -> bool:
    return conditions.of_type((job.get("status") or {}).get("conditions") or [], "Complete") is not None


def _local(cron_job: Obj, due: datetime) -> str:
    """The time as the CronJob's time zone writes it."""
    zone = cron_job["spec"].get("timeZone")
    return format_time(due) if not zone else due.astimezone(ZoneInfo(zone)).isoformat().replace("+00:00", "Z")


def make_job(cron_job: Obj, due: datetime) -> Obj:
    """The Job for one time; its name ends in that time's minutes since 1970."""
    template = cron_job["spec"].get("jobTemplate") or {}
    origin = template.get("metadata") or {}
    metadata: Obj = {
        "name": f"{name_of(cron_job)}-{int(due.timestamp()) // 60}",
        "namespace": namespace_of(cron_job),
        "labels": dict(origin.get("labels") or {}),
        "annotations": {**(origin.get("annotations") or {}), _SCHEDULED_TIME: _local(cron_job, due)},
        "ownerReferences": [controller_reference({**cron_job, "apiVersion": "batch/v1", "kind": "CronJob"})],
    }
    spec = copy.deepcopy(template.get("spec") or {})
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
