"""LimitRange: what pods, containers and claims of a namespace get by default and may have at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from uuid import UUID, uuid5

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import Problems, qualified_name_problems
from navarch.kinds.base import NAME, Strategy
from navarch.kinds.core.cells import CREATED_AT
from navarch.kinds.core.pod_validation_resources import (
    container_resource_problems,
    overcommittable,
    read_amount,
    resource_name_problems,
)
from navarch.kinds.strategies import strategy

_KINDS: Final = ("Container", "PersistentVolumeClaim", "Pod")


@strategy("", "LimitRange")
class LimitRangeStrategy(Strategy):
    columns = (NAME, CREATED_AT)
    nulls = ("spec.limits",)
    allow_create_on_update = True

    def defaults(self, obj: Obj) -> None:
        for item in obj.setdefault("spec", {}).get("limits") or ():
            if item.get("type") == "Container":
                _default_container_item(item)

    def prepare_create(self, obj: Obj) -> None:
        metadata = obj["metadata"]
        if not metadata.get("name"):
            # The only kind that needs no name.
            metadata["name"] = str(uuid5(UUID(metadata["uid"]), "name"))

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        seen: set[str] = set()
        for index, item in enumerate(obj["spec"].get("limits") or ()):
            at, kind = f"spec.limits[{index}]", item.get("type") or ""
            problems = qualified_name_problems(kind)
            for problem in problems:
                yield invalid_value(f"{at}.type", kind, problem)
            if not problems and "/" not in kind and kind not in _KINDS:
                yield invalid_value(f"{at}.type", kind, "must be a standard limit type or fully qualified")
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
    fields = {name: item.get(name) or {} for name in ("max", "min", "default", "defaultRequest")}
    check = container_resource_problems if kind in ("Container", "Pod") else resource_name_problems
    for field in ("max", "min"):
        yield from _validate_names(fields[field], check, f"{path}.{field}")
    for field in ("default", "defaultRequest"):
        if kind != "Pod":
            yield from _validate_names(fields[field], check, f"{path}.{field}")
        elif fields[field]:
            yield forbidden_field(f"{path}.{field}", "may not be specified when `type` is 'Pod'")
            fields[field] = {}
    if kind == "PersistentVolumeClaim" and "storage" not in fields["min"] and "storage" not in fields["max"]:
        detail = "either minimum or maximum storage value is required, but neither was provided"
        yield required(f"{path}.limits", detail)
    fields["maxLimitRequestRatio"] = item.get("maxLimitRequestRatio") or {}
    yield from _validate_names(fields["maxLimitRequestRatio"], check, f"{path}.maxLimitRequestRatio")
    for name in {name: None for listed in fields.values() for name in listed}:
        stated = {field: listed[name] for field, listed in fields.items() if name in listed}
        yield from _validate_order(name, stated, path)
        yield from _validate_ratio(name, stated, path)
        default, request = stated.get("default"), stated.get("defaultRequest")
        if default is not None and request is not None and not overcommittable(name):
            if read_amount(default) != read_amount(request):
                detail = f"default value {default} must equal to defaultRequest value {request} in {name}"
                yield invalid_value(f"{path}.defaultRequest[{name}]", str(request), detail)


def _validate_names(listed: Obj, check: Callable[[str], Problems], path: str) -> Iterator[FieldError]:
    for name in listed:
        for problem in check(name):
            yield invalid_value(f"{path}[{name}]", name, problem)


# What must not be above what, where the error is said, which value it shows, and its words.
_ORDER: Final = (
    ("min", "max", "min", "min", "min value {} is greater than max value {}"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest",
     "min value {} is greater than default request value {}"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest",
     "default request value {} is greater than max value {}"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest",
     "default request value {} is greater than default limit value {}"),
    ("min", "default", "default", "min", "min value {} is greater than default value {}"),
    ("default", "max", "default", "max", "default value {} is greater than max value {}"),
)  # fmt: skip


def _validate_order(name: str, stated: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    """min ≤ default request ≤ default ≤ max, as far as they are given."""
    for low, high, blamed, shown, words in _ORDER:
        if low not in stated or high not in stated:
            continue
        less, more = read_amount(stated[low]), read_amount(stated[high])
        if less is not None and more is not None and less > more:
            yield invalid_value(f"{path}.{blamed}[{name}]", str(stated[shown]), words.format(stated[low], stated[high]))


def _validate_ratio(name: str, stated: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    stated_ratio = stated.get("maxLimitRequestRatio")
    ratio = read_amount(stated_ratio) if stated_ratio is not None else None
    if ratio is None:
        return
    at = f"{path}.maxLimitRequestRatio[{name}]"
    if ratio < 1:
        yield invalid_value(at, str(stated_ratio), f"ratio {stated_ratio} is less than 1")
    least, most = (read_amount(stated[field]) if field in stated else None for field in ("min", "max"))
    if least and most is not None and ratio > most / least:
        detail = f"ratio {stated_ratio} is greater than max/min = {float(most / least):f}"
        yield invalid_value(at, str(stated_ratio), detail)
