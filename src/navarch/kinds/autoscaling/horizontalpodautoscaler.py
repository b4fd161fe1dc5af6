"""HorizontalPodAutoscaler, in both of its versions: defaults, validation, columns.

Version 1 states a target for CPU only; version 2, which is what is stored, has a list of metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from navarch.api.errors import FieldError, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import path_segment_problems
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy

_DEFAULT_CPU_PERCENT: Final = 80
_SOURCES: Final = {
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "External": "external",
    "ContainerResource": "containerResource",
}
_V1_METRICS: Final = "autoscaling.alpha.kubernetes.io/metrics"


def _reference_cell(obj: Obj, now: datetime) -> str:
    target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


def _targets_cell(obj: Obj, now: datetime) -> str:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    if obj.get("apiVersion") == "autoscaling/v1":
        wanted, is_now = spec.get("targetCPUUtilizationPercentage"), status.get("currentCPUUtilizationPercentage")
        if wanted is None:
            return "<none>"
        return f"cpu: {'<unknown>' if is_now is None else f'{is_now}%'}/{wanted}%"
    metrics = spec.get("metrics") or []
    current = status.get("currentMetrics") or []
    if not metrics:
        return "<none>"
    shown = [_metric(metric, current[i] if i < len(current) else {}) for i, metric in enumerate(metrics)]
    if len(shown) > 2:
        return f"{', '.join(shown[:2])} + {len(shown) - 2} more..."
    return ", ".join(shown)


def _metric(metric: Obj, current: Obj) -> str:
    """One metric as `current/target`."""
    field = _SOURCES.get(metric.get("type", ""))
    if field is None:
        return "<unknown type>"
    wanted = (metric.get(field) or {}).get("target") or {}
    is_now = (current.get(field) or {}).get("current") or {}
    if wanted.get("averageUtilization") is not None:
        used = is_now.get("averageUtilization")
        text = f"{'<unknown>' if used is None else f'{used}%'}/{wanted['averageUtilization']}%"
    elif wanted.get("averageValue") is not None:
        suffix = " (avg)" if field in ("external", "object") else ""
        text = f"{is_now.get('averageValue', '<unknown>')}/{wanted['averageValue']}{suffix}"
    else:
        text = f"{is_now.get('value', '<unknown>')}/{wanted.get('value', '<auto>')}"
    return f"{metric[field].get('name', '')}: {text}" if field in ("resource", "containerResource") else text


@strategy("autoscaling", "HorizontalPodAutoscaler")
class HorizontalPodAutoscalerStrategy(Strategy):
    columns = (
        NAME,
        Column("Reference", _reference_cell),
        Column("Targets", _targets_cell),
        Column("MinPods", columns.text("spec.minReplicas", "<unset>")),
        Column("MaxPods", columns.count("spec.maxReplicas"), type="integer"),
        Column("Replicas", columns.count("status.currentReplicas"), type="integer"),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("minReplicas", 1)
        if obj.get("apiVersion") == "autoscaling/v1":
            annotations = (obj.get("metadata") or {}).get("annotations") or {}
            if "targetCPUUtilizationPercentage" not in spec and _V1_METRICS not in annotations:
                spec["targetCPUUtilizationPercentage"] = _DEFAULT_CPU_PERCENT
            return
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": _DEFAULT_CPU_PERCENT}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        if spec.get("behavior") is not None:
            _default_behavior(spec["behavior"])

    def complete(self, obj: Obj) -> None:
        if obj["apiVersion"] == "autoscaling/v1":
            obj.setdefault("status", {}).setdefault("currentReplicas", 0)
        else:
            obj.setdefault("status", {}).setdefault("currentMetrics", None)

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {"desiredReplicas": 0}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        least, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
        if least is not None and least < 1:
            yield invalid_value("spec.minReplicas", least, "must be greater than or equal to 1")
        if most < 1:
            yield invalid_value("spec.maxReplicas", most, "must be greater than 0")
        if least is not None and most < least:
            yield invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
        yield from _validate_target(spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef")
        for index, metric in enumerate(spec.get("metrics") or ()):
            yield from _validate_metric(metric, f"spec.metrics[{index}]")
        percent = spec.get("targetCPUUtilizationPercentage")
        if percent is not None and percent < 1:
            yield invalid_value("spec.targetCPUUtilizationPercentage", percent, "must be greater than 0")
        for name in ("scaleUp", "scaleDown"):
            rules = (spec.get("behavior") or {}).get(name)
            if rules is not None:
                yield from _validate_rules(rules, f"spec.behavior.{name}")


def _default_behavior(behavior: Obj) -> None:
    """Stated rules keep what they state and get the rest."""
    for name, window, policies in (
        (
            "scaleUp",
            0,
            [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ],
        ),
        ("scaleDown", None, [{"type": "Percent", "value": 100, "periodSeconds": 15}]),
    ):
        rules: Obj = behavior.setdefault(name, {})
        rules.setdefault("selectPolicy", "Max")
        if window is not None:
            rules.setdefault("stabilizationWindowSeconds", window)
        rules.setdefault("policies", policies)


def _validate_target(target: Obj, path: str) -> Iterator[FieldError]:
    for name in ("kind", "name"):
        value = target.get(name)
        if not value:
            yield required(f"{path}.{name}")
        else:
            for problem in path_segment_problems(value):
                yield invalid_value(f"{path}.{name}", value, problem)


def _validate_metric(metric: Obj, path: str) -> Iterator[FieldError]:
    kind = metric.get("type")
    if not kind:
        yield required(f"{path}.type", "must specify a metric source type")
        return
    field = _SOURCES.get(kind)
    if field is None:
        yield not_supported(f"{path}.type", kind, _SOURCES)
        return
    source = metric.get(field)
    if source is None:
        yield required(f"{path}.{field}", "must populate information for the given metric source")
        return
    if field in ("resource", "containerResource") and not source.get("name"):
        yield required(f"{path}.{field}.name", "must specify a resource name")
    if field == "containerResource" and not source.get("container"):
        yield required(f"{path}.{field}.container", "must specify a container")
    if field in ("pods", "object", "external") and not (source.get("metric") or {}).get("name"):
        yield required(f"{path}.{field}.metric.name", "must specify a metric name")
    yield from _validate_metric_target(source.get("target") or {}, f"{path}.{field}.target", field)


def _validate_metric_target(target: Obj, path: str, field: str) -> Iterator[FieldError]:
    kind: Any = target.get("type")
    if not kind:
        yield required(f"{path}.type", "must specify a metric target type")
    elif kind not in ("Utilization", "Value", "AverageValue"):
        detail = "must be either Utilization, Value, or AverageValue"
        yield invalid_value(f"{path}.type", kind, detail)
    used = target.get("averageUtilization")
    if used is not None and used < 1:
        yield invalid_value(f"{path}.averageUtilization", used, "must be greater than 0")
    if field in ("resource", "containerResource"):
        if used is None and target.get("averageValue") is None:
            detail = "must set either a target raw value or a target utilization"
            yield required(f"{path}.averageUtilization", detail)
        elif used is not None and target.get("averageValue") is not None:
            detail = "may not set both a target raw value and a target utilization"
            yield FieldError("FieldValueForbidden", f"{path}.averageValue", detail)
    elif field == "pods" and target.get("averageValue") is None:
        yield required(f"{path}.averageValue", "must specify a positive target averageValue")
    elif field in ("object", "external") and target.get("value") is None and target.get("averageValue") is None:
        detail = "must set either a target value for metric or a per-pod target"
        yield required(f"{path}.averageValue", detail)


def _validate_rules(rules: Obj, path: str) -> Iterator[FieldError]:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and not 0 <= window <= 3600:
        detail = "must be greater than or equal to zero" if window < 0 else "must be less than or equal to 3600"
        yield invalid_value(f"{path}.stabilizationWindowSeconds", window, detail)
    select = rules.get("selectPolicy")
    if select is not None and select not in ("Max", "Min", "Disabled"):
        yield not_supported(f"{path}.selectPolicy", select, ["Disabled", "Max", "Min"])
    policies = rules.get("policies") or []
    if not policies:
        yield required(f"{path}.policies", "must specify at least one Policy")
    for index, policy in enumerate(policies):
        at = f"{path}.policies[{index}]"
        if policy.get("type") not in ("Pods", "Percent"):
            yield not_supported(f"{at}.type", policy.get("type", ""), ["Percent", "Pods"])
        if (value := policy.get("value", 0)) <= 0:
            yield invalid_value(f"{at}.value", value, "must be greater than zero")
        period = policy.get("periodSeconds", 0)
        if period <= 0:
            yield invalid_value(f"{at}.periodSeconds", period, "must be greater than zero")
        elif period > 1800:
            yield invalid_value(f"{at}.periodSeconds", period, "must be less than or equal to 1800")
