"""What the tables of kinds show of odd objects: cells as Kubernetes prints them, where that is not what one expects."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kinds.writing import created, row

_METRIC = {
    "type": "Resource",
    "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
}
_PODS = {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}}
_QUEUE = {
    "type": "External",
    "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "30"}},
}
_OBJECT = {
    "type": "Object",
    "object": {
        "metric": {"name": "hits"},
        "describedObject": {"kind": "Ingress", "name": "web"},
        "target": {"type": "Value", "value": "10k"},
    },
}


def _hosts(*hosts: str) -> Any:
    return {"spec": {"rules": [{"host": host} if host else {} for host in hosts]}}


def _balanced(*points: Any, **spec: Any) -> Any:
    return {"spec": {"type": "LoadBalancer", **spec}, "status": {"loadBalancer": {"ingress": list(points)}}}


def _scaled(*metrics: Any, current: Any = ()) -> Any:
    return {"spec": {"metrics": list(metrics)}, "status": {"currentMetrics": list(current)}}


def _ready(*states: str) -> Any:
    return {"status": {"conditions": [{"type": "Ready", "status": state} for state in states]}}


@pytest.mark.parametrize(
    ("kind", "column", "obj", "cell"),
    [
        # Rules without a host count among those beyond the third, and are not shown.
        ("Ingress.networking.k8s.io", 2, _hosts("a", "", "b"), "a,b"),
        ("Ingress.networking.k8s.io", 2, _hosts("", ""), "*"),
        ("Ingress.networking.k8s.io", 2, _hosts("a", "b", "c"), "a,b,c"),
        ("Ingress.networking.k8s.io", 2, _hosts("", "a", "b", "c"), "a,b,c"),
        ("Ingress.networking.k8s.io", 2, _hosts("a", "b", "c", ""), "a,b,c + 1 more..."),
        ("Ingress.networking.k8s.io", 2, _hosts("a", "", "b", "c", "d"), "a,b,c + 2 more..."),
        # A load balancer's addresses are a set in order; the service's own follow.
        ("Service", 3, _balanced({"ip": "9.9.9.9"}, {"hostname": "lb.x"}, {"ip": "1.1.1.1"}), "1.1.1.1,9.9.9.9,lb.x"),
        ("Service", 3, _balanced({"ip": "9.9.9.9"}, {"ip": "9.9.9.9"}, externalIPs=["1.1.1.1"]), "9.9.9.9,1.1.1.1"),
        ("Service", 3, _balanced(externalIPs=["1.1.1.1"]), "1.1.1.1"),
        ("Service", 3, _balanced({}), "<pending>"),
        # Addresses that are not ready are none to show, but not nothing at all.
        ("Endpoints", 1, {"subsets": [{"notReadyAddresses": [{"ip": "1.1.1.1"}], "ports": [{"port": 1}]}]}, ""),
        ("Endpoints", 1, {"subsets": []}, "<none>"),
        ("EndpointSlice.discovery.k8s.io", 2, {"ports": [{"name": "", "protocol": "TCP"}]}, "<unset>"),
        ("EndpointSlice.discovery.k8s.io", 2, {"ports": [{"name": "all"}, {"name": "", "port": 80}]}, "all,80"),
        ("EndpointSlice.discovery.k8s.io", 2, {"ports": [{}]}, "*"),
        ("Node", 1, {**_ready("True", "False"), "spec": {"unschedulable": True}}, "NotReady,SchedulingDisabled"),
        ("Node", 1, {}, "Unknown"),
        ("HorizontalPodAutoscaler.autoscaling", 2, _scaled(_METRIC), "memory: <unknown>/1Gi"),
        ("HorizontalPodAutoscaler.autoscaling", 2, _scaled(_METRIC, current=[{"resource": {}}]), "memory: <nil>/1Gi"),
        ("HorizontalPodAutoscaler.autoscaling", 2, _scaled(_PODS, current=[{"pods": {}}]), "<nil>/5"),
        ("HorizontalPodAutoscaler.autoscaling", 2, _scaled(_PODS), "<unknown>/5"),
        ("HorizontalPodAutoscaler.autoscaling", 2, _scaled(_QUEUE, current=[{"external": {}}]), "<unknown>/30 (avg)"),
        ("HorizontalPodAutoscaler.autoscaling", 2, _scaled(_OBJECT), "<unknown>/10k"),
        ("HorizontalPodAutoscaler.autoscaling", 2, _scaled(_OBJECT, current=[{"object": {}}]), "<nil>/10k"),
        ("HorizontalPodAutoscaler.autoscaling", 2, _scaled({"type": "Moon"}), "<unknown type>"),
        (
            "HorizontalPodAutoscaler.autoscaling",
            2,
            _scaled(_PODS, _QUEUE, _OBJECT),
            "<unknown>/5, <unknown>/30 (avg) + 1 more...",
        ),
        ("DeviceTaintRule.resource.k8s.io", 1, {"spec": {"taint": {"key": "k", "effect": "NoExecute"}}}, "k"),
        ("DeviceTaintRule.resource.k8s.io", 4, {"spec": {"taint": {"key": "k", "effect": "NoExecute"}}}, ""),
    ],
)
def test_a_cell(kind: str, column: int, obj: Any, cell: Any) -> None:
    name, _, group = kind.partition(".")
    metadata = {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}
    assert row(group, name, {"spec": {}, **obj, "metadata": metadata}, wide=True)[column] == cell


def test_version_1_of_an_autoscaler_shows_all_that_version_2_does() -> None:
    memory = '[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}}]'
    metadata = {
        "name": "x",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"autoscaling.alpha.kubernetes.io/metrics": memory},
    }
    spec = {"targetCPUUtilizationPercentage": 50, "maxReplicas": 3}
    obj = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}
    cells = row("autoscaling", "HorizontalPodAutoscaler", obj)
    assert cells[2] == "memory: <unknown>/1Gi, cpu: <unknown>/50%"


def test_a_namespace_without_a_name_is_no_failure_of_the_server() -> None:
    stored, _ = created("", "Namespace", {"metadata": {}})
    assert "labels" not in stored["metadata"]
