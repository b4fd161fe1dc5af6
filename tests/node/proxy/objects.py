"""Services and EndpointSlices as the API has them, in as few words as a test needs."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]


def service(
    name: str = "web",
    ip: str = "10.43.0.100",
    *,
    ports: list[Obj] | None = None,
    namespace: str = "default",
    status: Obj | None = None,
    **spec: Any,
) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": "1"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ports": ports or [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            **spec,
        },
        **({"status": status} if status else {}),
    }


def endpoint(address: str, node: str = "here", **conditions: bool) -> Obj:
    return {
        "addresses": [address],
        "nodeName": node,
        "conditions": {"ready": True, "serving": True, "terminating": False, **conditions},
    }


def endpoint_slice(
    *endpoints: Obj, service: str = "web", suffix: str = "a", ports: list[Obj] | None = None, namespace: str = "default"
) -> Obj:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-{suffix}",
            "namespace": namespace,
            "resourceVersion": "1",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": ports or [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
