"""Pods and containers, as little of them as the pure parts of the kubelet need."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Obj = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(*containers: Obj, **spec: Any) -> Obj:
    given = [{"image": "i", **container} for container in containers]
    metadata = {"name": "p", "namespace": "ns", "uid": "u", "generation": 1}
    return {"metadata": metadata, "spec": {"containers": given, **spec}, "status": {}}


def resources(requests: Obj | None = None, limits: Obj | None = None) -> Obj:
    return {"name": "c", "resources": {"requests": requests or {}, "limits": limits or {}}}
