"""`autoscaling/v1` HorizontalPodAutoscalers are stored as `autoscaling/v2`.

Version 1 knows one target, the mean CPU utilization. What else a version-2 object says travels through version 1 in
four annotations, as JSON in the flat metric form of the old API, so that a client of version 1 that writes back what it
read loses nothing. Both functions take and give whole objects and change neither their input nor what it shares.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.api.schema import Compiled, load

_PREFIX: Final = "autoscaling.alpha.kubernetes.io/"
_METRICS: Final = _PREFIX + "metrics"
_CURRENT: Final = _PREFIX + "current-metrics"
_CONDITIONS: Final = _PREFIX + "conditions"
_BEHAVIOR: Final = _PREFIX + "behavior"
ANNOTATIONS: Final = (_METRICS, _CURRENT, _CONDITIONS, _BEHAVIOR)
# Metric source → where its type keeps the parts in the flat form. (`resource` and `containerResource` have a name,
# the others a metric identifier.)
_SOURCES: Final = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def from_v2(obj: Obj) -> Obj:
    """The version-1 object that says the same."""
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    annotations: dict[str, str] = dict(obj["metadata"].get("annotations") or {})
    metrics = spec.pop("metrics", None) or []
    others = []
    for metric in metrics:
        utilization = _cpu_utilization(metric, "target", "averageUtilization")
        if utilization is not None and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = utilization
        else:
            others.append(_flat(metric, "target"))
    current = status.pop("currentMetrics", None) or []
    for metric in current:
        utilization = _cpu_utilization(metric, "current", "averageUtilization")
        if utilization is not None:
            status["currentCPUUtilizationPercentage"] = utilization
    _carry(annotations, _METRICS, others)
    _carry(annotations, _CURRENT, [_flat(metric, "current") for metric in current])
    _carry(annotations, _CONDITIONS, status.pop("conditions", None))
    _carry(annotations, _BEHAVIOR, spec.pop("behavior", None))
    if status:
        # Version 1 writes it also when there are none.
        status.setdefault("currentReplicas", 0)
    return _assembled(obj, "autoscaling/v1", annotations, spec, status)


def to_v2(obj: Obj) -> Obj:
    """The version-2 object that says the same."""
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    annotations: dict[str, str] = dict(obj["metadata"].get("annotations") or {})
    carried = {name: _carried(annotations.pop(name, "")) for name in ANNOTATIONS}
    metrics = _fitting("spec.metrics", _nested_all(carried[_METRICS], "target")) or []
    utilization = spec.pop("targetCPUUtilizationPercentage", None)
    if utilization is not None:
        target = {"type": "Utilization", "averageUtilization": utilization}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if metrics:
        spec["metrics"] = metrics
    if (behavior := _fitting("spec.behavior", carried[_BEHAVIOR])) is not None:
        spec["behavior"] = behavior
    current = _fitting("status.currentMetrics", _nested_all(carried[_CURRENT], "current")) or []
    if not status.get("currentReplicas"):
        status.pop("currentReplicas", None)
    utilization = status.pop("currentCPUUtilizationPercentage", None)
    if utilization is not None and not any(_cpu_utilization(m, "current", "averageUtilization") for m in current):
        now = {"averageUtilization": utilization}
        current.append({"type": "Resource", "resource": {"name": "cpu", "current": now}})
    if current:
        status["currentMetrics"] = current
    if conditions := _fitting("status.conditions", carried[_CONDITIONS]):
        status["conditions"] = conditions
    return _assembled(obj, "autoscaling/v2", annotations, spec, status)


def _assembled(obj: Obj, api_version: str, annotations: dict[str, str], spec: Obj, status: Obj) -> Obj:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "annotations"}
    if annotations:
        metadata["annotations"] = annotations
    parts = {name: part for name, part in (("spec", spec), ("status", status)) if part or name in obj}
    return {**obj, "apiVersion": api_version, "metadata": metadata, **parts}


def _cpu_utilization(metric: Obj, part: str, field: str) -> int | None:
    source = metric.get("resource") if metric.get("type") == "Resource" else None
    if not isinstance(source, dict) or source.get("name") != "cpu":
        return None
    utilization = (source.get(part) or {}).get(field)
    return utilization if isinstance(utilization, int) else None


def _carry(annotations: dict[str, str], name: str, value: Any) -> None:
    if value:
        annotations[name] = orjson.dumps(value).decode()


def _carried(text: str) -> Any:
    """What an annotation carries; None for one that does not parse, which Kubernetes ignores too."""
    try:
        return orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        return None


def _fitting(path: str, value: Any) -> Any:
    """What an annotation carries, as version 2 would take it at `path`; None where it would not, which Kubernetes
    ignores."""
    if value is None:
        return None
    part, field = path.split(".")
    holder: Obj = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", part: {field: value}}
    try:
        _schema().decode(holder)
    except StatusError:
        return None
    return holder[part].get(field)


@lru_cache(maxsize=1)
def _schema() -> Compiled:
    compiled = load().compile("io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler")
    assert compiled is not None
    return compiled


def _nested_all(metrics: Any, part: str) -> list[Obj] | None:
    """None where they are no metrics."""
    if not isinstance(metrics, list) or not all(map(_is_metric, metrics)):
        return None
    return [_nested(metric, part) for metric in metrics]


def _is_metric(metric: Any) -> bool:
    """Whether it has the shape of one; what is in it, the schema of version 2 says."""
    if not isinstance(metric, dict) or not isinstance(metric.get("type") or "", str):
        return False
    return isinstance(metric.get(_SOURCES.get(metric.get("type") or "", "")) or {}, dict)


def _flat(metric: Obj, part: str) -> Obj:
    """A version-2 metric (`part`: target or current) in the flat form: `target.averageValue` → `targetAverageValue`."""
    kind: str = metric.get("type") or ""
    if not kind:
        # The status of a metric that could not be had says nothing.
        return {"type": ""}
    source = metric.get(_SOURCES.get(kind, "")) or {}
    values = source.get(part) or {}
    flat: Obj = {key: source[key] for key in ("name", "container") if key in source}
    if "metric" in source:
        flat["metricName"] = source["metric"].get("name", "")
        if "selector" in source["metric"]:
            flat["metricSelector" if kind == "External" else "selector"] = source["metric"]["selector"]
    if "describedObject" in source:
        flat["target"] = source["describedObject"]
    for name, old in _flat_names(kind, part).items():
        if name in values:
            flat[old] = values[name]
    return {"type": kind, _SOURCES.get(kind, kind): flat}


def _nested(metric: Obj, part: str) -> Obj:
    """The inverse of `_flat`."""
    kind: str = metric.get("type") or ""
    if not kind:
        return {"type": ""}
    flat = metric.get(_SOURCES.get(kind, "")) or {}
    source: Obj = {key: flat[key] for key in ("name", "container") if key in flat}
    if "metricName" in flat:
        source["metric"] = {"name": flat["metricName"]}
        selector = flat.get("metricSelector") or flat.get("selector")
        if selector is not None:
            source["metric"]["selector"] = selector
    if "target" in flat:
        source["describedObject"] = flat["target"]
    values: Obj = {name: flat[old] for name, old in _flat_names(kind, part).items() if old in flat}
    if part == "target":
        values["type"] = next((_TARGET_TYPES[name] for name in _TARGET_TYPES if name in values), "AverageValue")
    source[part] = values
    return {"type": kind, _SOURCES.get(kind, kind): source}


_TARGET_TYPES: Final = {"averageUtilization": "Utilization", "averageValue": "AverageValue", "value": "Value"}


def _flat_names(kind: str, part: str) -> dict[str, str]:
    """Version-2 names of a metric's numbers with their names in the flat form."""
    names = {
        "averageUtilization": f"{part}AverageUtilization",
        "averageValue": f"{part}AverageValue",
        "value": f"{part}Value",
    }
    if kind == "Object":
        names["averageValue"] = "averageValue"
    return names
