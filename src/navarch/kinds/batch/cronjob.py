"""CronJob: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from zoneinfo import ZoneInfo

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj, get_path
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column
from navarch.kinds.batch.cron import schedule_problem
from navarch.kinds.batch.job import default_job_parts
from navarch.kinds.batch.job_validation import validate_job_spec
from navarch.kinds.rollout import WorkloadStrategy, validate_counts
from navarch.kinds.strategies import strategy

# A Job's name is the CronJob's with a dash and ten digits behind it, and must be at most 63 long.
_MAX_NAME = 63 - 11


@lru_cache(maxsize=64)
def _zone_problem(name: str) -> str:
    if name.lower() == "local":
        return "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return f"unknown time zone {name}"
    return ""


@strategy("batch", "CronJob")
class CronJobStrategy(WorkloadStrategy):
    pod_spec_path = "spec.jobTemplate.spec.template.spec"
    columns = (
        NAME,
        Column("Schedule", ".spec.schedule"),
        Column("Timezone", columns.text("spec.timeZone")),
        Column("Suspend", columns.flag("spec.suspend"), type="boolean"),
        Column("Active", lambda obj, now: len(get_path(obj, "status.active") or ()), type="integer"),
        Column("Last Schedule", columns.since("status.lastScheduleTime", "<none>")),
        AGE,
        *columns.pod_template_columns("spec.jobTemplate.spec.template.spec", "spec.jobTemplate.spec.selector"),
    )

    def complete(self, obj: Obj) -> None:
        obj["spec"]["jobTemplate"].setdefault("metadata", {})

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("concurrencyPolicy"):
            spec["concurrencyPolicy"] = "Allow"
        spec.setdefault("suspend", False)
        spec.setdefault("successfulJobsHistoryLimit", 3)
        spec.setdefault("failedJobsHistoryLimit", 1)
        job = spec.setdefault("jobTemplate", {})
        default_job_parts(job.setdefault("spec", {}))

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        if old is None and len(name := obj["metadata"].get("name") or "") > _MAX_NAME:
            yield invalid_value("metadata.name", name, f"must be no more than {_MAX_NAME} characters")
        spec = obj["spec"]
        yield from _validate_schedule(spec)
        yield from validate_counts(
            spec, ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
        )
        policy = spec.get("concurrencyPolicy")
        if not policy:
            yield required("spec.concurrencyPolicy")
        elif policy not in ("Allow", "Forbid", "Replace"):
            yield not_supported("spec.concurrencyPolicy", policy, ["Allow", "Forbid", "Replace"])
        job = (spec.get("jobTemplate") or {}).get("spec") or {}
        if job.get("manualSelector"):
            yield not_supported("spec.jobTemplate.spec.manualSelector", True, ["nil", "false"])
        yield from validate_job_spec(job, "spec.jobTemplate.spec", selector_required=False)


def _validate_schedule(spec: Obj) -> Iterator[FieldError]:
    schedule, zone = spec.get("schedule") or "", spec.get("timeZone")
    if not schedule:
        yield required("spec.schedule")
    elif "TZ" in schedule:
        yield invalid_value(
            "spec.schedule", schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        )
    elif problem := schedule_problem(schedule):
        yield invalid_value("spec.schedule", schedule, problem)
    if zone is None:
        return
    if not zone:
        yield invalid_value("spec.timeZone", zone, "timeZone must be nil or non-empty string")
    elif problem := _zone_problem(zone):
        yield invalid_value("spec.timeZone", zone, problem)
