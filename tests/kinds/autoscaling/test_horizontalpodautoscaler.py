"""HorizontalPodAutoscaler in both versions."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kinds.writing import created, refused, row

GROUP, KIND = "autoscaling", "HorizontalPodAutoscaler"
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}


def hpa(version: str = "v2", **spec: Any) -> Any:
    return {"apiVersion": f"autoscaling/{version}", "spec": {"scaleTargetRef": TARGET, "maxReplicas": 5, **spec}}


def test_a_version_2_autoscaler_without_metrics_watches_cpu() -> None:
    obj, errors = created(GROUP, KIND, hpa())
    assert errors == []
    assert obj["spec"]["minReplicas"] == 1
    target = {"type": "Utilization", "averageUtilization": 80}
    assert obj["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]


def test_a_version_1_autoscaler_has_a_cpu_target() -> None:
    assert created(GROUP, KIND, hpa("v1"))[0]["spec"]["targetCPUUtilizationPercentage"] == 80


def test_a_stated_behavior_is_completed() -> None:
    behavior = created(GROUP, KIND, hpa(behavior={"scaleDown": {"stabilizationWindowSeconds": 5}}))[0]["spec"][
        "behavior"
    ]
    assert behavior["scaleDown"] == {
        "stabilizationWindowSeconds": 5,
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    }
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"minReplicas": 0}, "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"),
        ({"maxReplicas": 0}, "spec.maxReplicas: Required value: must be set and greater than 0"),
        ({"minReplicas": 6}, "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"),
        ({"scaleTargetRef": {"kind": "Deployment"}}, "spec.scaleTargetRef.name: Required value"),
        (
            {"metrics": [{"type": "Pods"}]},
            "spec.metrics[0].pods: Required value: must populate information for the given metric source",
        ),
    ],
)
def test_what_is_refused(spec: Any, error: str) -> None:
    assert error in refused(GROUP, KIND, hpa(**spec))


def test_the_table() -> None:
    obj = created(GROUP, KIND, hpa())[0]
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert row(GROUP, KIND, obj) == ["web", "Deployment/web", "cpu: <unknown>/80%", "1", 5, 0, "24h"]
    obj["status"] = {
        "currentReplicas": 2,
        "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}],
    }
    assert row(GROUP, KIND, obj)[2] == "cpu: 7%/80%"
