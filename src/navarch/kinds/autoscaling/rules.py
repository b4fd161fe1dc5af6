"""What is wrong with a HorizontalPodAutoscaler.

In: an object of version 2, as which both versions are stored, with its defaults.  Out: `FieldError`s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.quantity import parse
from navarch.api.validation import validate_dns_label, validate_path_segment

# In the order in which Kubernetes looks at them.
SOURCES: Final = {
    "Object": "object",
    "External": "external",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
_KINDS: Final = tuple(sorted(SOURCES))
_OF_PODS: Final = ("resource", "containerResource")
_MAX_WINDOW_S: Final = 3600
_MAX_PERIOD_S: Final = 1800


def validate_autoscaler(obj: Obj, old: Obj | None, *, to_zero: bool = False) -> Iterator[FieldError]:
    """`to_zero`: whether it may let go of all pods."""
    spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    # Else none at all is for those that once had it.
    lowest = 0 if to_zero or before.get("minReplicas") == 0 else 1
    if least is not None and least < lowest:
        yield invalid_value("spec.minReplicas", least, f"must be greater than or equal to {lowest}")
    if most == 0:
        yield required("spec.maxReplicas", "must be set and greater than 0")
    elif most < 0:
        yield invalid_value("spec.maxReplicas", most, "must be greater than 0")
    if least is not None and most < least:
        yield invalid_value("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    target = spec.get("scaleTargetRef") or {}
    yield from _validate_target(target, "spec.scaleTargetRef")
    if target != before.get("scaleTargetRef"):
        yield from _validate_version(target, "spec.scaleTargetRef.apiVersion", group=True)
    metrics = spec.get("metrics") or ()
    for index, metric in enumerate(metrics):
        yield from _validate_metric(metric, f"spec.metrics[{index}]")
    if least == 0 and not any(metric.get("type") in ("Object", "External") for metric in metrics):
        detail = "must specify at least one Object or External metric to support scaling to zero replicas"
        yield forbidden_field("spec.metrics", detail)
    for name in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(name)
        if rules is not None:
            yield from _validate_rules(rules, f"spec.behavior.{name}")


def _validate_target(target: Obj, path: str) -> Iterator[FieldError]:
    for name in ("kind", "name"):
        yield from validate_path_segment(target.get(name) or "", f"{path}.{name}")


def _validate_version(target: Obj, path: str, *, group: bool) -> Iterator[FieldError]:
    """`group`: whether the version must be one of a group, as all are that can be scaled but for one of old."""
    version = target.get("apiVersion") or ""
    if version.count("/") > 1:
        yield invalid_value(path, version, f"unexpected GroupVersion string: {version}")
    elif group and not version.rpartition("/")[0] and target.get("kind") != "ReplicationController":
        yield invalid_value(path, version, "apiVersion must specify API group")


def _validate_metric(metric: Obj, path: str) -> Iterator[FieldError]:
    kind = metric.get("type") or ""
    if not kind:
        yield required(f"{path}.type", "must specify a metric source type")
    if kind not in SOURCES:
        yield not_supported(f"{path}.type", kind, _KINDS)
    present = [field for field in SOURCES.values() if metric.get(field) is not None]
    if present:
        # Only the first of several is looked into.
        yield from _validate_source(metric[present[0]], present[0], f"{path}.{present[0]}")
    expected = SOURCES.get(kind)
    if expected is None:
        yield not_supported(f"{path}.type", kind, _KINDS)
    elif expected not in present:
        yield required(f"{path}.{expected}", "must populate information for the given metric source")
    if len(present) > 1:
        for field in present:
            if field != expected:
                yield forbidden_field(f"{path}.{field}", "must populate the given metric source only")


def _validate_source(source: Obj, field: str, path: str) -> Iterator[FieldError]:
    if field == "object":
        described = source.get("describedObject") or {}
        yield from _validate_target(described, f"{path}.describedObject")
        yield from _validate_version(described, f"{path}.describedObject.apiVersion", group=False)
    if field in _OF_PODS:
        if not source.get("name"):
            yield required(f"{path}.name", "must specify a resource name")
        if field == "containerResource":
            yield from _validate_container(source.get("container") or "", f"{path}.container")
    else:
        name = (source.get("metric") or {}).get("name") or ""
        yield from validate_path_segment(name, f"{path}.metric.name", "must specify a metric name")
    target = source.get("target") or {}
    yield from _validate_metric_target(target, f"{path}.target")
    yield from _validate_amounts(target, f"{path}.target", field)


def _validate_container(name: str, path: str) -> Iterator[FieldError]:
    if not name:
        yield required(path, "must specify a container")
    else:
        yield from validate_dns_label(name, path)


def _validate_metric_target(target: Obj, path: str) -> Iterator[FieldError]:
    kind: Any = target.get("type") or ""
    if not kind:
        yield required(f"{path}.type", "must specify a metric target type")
    if kind not in ("Utilization", "Value", "AverageValue"):
        yield invalid_value(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue")
    for name in ("value", "averageValue"):
        if (amount := target.get(name)) is not None and parse(amount) <= 0:
            yield invalid_value(f"{path}.{name}", amount, "must be positive")
    used = target.get("averageUtilization")
    if used is not None and used < 1:
        yield invalid_value(f"{path}.averageUtilization", used, "must be greater than 0")


def _validate_amounts(target: Obj, path: str, field: str) -> Iterator[FieldError]:
    """Which of the target's amounts a source has."""
    value, average = target.get("value"), target.get("averageValue")
    if field in _OF_PODS:
        used = target.get("averageUtilization")
        if used is None and average is None:
            detail = "must set either a target raw value or a target utilization"
            yield required(f"{path}.averageUtilization", detail)
        elif used is not None and average is not None:
            detail = "may not set both a target raw value and a target utilization"
            yield forbidden_field(f"{path}.averageValue", detail)
    elif field == "pods":
        if average is None or parse(average) <= 0:
            yield required(f"{path}.averageValue", "must specify a positive target averageValue")
    elif value is None and average is None:
        choice = "or averageValue" if field == "object" else "for metric or a per-pod target"
        detail = f"must set either a target value {choice}"
        yield required(f"{path}.averageValue", detail)
    elif field == "external" and value is not None and average is not None:
        yield forbidden_field(f"{path}.value", "may not set both a target value for metric and a per-pod target")


