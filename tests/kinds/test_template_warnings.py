"""When workloads are warned of what is odd in their pod templates: at first, and after changes that count."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from navarch.kinds.strategies import lookup
from tests.kinds.writing import CONTAINER, template, workload

NO_SELECTOR = [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]
SAID = "topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"


def said(group: str, kind: str, obj: Any, old: Any = None) -> list[str]:
    return list(lookup(group, kind).warnings(obj, old))


def generation(number: int, obj: Any) -> Any:
    return {**obj, "metadata": {"name": "web", "namespace": "default", "generation": number}}


@pytest.mark.parametrize(
    ("group", "kind", "spec", "at"),
    [
        ("apps", "Deployment", {"template": template(topologySpreadConstraints=NO_SELECTOR)}, "spec.template.spec"),
        ("apps", "ReplicaSet", {"template": template(topologySpreadConstraints=NO_SELECTOR)}, "spec.template.spec"),
        ("apps", "StatefulSet", {"template": template(topologySpreadConstraints=NO_SELECTOR)}, "spec.template.spec"),
        ("batch", "Job", {"template": template(topologySpreadConstraints=NO_SELECTOR)}, "spec.template.spec"),
        (
            "batch",
            "CronJob",
            {"jobTemplate": {"spec": {"template": template(topologySpreadConstraints=NO_SELECTOR)}}},
            "spec.jobTemplate.spec.template.spec",
        ),
        (
            "",
            "ReplicationController",
            {"template": template(topologySpreadConstraints=NO_SELECTOR)},
            "spec.template.spec",
        ),
    ],
)
def test_each_generation_is_warned_of_the_template_again(group: str, kind: str, spec: Any, at: str) -> None:
    first = generation(1, {"spec": spec})

    assert said(group, kind, first) == [f"{at}.{SAID}"]
    assert said(group, kind, generation(2, {"spec": spec}), first) == [f"{at}.{SAID}"]
    assert said(group, kind, first, first) == []


def test_a_daemon_set_is_warned_of_a_template_that_changed() -> None:
    first = generation(1, workload(template=template(topologySpreadConstraints=NO_SELECTOR)))
    moved = copy.deepcopy(first)
    moved["spec"]["template"]["spec"]["nodeSelector"] = {"a": "b"}

    assert said("apps", "DaemonSet", generation(2, first), first) == []
    assert said("apps", "DaemonSet", moved, first) == [f"spec.template.spec.{SAID}"]


def test_a_replication_controller_is_warned_of_the_template_that_was() -> None:
    first = generation(1, workload(template=template(topologySpreadConstraints=NO_SELECTOR)))
    mended = generation(2, workload(template=template()))

    assert said("", "ReplicationController", mended, first) == [f"spec.template.spec.{SAID}"]
    assert said("", "ReplicationController", first, mended) == []


def test_a_pod_template_is_warned_of_when_it_changes() -> None:
    first = generation(1, {"template": template(topologySpreadConstraints=NO_SELECTOR)})

    assert said("", "PodTemplate", first) == [f"template.spec.{SAID}"]
    assert said("", "PodTemplate", generation(2, first), first) == [f"template.spec.{SAID}"]
    assert said("", "PodTemplate", first, first) == []


def test_what_a_stateful_set_claims_and_keeps_is_warned_of_whenever_it_is_written() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1500m"}}}}
    odd = generation(1, workload(volumeClaimTemplates=[claim], revisionHistoryLimit=-1))
    half = 'resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer'
    kept = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"

    assert said("apps", "StatefulSet", odd) == [f"spec.volumeClaimTemplates[0].{half}", kept]
    assert said("apps", "StatefulSet", odd, odd) == [f"spec.volumeClaimTemplates[0].Spec.{half}", kept]


def test_a_cron_job_is_warned_of_what_its_jobs_would_be() -> None:
    many = {"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001}
    pods = {"spec": {"containers": [dict(CONTAINER)]}}
    obj = generation(1, {"spec": {"jobTemplate": {"spec": {**many, "template": pods}}}})

    (warning,) = said("batch", "CronJob", obj)

    assert warning.startswith("spec.jobTemplate.spec.completions: In Indexed Jobs with a number of completions higher")
