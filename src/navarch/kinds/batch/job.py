"""Job: defaults, the generated selector, columns; what is wrong with a Job's spec is in `job_validation`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from navarch.api.errors import FieldError
from navarch.api.meta import Obj, Resource, is_new_generation
from navarch.api.time import human_duration, parse_time
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column
from navarch.kinds.batch.job_changes import validate_job_status, validate_job_update
from navarch.kinds.batch.job_validation import validate_generated_selector, validate_job_spec, validate_pod_names
from navarch.kinds.core.pod_defaults import default_pod_template
from navarch.kinds.core.pod_prepare import prepare_template
from navarch.kinds.core.pod_warnings import name_warnings, pod_warnings
from navarch.kinds.counts import complete_conditions
from navarch.kinds.rollout import WorkloadStrategy
from navarch.kinds.strategies import strategy

_MAX_INT32: Final = 2**31 - 1
CONTROLLER_UID: Final = "batch.kubernetes.io/controller-uid"
JOB_NAME: Final = "batch.kubernetes.io/job-name"
# The names that these labels had before they got a prefix; pods carry both.
_LEGACY_CONTROLLER_UID: Final = "controller-uid"
_LEGACY_JOB_NAME: Final = "job-name"


def default_job_spec(spec: Obj) -> None:
    """Fill in the defaults of a Job's spec."""
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    default = spec.setdefault
    default("parallelism", 1)
    default("backoffLimit", _MAX_INT32 if spec.get("backoffLimitPerIndex") is not None else 6)
    default("completionMode", "NonIndexed")
    default("suspend", False)
    default("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
    default("manualSelector", False)
    default_job_parts(spec)


def default_job_parts(spec: Obj) -> None:
    """The defaults inside a Job's spec, which a CronJob's template has as well."""
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern.setdefault("status", "True")
    default_pod_template(spec.setdefault("template", {}))


def _status_cell(obj: Obj, now: datetime) -> str:
    true = {c.get("type") for c in (obj.get("status") or {}).get("conditions") or () if c.get("status") == "True"}
    for name in ("Complete", "Failed"):
        if name in true:
            return name
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for name in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if name in true:
            return name
    return "Running"


def _completions_cell(obj: Obj, now: datetime) -> str:
    spec, done = obj.get("spec") or {}, (obj.get("status") or {}).get("succeeded", 0)
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism", 0)
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration_cell(obj: Obj, now: datetime) -> str:
    status = obj.get("status") or {}
    if not status.get("startTime"):
        return ""
    end = parse_time(status["completionTime"]) if status.get("completionTime") else now
    return human_duration(end - parse_time(status["startTime"]))


def job_spec_warnings(spec: Obj, path: str) -> Iterator[str]:
    """Of a Job's spec, or of a CronJob's template of one."""
    completions, parallelism = spec.get("completions") or 0, spec.get("parallelism") or 0
    if spec.get("completionMode") == "Indexed" and completions > 100_000 and parallelism > 10_000:
        yield (
            f"{path}.completions: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism "
            "higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of "
            "indexes fail"
        )
    yield from pod_warnings(spec.get("template") or {}, f"{path}.template")


@strategy("batch", "Job")
class JobStrategy(WorkloadStrategy):
    has_generation = True
    selectable = ("status.successful",)
    selected_by = ("status.succeeded",)
    columns = (
        NAME,
        Column("Status", _status_cell, description="Status of the job."),
        Column("Completions", _completions_cell),
        Column("Duration", _duration_cell, description="Time required to complete the job."),
        AGE,
        *columns.pod_template_columns("spec.template.spec", "spec.selector"),
    )

    def defaults(self, obj: Obj) -> None:
        default_job_spec(obj.setdefault("spec", {}))
        _inherit_labels(obj)

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {}
        prepare_template(obj["spec"], on=self.on)
        spec = obj.setdefault("spec", {})
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        inherited = labels == obj["metadata"].get("labels")
        if inherited:
            # Inherited from the pods, and so to follow what is now added to theirs.
            obj["metadata"].pop("labels", None)
        if not spec.get("manualSelector"):
            _generate_selector(obj, spec)
        if labels and inherited:
            _inherit_labels(obj)

    def complete(self, obj: Obj) -> None:
        # Those of pods without labels of their own come with the first look at what is stored.
        _inherit_labels(obj)
        complete_conditions(obj, ("lastProbeTime", "lastTransitionTime"))

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        yield from validate_generated_selector(obj, old)
        yield from validate_job_spec(obj.get("spec") or {}, "spec", selector_required=True)
        yield from validate_pod_names(obj)
        if old is not None:
            # Kubernetes looks twice, and says everything twice.
            yield from validate_job_spec(obj.get("spec") or {}, "spec", selector_required=True)
            yield from validate_job_update(obj, old)

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return validate_job_status(obj, old)

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        if old is None:
            yield from name_warnings(obj)
        if old is None or is_new_generation(obj, old):
            yield from job_spec_warnings(obj.get("spec") or {}, "spec")

    def delete_warnings(self) -> Iterator[str]:
        yield (
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove "
            "them or set propagationPolicy=Orphan to suppress this warning"
        )

    def default_propagation(self) -> str:
        # Kept by Kubernetes for clients of old: a Job deleted without a policy leaves its pods behind.
        return "Orphan"

    def unknown_field(self, resource: Resource, field: str) -> str:
        return f'field label "{field}" not supported for Job'

    def field_value(self, obj: Obj, path: str) -> str:
        return str((obj.get("status") or {}).get("succeeded", 0))


def _inherit_labels(obj: Obj) -> None:
    """A Job without labels reads back with those of its pods."""
    labels: Any = (obj["spec"].get("template") or {}).get("metadata", {}).get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)


def _generate_selector(obj: Obj, spec: Obj) -> None:
    """Select the Job's pods by its uid, which pods of no other Job can carry."""
    metadata = obj["metadata"]
    uid, name = metadata.get("uid", ""), metadata.get("name", "")
    pod_metadata = spec.setdefault("template", {}).setdefault("metadata", {})
    labels = pod_metadata.get("labels") or {}
    wanted = {
        CONTROLLER_UID: uid,
        JOB_NAME: name,
        _LEGACY_CONTROLLER_UID: uid,
        _LEGACY_JOB_NAME: name,
    }
    # What the author set is kept, and validation refuses it where it is not what it must be.
    pod_metadata["labels"] = {**labels, **{key: value for key, value in wanted.items() if key not in labels}}
    selector = spec.get("selector") or {}
    spec["selector"] = {**selector, "matchLabels": {CONTROLLER_UID: uid, **(selector.get("matchLabels") or {})}}
