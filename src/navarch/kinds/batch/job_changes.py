"""What may not change about a Job, and what is wrong with its status.

Invariant worth knowing: a Job's template may change only while the Job is suspended and has no pods, and then only in
what says where its pods may run and, once its controller has seen that it is suspended, what they get. A status is
looked at only where it changed, as in Kubernetes: what was once stored may be said again.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Final

from navarch.api.errors import FieldError, duplicate, invalid_value, invalid_whole, required
from navarch.api.meta import Obj
from navarch.api.time import parse_time
from navarch.api.validation import validate_immutable
from navarch.kinds.batch.indexes import common_index, interval_problem_and_count
from navarch.kinds.counts import validate_counts
from navarch.kinds.internal import immutable_internal, internal

_STATUS_COUNTS: Final = ("active", "succeeded", "failed", "ready", "terminating")
_FIXED: Final = {
    "completionMode": "",
    "podFailurePolicy": "PodFailurePolicy",
    "backoffLimitPerIndex": "",
    "managedBy": "",
    "successPolicy": "SuccessPolicy",
}


def validate_job_update(obj: Obj, old: Obj) -> Iterator[FieldError]:
    """What may not change once a Job is there."""
    spec, before = obj["spec"], old["spec"]
    yield from _validate_completions_update(spec, before)
    yield from validate_immutable(spec.get("selector"), before.get("selector"), "spec.selector")
    yield from _validate_template_update(spec, before, old)
    for name, kind in _FIXED.items():
        yield from immutable_internal(spec.get(name), before.get(name), f"spec.{name}", kind)


def _validate_completions_update(spec: Obj, before: Obj) -> Iterator[FieldError]:
    """Only an Indexed Job grows and shrinks, and then as a whole."""
    completions, path = spec.get("completions"), "spec.completions"
    if spec.get("completionMode") != "Indexed":
        yield from validate_immutable(completions, before.get("completions"), path)
    elif completions is None:
        yield required(path, "when completion mode is Indexed")
    elif completions != before.get("completions") and completions != spec.get("parallelism"):
        yield invalid_value(path, completions, "can only be modified in tandem with spec.parallelism")


def _validate_template_update(spec: Obj, before: Obj, old: Obj) -> Iterator[FieldError]:
    template, was = spec.get("template") or {}, before.get("template") or {}
    if template == was:
        return
    if before.get("suspend"):
        status = _Status(old)
        # At rest: its controller has seen that it is suspended, and its last pod is gone.
        at_rest = "Suspended" in status.true and not status.count("active")
        if at_rest or not status.fields.get("startTime"):
            if _without_placement(template, amounts=at_rest) == _without_placement(was, amounts=at_rest):
                return
    yield from immutable_internal(template, was, "spec.template", "PodTemplateSpec")


def _without_placement(template: Obj, *, amounts: bool) -> Obj:
    """A template without what a suspended Job may still change: where its pods run, what they are labelled, and, where
    `amounts` says so, what its containers get."""
    rest = deepcopy(template)
    for name in ("labels", "annotations"):
        rest.get("metadata", {}).pop(name, None)
    pod_spec = rest.get("spec") or {}
    for name in ("nodeSelector", "tolerations", "schedulingGates"):
        pod_spec.pop(name, None)
    (pod_spec.get("affinity") or {}).pop("nodeAffinity", None)
    if not pod_spec.get("affinity"):
        pod_spec.pop("affinity", None)
    for field in ("containers", "initContainers") if amounts else ():
        for container in pod_spec.get(field) or ():
            container.pop("resources", None)
    return rest


class _Status:
    """A Job's status, before or after a change, as far as the rules ask."""

    def __init__(self, job: Obj) -> None:
        self.fields: Obj = job.get("status") or {}
        conditions = self.fields.get("conditions") or ()
        self.true = {c.get("type") for c in conditions if c.get("status") == "True"}

    @property
    def finished(self) -> bool:
        return not self.true.isdisjoint(("Complete", "Failed"))

    def count(self, name: str) -> int:
        return self.fields.get(name) or 0

    def has_uncounted(self) -> bool:
        return any((self.fields.get("uncountedTerminatedPods") or {}).values())


