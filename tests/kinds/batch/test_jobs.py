"""Job and CronJob: defaults, the generated selector, refusals, updates, tables."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from navarch.kinds.batch.cron import schedule_problem
from navarch.kinds.strategies import lookup
from tests.kinds.writing import CONTAINER, created, refused, row, updated

EXPLICIT = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"


def job(**spec: Any) -> Any:
    return {"spec": {"template": {"spec": {"containers": [dict(CONTAINER)], "restartPolicy": "Never"}}, **spec}}


def cronjob(**spec: Any) -> Any:
    return {"spec": {"schedule": "*/5 * * * *", "jobTemplate": job(), **spec}}


def test_job_defaults() -> None:
    obj, errors = created("batch", "Job", job())
    assert errors == []
    spec = {name: value for name, value in obj["spec"].items() if name not in ("template", "selector")}
    assert spec == {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed",
        "manualSelector": False,
    }


def test_a_job_with_parallelism_alone_is_a_work_queue() -> None:
    assert "completions" not in created("batch", "Job", job(parallelism=3))[0]["spec"]


def test_a_jobs_selector_is_generated_from_its_uid() -> None:
    obj = created("batch", "Job", job())[0]
    assert obj["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}
    labels = {
        "batch.kubernetes.io/controller-uid": "u-1",
        "batch.kubernetes.io/job-name": "web",
        "controller-uid": "u-1",
        "job-name": "web",
    }
    assert obj["spec"]["template"]["metadata"]["labels"] == labels
    lookup("batch", "Job").complete(obj)
    assert obj["metadata"]["labels"] == labels


def test_a_manual_selector_is_left_alone_and_must_match() -> None:
    obj = job(manualSelector=True, selector={"matchLabels": {"a": "b"}})
    assert "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`" in refused(
        "batch", "Job", obj
    )


def test_a_selector_of_ones_own_without_saying_so_is_refused() -> None:
    errors = refused("batch", "Job", job(selector={"matchLabels": {"a": "b"}}))
    assert any(error.endswith("`selector` not auto-generated") for error in errors)


def test_an_update_after_creation_passes_validation() -> None:
    old = created("batch", "Job", job(completions=5))[0]
    after, errors = updated("batch", "Job", old, {**old, "spec": {**old["spec"], "parallelism": 4}})
    assert errors == []
    assert after["spec"]["parallelism"] == 4


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"completions": -1}, "spec.completions: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"completionMode": "Indexed", "parallelism": 1},
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            {"template": {"spec": {"containers": [CONTAINER]}}},
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        ),
        (
            {"completionMode": "X"},
            'spec.completionMode: Unsupported value: "X": supported values: "NonIndexed", "Indexed"',
        ),
        (
            {"backoffLimitPerIndex": 1, "completions": 1},
            "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        ),
        (
            {"podFailurePolicy": {"rules": [{"action": "FailJob"}]}},
            "spec.podFailurePolicy.rules[0]: Invalid value: "
            "specifying one of OnExitCodes and OnPodConditions is required",
        ),
    ],
)
def test_what_is_refused_of_a_job(spec: Any, error: str) -> None:
    assert error in refused("batch", "Job", job(**spec))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"completions": 9}, "spec.completions"),
        ({"completionMode": "Indexed", "parallelism": 9}, "spec.completionMode"),
        ({"selector": {"matchLabels": {}}}, "spec.selector"),
    ],
)
def test_what_is_immutable_in_a_job(change: Any, field: str) -> None:
    old = created("batch", "Job", job(completions=5))[0]
    errors = updated("batch", "Job", old, {**old, "spec": {**copy.deepcopy(old["spec"]), **change}})[1]
    assert any(error.startswith(f"{field}: Invalid value") and "field is immutable" in error for error in errors)


@pytest.mark.parametrize(
    ("suspend", "started", "allowed"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_where_pods_run_may_change_only_before_a_suspended_job_starts(
    suspend: bool, started: bool, allowed: bool
) -> None:
    old = created("batch", "Job", job(suspend=suspend))[0]
    if started:
        old["status"] = {"startTime": "2026-01-01T00:00:00Z"}
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    errors = updated("batch", "Job", old, new)[1]
    assert errors == [] if allowed else any(error.startswith("spec.template: Invalid value") for error in errors)


_AT_REST: Any = [{"type": "Suspended", "status": "True"}]


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ({"conditions": _AT_REST}, {"nodeSelector", "resources"}),
        ({"conditions": _AT_REST, "startTime": "2026-01-01T00:00:00Z"}, {"nodeSelector", "resources"}),
        ({"conditions": _AT_REST, "startTime": "2026-01-01T00:00:00Z", "active": 1}, set()),
        # Its controller has not seen it yet.
        ({}, {"nodeSelector"}),
    ],
)
def test_where_the_pods_of_a_job_at_rest_run_and_what_they_get_may_change(status: Any, allowed: set[str]) -> None:
    old = {**created("batch", "Job", job(suspend=True))[0], "status": status}
    elsewhere, more = copy.deepcopy(old), copy.deepcopy(old)
    elsewhere["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    more["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "2"}}
    changes = {"nodeSelector": elsewhere, "resources": more}
    assert {name for name, new in changes.items() if updated("batch", "Job", old, new)[1] == []} == allowed


def test_a_jobs_image_is_immutable_even_while_it_is_suspended() -> None:
    old = created("batch", "Job", job(suspend=True))[0]
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    (error,) = updated("batch", "Job", old, new)[1]
    assert error.startswith("spec.template: Invalid value")


def test_an_indexed_job_scales_completions_and_parallelism_together() -> None:
    old = created("batch", "Job", job(completions=5, parallelism=5, completionMode="Indexed"))[0]
    both = {**old, "spec": {**old["spec"], "completions": 7, "parallelism": 7}}
    assert updated("batch", "Job", old, both)[1] == []
    one = {**old, "spec": {**old["spec"], "completions": 7}}
    assert updated("batch", "Job", old, one)[1] == [
        "spec.completions: Invalid value: 7: can only be modified in tandem with spec.parallelism"
    ]


def test_deleting_a_job_without_a_policy_leaves_its_pods() -> None:
    assert lookup("batch", "Job").default_propagation() == "Orphan"
    assert lookup("apps", "Deployment").default_propagation() == "Background"


@pytest.mark.parametrize(
    ("spec", "status", "cells"),
    [
        ({"completions": 5}, {}, ["web", "Running", "0/5", "", "24h"]),
        ({"parallelism": 3}, {"succeeded": 1}, ["web", "Running", "1/1 of 3", "", "24h"]),
        (
            {"completions": 1},
            {
                "succeeded": 1,
                "startTime": "2026-01-01T00:00:00Z",
                "completionTime": "2026-01-01T00:00:07Z",
                "conditions": [{"type": "Complete", "status": "True"}],
            },
            ["web", "Complete", "1/1", "7s", "24h"],
        ),
        ({}, {"conditions": [{"type": "Suspended", "status": "True"}]}, ["web", "Suspended", "0/1", "", "24h"]),
    ],
)
def test_the_table_of_jobs(spec: Any, status: Any, cells: Any) -> None:
    metadata = {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}
    assert row("batch", "Job", {"metadata": metadata, "spec": spec, "status": status}) == cells


def test_jobs_are_selected_by_their_successes() -> None:
    assert lookup("batch", "Job").field_value({"metadata": {}, "status": {"succeeded": 2}}, "status.successful") == "2"


def test_cronjob_defaults() -> None:
    obj, errors = created("batch", "CronJob", cronjob())
    assert errors == []
    spec = obj["spec"]
    assert (spec["concurrencyPolicy"], spec["suspend"]) == ("Allow", False)
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 1)
    assert spec["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"schedule": ""}, "spec.schedule: Required value"),
        ({"schedule": "* * *"}, 'spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]'),
        (
            {"schedule": "TZ=UTC * * * * *"},
            'spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, '
            "use timeZone field instead",
        ),
        ({"timeZone": "Mars/Base"}, 'spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base'),
        ({"timeZone": "Local"}, f'spec.timeZone: Invalid value: "Local": {EXPLICIT}'),
        (
            {"concurrencyPolicy": "Maybe"},
            'spec.concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace"',
        ),
    ],
)
def test_what_is_refused_of_a_cronjob(spec: Any, error: str) -> None:
    assert error in refused("batch", "CronJob", cronjob(**spec))


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("*/15 0-6,22 1 jan-mar MON-FRI", ""),
        ("@hourly", ""),
        ("@every 1h30m", ""),
        ("@sometimes", "unrecognized descriptor: @sometimes"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
    ],
)
def test_schedules(schedule: str, problem: str) -> None:
    assert schedule_problem(schedule) == problem


def test_the_table_of_cronjobs() -> None:
    obj = {"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}, **cronjob(suspend=False)}
    obj["status"] = {"active": [{}, {}], "lastScheduleTime": "2026-01-01T23:59:00Z"}
    assert row("batch", "CronJob", obj) == ["web", "*/5 * * * *", "<none>", "False", 2, "60s", "24h"]


def test_a_zone_that_is_not_even_spelt_as_the_machines_is_unknown_too() -> None:
    assert refused("batch", "CronJob", cronjob(timeZone="local")) == [
        f'spec.timeZone: Invalid value: "local": {EXPLICIT}',
        'spec.timeZone: Invalid value: "local": unknown time zone local',
    ]
    assert schedule_problem("TZ=Local * * * * *") == ""