def _validate_rules(rules: Obj, path: str) -> Iterator[FieldError]:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and not 0 <= window <= _MAX_WINDOW_S:
        bound = "greater than or equal to zero" if window < 0 else f"less than or equal to {_MAX_WINDOW_S}"
        yield invalid_value(f"{path}.stabilizationWindowSeconds", window, f"must be {bound}")
    select = rules.get("selectPolicy")
    if select is not None and select not in ("Max", "Min", "Disabled"):
        yield not_supported(f"{path}.selectPolicy", select, ["Disabled", "Max", "Min"])
    policies = rules.get("policies") or []
    if not policies:
        yield required(f"{path}.policies", "must specify at least one Policy")
    for index, policy in enumerate(policies):
        yield from _validate_policy(policy, f"{path}.policies[{index}]")
    if (tolerance := rules.get("tolerance")) is not None and parse(tolerance) < 0:
        yield invalid_value(f"{path}.tolerance", tolerance, "must be greater or equal to 0")


def _validate_policy(policy: Obj, path: str) -> Iterator[FieldError]:
    if (kind := policy.get("type", "")) not in ("Pods", "Percent"):
        yield not_supported(f"{path}.type", kind, ["Percent", "Pods"])
    if (value := policy.get("value", 0)) <= 0:
        yield invalid_value(f"{path}.value", value, "must be greater than zero")
    period = policy.get("periodSeconds", 0)
    if period <= 0:
        yield invalid_value(f"{path}.periodSeconds", period, "must be greater than zero")
    elif period > _MAX_PERIOD_S:
        yield invalid_value(f"{path}.periodSeconds", period, f"must be less than or equal to {_MAX_PERIOD_S}")
