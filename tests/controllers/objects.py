"""Objects as tests write them: small, valid, with what a controller reads."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj


def deployment(name: str = "web", replicas: int = 3, **spec: Any) -> Obj:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": template(labels),
            **spec,
        },
    }


def template(labels: dict[str, str], image: str = "nginx:1", **spec: Any) -> Obj:
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": image}], **spec}}


def replica_set(name: str, replicas: int, available: int | None = None, **metadata: Any) -> Obj:
    available = replicas if available is None else available
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", **metadata},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template({})},
        "status": {"replicas": replicas, "availableReplicas": available, "readyReplicas": available},
    }


def job(name: str = "work", image: str = "ok", **spec: Any) -> Obj:
    pod = {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"metadata": {"labels": {"app": name}}, "spec": pod}, **spec},
    }


def daemon_set(name: str = "agent", image: str = "agent:1", **spec: Any) -> Obj:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}, "template": template(labels, image), **spec},
    }


def stateful_set(name: str = "db", replicas: int = 3, image: str = "db:1", **spec: Any) -> Obj:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": labels},
            "template": template(labels, image),
            **spec,
        },
    }


def service(name: str = "web", selector: dict[str, str] | None = None, **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80, "targetPort": 8080}], **({"selector": selector} if selector else {}), **spec},
    }