def validate_job_status(obj: Obj, old: Obj) -> Iterator[FieldError]:
    now, before = _Status(obj), _Status(old)
    yield from validate_counts(now.fields, _STATUS_COUNTS, "status")
    yield from _validate_uncounted(now.fields.get("uncountedTerminatedPods") or {})
    yield from _validate_ending(now, before)
    yield from _validate_finished(now, before)
    yield from _validate_indexes(obj.get("spec") or {}, now, before)
    yield from _validate_pods(now, before)
    yield from _validate_success(obj.get("spec") or {}, now)
    yield from _validate_course(obj.get("spec") or {}, now, before)


def _validate_uncounted(pods: Obj) -> Iterator[FieldError]:
    for name in ("succeeded", "failed"):
        seen: set[str] = set()
        for index, uid in enumerate(pods.get(name) or ()):
            at = f"status.uncountedTerminatedPods.{name}[{index}]"
            if not uid:
                yield invalid_value(at, uid, "must not be empty")
            elif uid in seen:
                yield duplicate(at, uid)
            seen.add(uid)


_TOGETHER: Final = (
    ("Complete", "Failed", "cannot set Complete=True and Failed=true conditions"),
    ("Complete", "FailureTarget", "cannot set Complete=True and FailureTarget=true conditions"),
)
_BEFORE: Final = (
    ("Failed", "FailureTarget", "cannot set Failed=True condition without the FailureTarget=true condition"),
    (
        "Complete",
        "SuccessCriteriaMet",
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    ),
)


def _validate_ending(now: _Status, before: _Status) -> Iterator[FieldError]:
    """Conditions that say how a Job ended, and when."""
    changed = now.true ^ before.true
    for one, other, detail in _TOGETHER:
        if not changed.isdisjoint((one, other)) and {one, other} <= now.true:
            yield invalid_whole("status.conditions", detail)
    end, start = now.fields.get("completionTime"), now.fields.get("startTime")
    end_changed = end != before.fields.get("completionTime")
    if "Complete" in changed or end_changed:
        if end and "Complete" not in now.true:
            detail = "cannot set completionTime when there is no Complete=True condition"
            yield invalid_value("status.completionTime", end, detail)
        if not end and "Complete" in now.true:
            yield required("status.completionTime", "completionTime is required for Complete jobs")
    if (end_changed or start != before.fields.get("startTime")) and end and start:
        if parse_time(end) < parse_time(start):
            yield invalid_value("status.completionTime", end, "completionTime cannot be set before startTime")
    for one, other, detail in _BEFORE:
        if not changed.isdisjoint((one, other)) and one in now.true and other not in now.true:
            yield invalid_whole("status.conditions", detail)


def _validate_finished(now: _Status, before: _Status) -> Iterator[FieldError]:
    """A Job that is done has no pods left to count."""
    ended = now.finished != before.finished
    if now.finished:
        active, fields = now.count("active"), now.fields
        if (ended or active != before.count("active")) and active > 0:
            yield invalid_value("status.active", active, "active>0 is invalid for finished job")
        if (ended or before.fields.get("startTime")) and not fields.get("startTime"):
            yield required("status.startTime", "startTime is required for finished job")
        uncounted = fields.get("uncountedTerminatedPods")
        if (ended or uncounted != before.fields.get("uncountedTerminatedPods")) and now.has_uncounted():
            shown = internal(uncounted, "UncountedTerminatedPods")
            detail = "uncountedTerminatedPods needs to be empty for finished job"
            yield invalid_value("status.uncountedTerminatedPods", shown, detail)


