"""Amounts of resources: reading, comparing and summing the `requests` and `limits` of containers and pods.

In: JSON resource lists (`{"cpu": "500m"}`), canonical since they were decoded.  Out: sums, exact for quota, limit
ranges and quality of service, or in whole units for the scheduler and the nodes. How containers, init steps, sidecars,
pod-level resources and overhead make up what a pod needs in all is defined here once (`combined`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, TypeVar

from navarch.api import quantity
from navarch.api.meta import Obj
from navarch.kinds.core.pod_state import is_sidecar

N = TypeVar("N", int, Fraction)


def amount_of(value: Any) -> Fraction:
    """A quantity as an exact number.  Raises ValueError for what is none."""
    return quantity.parse(value)


def format_amount(amount: Fraction, like: str = "") -> str:
    """An exact number as a canonical quantity, in binary units where `like` (a quantity) is."""
    return quantity.render(amount, "binary" if like.endswith("i") else "decimal")


def units_of(resource: str, value: Any) -> int:
    """A quantity in the unit in which machines count: thousandths of CPU, whole bytes and things; rounded up."""
    return quantity.milli(value) if resource == "cpu" else quantity.value(value)


def units(resources: Mapping[str, Any] | None) -> dict[str, int]:
    """A resource list in whole units."""
    return {name: units_of(name, value) for name, value in (resources or {}).items()}


def _exact(resources: Mapping[str, Any] | None) -> dict[str, Fraction]:
    return {name: amount_of(value) for name, value in (resources or {}).items()}


def add_lists(total: dict[str, N], more: Mapping[str, N]) -> None:
    """Add `more` to `total`, in place."""
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount


def max_lists(total: dict[str, N], other: Mapping[str, N]) -> None:
    """Raise each entry of `total` to that of `other`, in place."""
    for name, amount in other.items():
        if name not in total or amount > total[name]:
            total[name] = amount


def pod_level_resource(name: str) -> bool:
    """Resources that `spec.resources` of a pod may state for the pod as a whole."""
    return name in ("cpu", "memory") or is_hugepage(name)


def is_hugepage(name: str) -> bool:
    return name.startswith("hugepages-")


def combined(
    spec: Obj, of: Callable[[Obj], dict[str, N]], whole_pod: Mapping[str, N], overhead: Mapping[str, N]
) -> dict[str, N]:
    """What a pod needs in all, `of` saying it of one container: its containers and sidecars together, or an init step
    with the sidecars started before it, whichever is more; what is stated for the whole pod wins; overhead comes on
    top."""
    total: dict[str, N] = {}
    for container in spec.get("containers") or ():
        add_lists(total, of(container))
    sidecars: dict[str, N] = {}
    peak: dict[str, N] = {}
    for container in spec.get("initContainers") or ():
        wanted = of(container)
        if is_sidecar(container):
            add_lists(sidecars, wanted)
            max_lists(peak, sidecars)
        else:
            add_lists(wanted, sidecars)
            max_lists(peak, wanted)
    add_lists(total, sidecars)
    max_lists(total, peak)
    total.update({name: amount for name, amount in whole_pod.items() if pod_level_resource(name)})
    add_lists(total, overhead)
    return total


def pod_amounts(spec: Obj, field: str = "requests", *, overhead: bool = True) -> dict[str, Fraction]:
    """What a pod needs in all, exactly: its `requests` or its `limits`."""
    total = combined(
        spec,
        lambda container: _exact((container.get("resources") or {}).get(field)),
        _exact((spec.get("resources") or {}).get(field)),
        {},
    )
    if overhead and spec.get("overhead"):
        # A pod without a limit has none, whatever its sandbox takes.
        add_lists(total, {n: a for n, a in _exact(spec["overhead"]).items() if field == "requests" or n in total})
    return total


def pod_requests(pod: Obj, *, defaults: Mapping[str, int] | None = None) -> dict[str, int]:
    """What a pod needs of its node, in whole units. `defaults` stand in for what a container does not request."""
    spec = pod["spec"]
    status = pod.get("status") or {}
    statuses = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
    allocated = {s["name"]: s["allocatedResources"] for s in statuses if "allocatedResources" in s}

    def of(container: Obj) -> dict[str, int]:
        wanted = units(requests_of(container))
        if allocated:
            # While a resize is under way the node must have room for the larger of both.
            max_lists(wanted, units(allocated.get(container.get("name", ""))))
        for name, least in (defaults or {}).items():
            wanted.setdefault(name, least)
        return wanted

    whole = units(requests_of(spec))
    if whole and "allocatedResources" in status:
        max_lists(whole, units(status["allocatedResources"]))
    return combined(spec, of, whole, units(spec.get("overhead")))


def pod_limits(pod: Obj, resource: str) -> int:
    """A pod's limit of CPU or memory in whole units; 0 where one of its containers has none."""
    spec = pod["spec"]
    stated = units((spec.get("resources") or {}).get("limits"))
    every = (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
    if resource not in stated and not all(units(limits_of(container)).get(resource) for container in every):
        return 0
    total = combined(spec, lambda container: units(limits_of(container)), stated, {})
    return total.get(resource, 0) + units(spec.get("overhead")).get(resource, 0)


def requests_of(container: Obj) -> Mapping[str, Any]:
    """Requests of a container (or of a pod's spec), with limits for what has no request."""
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits"), resources.get("requests") or {}
    return {**limits, **requests} if limits else requests


def limits_of(container: Obj) -> Mapping[str, Any]:
    return (container.get("resources") or {}).get("limits") or {}


def containers_quantities(spec: Obj, field: str) -> dict[str, str]:
    """What a pod's containers need by themselves, their `requests` or their `limits`, as canonical quantities."""
    alone = pod_amounts({**spec, "resources": {}}, field, overhead=False)
    return {name: format_amount(amount, _unit_of(spec, name, field)) for name, amount in alone.items()}


def _unit_of(spec: Obj, name: str, field: str) -> str:
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        value = ((container.get("resources") or {}).get(field) or {}).get(name)
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
            limit, request = _stated(limits, name), _stated(requests, name)
            anything = anything or limit is not None or request is not None
            if limit is None or (request is not None and request != limit):
                guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _stated(amounts: Obj, name: str) -> Fraction | None:
    """An amount above zero; None where there is none."""
    if name not in amounts:
        return None
    amount = amount_of(amounts[name])
    # A fraction's comparison with 0 is Python code, a look at its numerator is not.
    return amount if amount.numerator > 0 else None
