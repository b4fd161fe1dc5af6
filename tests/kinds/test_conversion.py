"""Kinds that are served in two versions and stored in one."""

from __future__ import annotations

import copy
from typing import Any

from navarch.kinds.autoscaling import conversion as autoscaling
from navarch.kinds.events import conversion as events


def test_an_event_of_the_events_group_is_stored_as_a_core_event_and_comes_back_unchanged() -> None:
    event: dict[str, Any] = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2024-05-01T12:00:00.000000Z",
        "reportingController": "c",
        "reportingInstance": "c-1",
        "action": "Pull",
        "reason": "Pulled",
        "regarding": {"kind": "Pod", "name": "p"},
        "related": {"kind": "Node", "name": "n"},
        "note": "pulled",
        "type": "Normal",
        "deprecatedCount": 2,
        "deprecatedFirstTimestamp": "2024-05-01T12:00:00Z",
        "deprecatedLastTimestamp": "2024-05-01T12:00:01Z",
        "deprecatedSource": {"component": "c"},
    }

    stored = events.to_core(event)

    assert (stored["apiVersion"], stored["involvedObject"]["name"], stored["message"]) == ("v1", "p", "pulled")
    assert (stored["count"], stored["reportingComponent"]) == (2, "c")
    assert events.from_core(stored) == event


def autoscaler(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "annotations": {"mine": "x"}},
        "spec": {
            "maxReplicas": 5,
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
            "metrics": metrics,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
        },
        "status": {
            "desiredReplicas": 2,
            "currentMetrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "40m"}},
                }
            ],
            "conditions": [{"type": "AbleToScale", "status": "True", "lastTransitionTime": None}],
        },
    }


CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
OTHERS: list[dict[str, Any]] = [
    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
    {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu",
            "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 5},
        },
    },
    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
    {
        "type": "Object",
        "object": {
            "describedObject": {"kind": "Ingress", "name": "i"},
            "metric": {"name": "rps", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "Value", "value": "100"},
        },
    },
    {
        "type": "External",
        "external": {
            "metric": {"name": "queue", "selector": {"matchLabels": {"q": "x"}}},
            "target": {"type": "AverageValue", "averageValue": "3"},
        },
    },
]


def test_version_1_shows_the_cpu_target() -> None:
    converted = autoscaling.from_v2(autoscaler([CPU]))

    assert converted["apiVersion"] == "autoscaling/v1"
    assert converted["spec"]["targetCPUUtilizationPercentage"] == 80
    assert converted["status"]["currentCPUUtilizationPercentage"] == 40
    assert "metrics" not in converted["spec"]


def test_version_1_loses_nothing_on_its_way_and_back() -> None:
    original = autoscaler([*OTHERS, CPU])
    before = copy.deepcopy(original)

    assert autoscaling.to_v2(autoscaling.from_v2(original)) == before
    assert original == before


def test_a_version_1_object_without_metrics_stays_without() -> None:
    plain = {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "w"},
        "spec": {"maxReplicas": 3},
    }
    converted = autoscaling.to_v2(plain)
    assert converted["spec"] == {"maxReplicas": 3}
    assert autoscaling.from_v2(converted) == plain
