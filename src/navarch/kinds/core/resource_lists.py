"""Amounts of resources: reading, comparing and summing the `requests` and `limits` of containers and pods.

In: JSON resource lists (`{"cpu": "500m"}`), canonical since they were decoded.  Out: exact sums. What a pod asks for
in all is defined here once, for quota, limit ranges and quality of service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from navarch.api import quantity
from navarch.api.meta import Obj


def amount_of(value: Any) -> Fraction:
    """A quantity as an exact number.  Raises ValueError for what is none."""
    return quantity.parse(value)


def format_amount(amount: Fraction, like: str = "") -> str:
    """An exact number as a canonical quantity, in binary units where `like` (a quantity) is."""
    return quantity.render(amount, "binary" if like.endswith("i") else "decimal")


def add_lists(total: dict[str, Fraction], more: Mapping[str, Fraction]) -> None:
    """Add `more` to `total`, in place."""
    for name, amount in more.items():
        total[name] = total.get(name, Fraction(0)) + amount


def max_lists(total: dict[str, Fraction], other: Mapping[str, Fraction]) -> None:
    """Raise each entry of `total` to that of `other`, in place."""
    for name, amount in other.items():
        if name not in total or amount > total[name]:
            total[name] = amount


def _container_list(container: Obj, field: str) -> dict[str, Fraction]:
    resources = (container.get("resources") or {}).get(field) or {}
    return {name: amount_of(value) for name, value in resources.items()}


def is_sidecar(container: Obj) -> bool:
    """A restartable init container, which runs beside the main ones."""
    return container.get("restartPolicy") == "Always"


def pod_level_resource(name: str) -> bool:
    """Resources that `spec.resources` of a pod may state for the pod as a whole."""
    return name in ("cpu", "memory") or name.startswith("hugepages-")


def pod_amounts(spec: Obj, field: str = "requests", *, overhead: bool = True) -> dict[str, Fraction]:
    """What a pod needs in all: the greater of what runs at once and of each init step, with sidecars and overhead."""
    total: dict[str, Fraction] = {}
    for container in spec.get("containers") or ():
        add_lists(total, _container_list(container, field))
    sidecars: dict[str, Fraction] = {}
    init: dict[str, Fraction] = {}
    for container in spec.get("initContainers") or ():
        wanted = _container_list(container, field)
        if is_sidecar(container):
            add_lists(total, wanted)
            add_lists(sidecars, wanted)
            max_lists(init, sidecars)
        else:
            add_lists(wanted, sidecars)
            max_lists(init, wanted)
    max_lists(total, init)
    for name, value in ((spec.get("resources") or {}).get(field) or {}).items():
        if pod_level_resource(name):
            total[name] = amount_of(value)
    if overhead and spec.get("overhead"):
        for name, value in spec["overhead"].items():
            if field == "requests" or name in total:
                total[name] = total.get(name, Fraction(0)) + amount_of(value)
    return total


def pod_requests(spec: Obj) -> dict[str, str]:
    """What a pod asks for in all, as canonical quantities."""
    return {name: format_amount(amount, _unit_of(spec, name)) for name, amount in pod_amounts(spec).items()}


def _unit_of(spec: Obj, name: str) -> str:
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        value = ((container.get("resources") or {}).get("requests") or {}).get(name)
        if value is not None:
            return str(value)
    return ""


def qos_class(spec: Obj) -> str:
    """A pod's quality of service: `Guaranteed`, `Burstable` or `BestEffort`, by its CPU and memory."""
    own = spec.get("resources") or {}
    if own.get("requests") or own.get("limits"):
        return _qos((own,))
    return _qos(
        container.get("resources") or {}
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    )


def _qos(resources: Iterable[Obj]) -> str:
    guaranteed, anything = True, False
    for each in resources:
        requests, limits = each.get("requests") or {}, each.get("limits") or {}
        for name in ("cpu", "memory"):
            limit = amount_of(limits[name]) if name in limits else Fraction(0)
            request = amount_of(requests[name]) if name in requests else Fraction(0)
            anything = anything or limit > 0 or request > 0
            if limit <= 0 or (request > 0 and request != limit):
                guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
