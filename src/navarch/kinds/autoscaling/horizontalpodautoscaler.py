"""HorizontalPodAutoscaler, in both of its versions: defaults, columns; what is wrong with one is in `rules`.

Version 1 states a target for CPU only; version 2, which is what is stored, has a list of metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError
from navarch.api.meta import Obj
from navarch.kinds import columns
from navarch.kinds.autoscaling.conversion import ANNOTATIONS, to_v2
from navarch.kinds.autoscaling.rules import SOURCES, validate_autoscaler
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.counts import validate_counts
from navarch.kinds.strategies import strategy

_DEFAULT_CPU_PERCENT: Final = 80
_V1_METRICS: Final = "autoscaling.alpha.kubernetes.io/metrics"


def _reference_cell(obj: Obj, now: datetime) -> str:
    target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


def _targets_cell(obj: Obj, now: datetime) -> str:
    if obj.get("apiVersion") == "autoscaling/v1":
        # What version 1 has no fields for is shown all the same.
        obj = to_v2(obj)
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
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
    field = SOURCES.get(metric.get("type", ""))
    if field is None:
        return "<unknown type>"
    wanted = (metric.get(field) or {}).get("target") or {}
    stated = current.get(field)
    is_now = (stated or {}).get("current") or {}
    # What somebody states without the value in question is Go's pointer to nothing.
    missing = "<unknown>" if stated is None else "<nil>"
    average = wanted.get("averageValue")
    if field in ("resource", "containerResource"):
        name = (metric.get(field) or {}).get("name", "")
        if average is not None:
            return f"{name}: {is_now.get('averageValue', missing)}/{average}"
        used, target = is_now.get("averageUtilization"), wanted.get("averageUtilization")
        return f"{name}: {_percent(used, '<unknown>')}/{_percent(target, '<auto>')}"
    if field == "pods":
        return f"{is_now.get('averageValue', missing)}/{'<nil>' if average is None else average}"
    if average is not None:
        return f"{is_now.get('averageValue', '<unknown>')}/{average} (avg)"
    return f"{is_now.get('value', missing)}/{wanted.get('value', '<nil>')}"


def _percent(value: int | None, missing: str) -> str:
    return missing if value is None else f"{value}%"


@strategy("autoscaling", "HorizontalPodAutoscaler")
class HorizontalPodAutoscalerStrategy(Strategy):
    columns = (
        NAME,
        Column("Reference", _reference_cell),
        Column("Targets", _targets_cell),
        Column("MinPods", columns.text("spec.minReplicas", "<unset>")),
        Column("MaxPods", columns.count("spec.maxReplicas")),
        Column("Replicas", columns.count("status.currentReplicas")),
        AGE,
    )
    fields_in_annotations = ANNOTATIONS
    gates = ("HPAScaleToZero",)

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
        return validate_autoscaler(obj, old, to_zero=bool(self.on))

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        yield from validate_counts(obj.get("status") or {}, ("currentReplicas", "desiredReplicas"), "status")


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
