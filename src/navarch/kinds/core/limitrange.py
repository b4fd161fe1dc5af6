"""LimitRange: what pods, containers and claims of a namespace get by default and may have at most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import qualified_name_problems
from navarch.kinds.base import NAME, Strategy
from navarch.kinds.core.cells import CREATED_AT
from navarch.kinds.core.pod_validation_resources import (
    container_resource_problems,
    read_amount,
    resource_name_problems,
    validate_resource_value,
)
from navarch.kinds.strategies import strategy


@strategy("", "LimitRange")
class LimitRangeStrategy(Strategy):
    columns = (NAME, CREATED_AT)
    nulls = ("spec.limits",)
    allow_create_on_update = True

    def defaults(self, obj: Obj) -> None:
        for item in obj.setdefault("spec", {}).get("limits") or ():
            if item.get("type") == "Container":
                _default_container_item(item)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        seen: set[str] = set()
        for index, item in enumerate(obj["spec"].get("limits") or ()):
            at, kind = f"spec.limits[{index}]", item.get("type") or ""
            for problem in qualified_name_problems(kind):
                yield invalid_value(f"{at}.type", kind, problem)
            if kind in seen:
                yield duplicate(f"{at}.type", kind)
            seen.add(kind)
            yield from _validate_item(item, kind, at)


def _default_container_item(item: Obj) -> None:
    """The maximum is the default limit, that the default request, the minimum the request of last resort."""
    limits = item.setdefault("default", {})
    for name, amount in (item.get("max") or {}).items():
        limits.setdefault(name, amount)
    requests = item.setdefault("defaultRequest", {})
    for source in (limits, item.get("min") or {}):
        for name, amount in source.items():
            requests.setdefault(name, amount)
    for field in ("default", "defaultRequest"):
        if not item[field]:
            del item[field]


def _validate_item(item: Obj, kind: str, path: str) -> Iterator[FieldError]:
    fields = {name: item.get(name) or {} for name in ("min", "max", "default", "defaultRequest")}
    ratios: Mapping[str, Any] = item.get("maxLimitRequestRatio") or {}
    if kind == "Pod":
        for field in ("default", "defaultRequest"):
            if fields[field]:
                yield forbidden_field(f"{path}.{field}", "may not be specified when `type` is 'Pod'")
    if kind == "PersistentVolumeClaim" and "storage" not in fields["min"] and "storage" not in fields["max"]:
        detail = "either minimum or maximum storage value is required, but neither was provided"
        yield required(f"{path}.limits", detail)
    check = container_resource_problems if kind in ("Container", "Pod") else resource_name_problems
    for field, listed in (*fields.items(), ("maxLimitRequestRatio", ratios)):
        for name, value in listed.items():
            at = f"{path}.{field}[{name}]"
            for problem in check(name):
                yield invalid_value(at, name, problem)
            yield from validate_resource_value(name, value, at)
    for name in {name: None for listed in fields.values() for name in listed}:
        yield from _validate_order(name, fields, path)
    for name, ratio in ratios.items():
        amount = read_amount(ratio)
        if amount is not None and amount < 1:
            detail = f"ratio {ratio} is less than 1"
            yield invalid_value(f"{path}.maxLimitRequestRatio[{name}]", ratio, detail)


def _validate_order(name: str, fields: Mapping[str, Mapping[str, Any]], path: str) -> Iterator[FieldError]:
    """min ≤ default request ≤ default ≤ max, as far as they are given."""
    words = {
        "min": "min value",
        "max": "max value",
        "default": "default value",
        "defaultRequest": "default request value",
    }
    pairs = (("min", "max"), ("min", "defaultRequest"), ("defaultRequest", "max"), ("defaultRequest", "default"),
             ("min", "default"), ("default", "max"))  # fmt: skip
    for low, high in pairs:
        below, above = fields[low].get(name), fields[high].get(name)
        if below is None or above is None:
            continue
        less, more = read_amount(below), read_amount(above)
        if less is not None and more is not None and less > more:
            other = "default limit value" if (low, high) == ("defaultRequest", "default") else words[high]
            blamed = "default" if (low, high) == ("min", "default") else low
            if blamed == "default":
                detail = f"min value {below} is greater than default value {above}"
            else:
                detail = f"{words[low]} {below} is greater than {other} {above}"
            yield invalid_value(f"{path}.{blamed}[{name}]", str(fields[blamed][name]), detail)
