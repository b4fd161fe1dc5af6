"""CronJob: defaults, validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj, get_path, is_new_generation
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column
from navarch.kinds.batch.cron import schedule_problem, zone_problem
from navarch.kinds.batch.job import default_job_parts, job_spec_warnings
from navarch.kinds.batch.job_validation import validate_job_spec
from navarch.kinds.core.pod_prepare import prepare_template
from navarch.kinds.core.pod_warnings import name_warnings
from navarch.kinds.counts import validate_counts
from navarch.kinds.rollout import WorkloadStrategy
from navarch.kinds.strategies import strategy

# A Job's name is the CronJob's with a dash and ten digits behind it, and must be at most 63 long.
_MAX_NAME = 63 - 11
_EXPLICIT_ZONE = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
_ZONE_IN_SCHEDULE = (
    "CRON_TZ or TZ used in spec.schedule is not officially supported, see "
    "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
)


@strategy("batch", "CronJob")
class CronJobStrategy(WorkloadStrategy):
    template_path = "spec.jobTemplate.spec.template"
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
        prepare_template(obj["spec"]["jobTemplate"]["spec"], on=self.on)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        before = old["spec"] if old is not None else {}
        yield from _validate_schedule(spec, in_use="TZ" in (before.get("schedule") or ""))
        yield from validate_counts(spec, ("startingDeadlineSeconds",))
        if old is None or spec.get("timeZone") != before.get("timeZone"):
            yield from _validate_zone(spec.get("timeZone"))
        policy = spec.get("concurrencyPolicy")
        if not policy:
            yield required("spec.concurrencyPolicy")
        elif policy not in ("Allow", "Forbid", "Replace"):
            yield not_supported("spec.concurrencyPolicy", policy, ["Allow", "Forbid", "Replace"])
        job = (spec.get("jobTemplate") or {}).get("spec") or {}
        yield from validate_job_spec(job, "spec.jobTemplate.spec", selector_required=False)
        if (selector := job.get("selector")) is not None:
            yield invalid_value("spec.jobTemplate.spec.selector", selector, "`selector` will be auto-generated")
        if job.get("manualSelector"):
            yield not_supported("spec.jobTemplate.spec.manualSelector", True, ["nil", "false"])
        yield from validate_counts(spec, ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"))
        if old is None and len(name := obj["metadata"].get("name") or "") > _MAX_NAME:
            yield invalid_value("metadata.name", name, f"must be no more than {_MAX_NAME} characters")

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        if old is None:
            yield from name_warnings(obj)
        if old is None or is_new_generation(obj, old):
            yield from job_spec_warnings(obj["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec")
        if "TZ" in (obj["spec"].get("schedule") or ""):
            yield _ZONE_IN_SCHEDULE


def _validate_schedule(spec: Obj, *, in_use: bool) -> Iterator[FieldError]:
    """`in_use`: what is stored says its zone in the schedule, and may go on doing so."""
    schedule = spec.get("schedule") or ""
    if not schedule:
        yield required("spec.schedule")
        return
    if problem := schedule_problem(schedule):
        yield invalid_value("spec.schedule", schedule, problem)
    if "TZ" not in schedule:
        return
    if not in_use:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        yield invalid_value("spec.schedule", schedule, detail)
    elif spec.get("timeZone") is not None:
        detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        yield invalid_value("spec.schedule", schedule, detail)


def _validate_zone(zone: str | None) -> Iterator[FieldError]:
    if zone is None:
        return
    if not zone:
        yield invalid_value("spec.timeZone", zone, "timeZone must be nil or non-empty string")
        return
    if zone.lower() == "local":
        yield invalid_value("spec.timeZone", zone, _EXPLICIT_ZONE)
    if problem := zone_problem(zone):
        yield invalid_value("spec.timeZone", zone, problem)
