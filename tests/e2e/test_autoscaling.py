"""`kubectl top` and `kubectl autoscale`, as people use them."""

from __future__ import annotations

import json
from typing import Any

from .conftest import Cluster

KEEPS_BUSY = {"sim.navarch.dev/cpu-usage": "90m", "sim.navarch.dev/memory-usage": "90Mi"}


def deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    requests = {"cpu": "100m", "memory": "100Mi"}
    containers = [{"name": each, "image": "x", "resources": {"requests": requests}} for each in ("main", "side")]
    template = {"metadata": {"labels": labels, "annotations": KEEPS_BUSY}, "spec": {"containers": containers}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def by_memory(name: str) -> dict[str, Any]:
    """Memory counts from its first figure on; a CPU is given half a minute to show what it does."""
    target = {"type": "Utilization", "averageUtilization": 30}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "memory", "target": target}}],
        },
    }


def test_what_pods_and_nodes_use_is_shown_and_scaled_by(simulated: Cluster, namespace: str) -> None:
    def kubectl(*arguments: str) -> str:
        return simulated.kubectl("-n", namespace, *arguments)

    simulated.apply(deployment("web"), by_memory("web"), deployment("shop"), namespace=namespace)
    assert "autoscaled" in kubectl("autoscale", "deployment", "shop", "--min=2", "--max=4", "--cpu-percent=50")

    rows = simulated.wait_until(lambda: kubectl("top", "pods", "-l", "app=web", "--containers", "--no-headers"), 60)

    assert {tuple(row.split()[1:]) for row in rows.splitlines()} == {("main", "90m", "90Mi"), ("side", "90m", "90Mi")}
    (pod, *_) = simulated.get("pods", "-n", namespace, "-l", "app=web")["items"]
    node = pod["spec"]["nodeName"]
    (used,) = [row.split() for row in simulated.kubectl("top", "nodes", "--no-headers").splitlines() if node in row]
    assert int(used[1].removesuffix("m")) >= 180
    text = simulated.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics/resource")
    assert f'container_cpu_usage_seconds_total{{container="side",namespace="{namespace}",pod="web-' in text

    kubectl("wait", "--for=jsonpath={.spec.replicas}=3", "deployment/web", "--timeout=60s")
    kubectl("wait", "--for=jsonpath={.spec.replicas}=2", "deployment/shop", "--timeout=60s")
    described = kubectl("describe", "hpa", "web")
    assert f"90% ({180 << 20}) / 30%" in described
    reason = "memory resource utilization (percentage of request) above target"
    assert f"New size: 3; reason: {reason}" in described
    old = json.loads(
        kubectl("get", "--raw", f"/apis/autoscaling/v1/namespaces/{namespace}/horizontalpodautoscalers/web")
    )
    assert "ValidMetricFound" in old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/conditions"]