def _validate_indexes(spec: Obj, now: _Status, before: _Status) -> Iterator[FieldError]:
    done, failed = (now.fields.get(name) for name in ("completedIndexes", "failedIndexes"))
    done_changed = (done or "") != (before.fields.get("completedIndexes") or "")
    failed_changed = failed != before.fields.get("failedIndexes")
    completions, per_index = spec.get("completions"), spec.get("backoffLimitPerIndex")
    if done_changed and completions is not None:
        problem, _ = interval_problem_and_count(done or "", completions)
        if problem:
            yield invalid_value("status.completedIndexes", done, f"error parsing completedIndexes: {problem}")
    if failed_changed and failed is not None and completions is not None and per_index is not None:
        problem, _ = interval_problem_and_count(failed, completions)
        if problem:
            yield invalid_value("status.failedIndexes", failed, f"error parsing failedIndexes: {problem}")
    if done_changed and done and spec.get("completionMode") != "Indexed":
        detail = "cannot set non-empty completedIndexes when non-indexed completion mode"
        yield invalid_value("status.completedIndexes", done, detail)
    if failed_changed and failed is not None and per_index is None:
        detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        yield invalid_value("status.failedIndexes", failed, detail)
    if (done_changed or failed_changed) and failed and done and completions is not None:
        if (index := common_index(failed, done, completions)) is not None:
            detail = f"failedIndexes and completedIndexes overlap at index: {index}"
            yield invalid_value("status.failedIndexes", failed, detail)


def _validate_pods(now: _Status, before: _Status) -> Iterator[FieldError]:
    """Of the pods that there are: none ends any more once the Job is done, and none is ready that is not active."""
    terminating, ended = now.count("terminating"), now.finished != before.finished
    if now.finished and (ended or terminating != before.count("terminating")) and terminating > 0:
        yield invalid_value("status.terminating", terminating, "terminating>0 is invalid for finished job")
    ready, active = now.count("ready"), now.count("active")
    changed = (ready, active) != (before.count("ready"), before.count("active"))
    if changed and now.fields.get("ready") is not None and ready > active:
        yield invalid_value("status.ready", ready, "cannot set more ready pods than active")


def _validate_success(spec: Obj, now: _Status) -> Iterator[FieldError]:
    """A Job whose criteria are met does not fail, and one with a policy is complete by nothing else."""
    met = "SuccessCriteriaMet" in now.true
    for other, shown in (("Failed", "Failed=true"), ("FailureTarget", "FailureTarget=true")):
        if met and other in now.true:
            yield invalid_whole("status.conditions", f"cannot set SuccessCriteriaMet=True and {shown} conditions")
    if spec.get("successPolicy") is not None and not met and "Complete" in now.true:
        detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"
        yield invalid_whole("status.conditions", detail)


def _validate_course(spec: Obj, now: _Status, before: _Status) -> Iterator[FieldError]:
    """What only goes one way."""
    for name in ("Failed", "Complete", "FailureTarget"):
        if name in before.true and name not in now.true:
            yield invalid_whole("status.conditions", f"cannot disable the terminal {name}=True condition")
    if now.count("failed") < before.count("failed"):
        yield invalid_value("status.failed", now.count("failed"), "cannot decrease the failed counter")
    # Who takes an Indexed Job's last indexes away takes their successes with them.
    grows_only = spec.get("completionMode") != "Indexed" or spec.get("completions") != spec.get("parallelism")
    if grows_only and now.count("succeeded") < before.count("succeeded"):
        yield invalid_value("status.succeeded", now.count("succeeded"), "cannot decrease the succeeded counter")
    end, ended = now.fields.get("completionTime"), before.fields.get("completionTime")
    if end and ended and end != ended:
        yield invalid_value("status.completionTime", end, "completionTime cannot be mutated")
    start, started = now.fields.get("startTime"), before.fields.get("startTime")
    if started and start != started and not spec.get("suspend"):
        if not start:
            yield required("status.startTime", "startTime cannot be removed for unsuspended job")
        else:
            yield invalid_value("status.startTime", start, "startTime cannot be modified for unsuspended job")
    met, was_met = ("SuccessCriteriaMet" in status.true for status in (now, before))
    if was_met and not met:
        yield invalid_whole("status.conditions", "cannot disable the SuccessCriteriaMet=True condition")
    if "Complete" in before.true and met and not was_met:
        detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"
        yield invalid_whole("status.conditions", detail)
