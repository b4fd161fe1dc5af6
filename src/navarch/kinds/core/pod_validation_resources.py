"""Pod validation, resources: names and amounts in `requests` and `limits`, request against limit, huge pages.

In: a container's (or pod's) `resources` and its path.  Out: field errors in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.memo import memo
from navarch.api.meta import Obj
from navarch.api.validation import Problems, qualified_name_problems, validate_dns_label
from navarch.kinds.core.resource_lists import amount_of, format_amount, is_hugepage, pod_amounts, pod_level_resource

_STANDARD_CONTAINER: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_STANDARD: Final = _STANDARD_CONTAINER | {
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
}
NOT_NEGATIVE: Final = "must be greater than or equal to 0"
NOT_INTEGER: Final = "must be an integer"
QUANTITY_FORM: Final = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def is_standard_resource(name: str) -> bool:
    """Resources without a domain that Kubernetes knows."""
    return name in _STANDARD or is_hugepage(name) or name.startswith("requests.hugepages-")


def is_native_resource(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def is_integer_resource(name: str) -> bool:
    """Resources that are counted in whole pieces: object counts and extended resources."""
    return name in ("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps",
                    "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
                    ) or not (is_native_resource(name) or name.startswith("requests."))  # fmt: skip


@memo(1024)
def resource_name_problems(name: str) -> tuple[str, ...]:
    """What is wrong with a resource name anywhere."""
    problems = list(qualified_name_problems(name))
    if not problems and "/" not in name and not is_standard_resource(name):
        problems.append("must be a standard resource type or fully qualified")
    return tuple(problems)


@memo(1024)
def container_resource_problems(name: str) -> tuple[str, ...]:
    """What is wrong with a resource name in a container."""
    problems = list(resource_name_problems(name))
    if "/" not in name:
        if name not in _STANDARD_CONTAINER and not is_hugepage(name):
            problems.append("must be a standard resource for containers")
    elif not is_native_resource(name) and (name.startswith("requests.") or qualified_name_problems(f"requests.{name}")):
        problems.append("doesn't follow extended resource name standard")
    return tuple(problems)


def read_amount(value: Any) -> Fraction | None:
    """A quantity as a number; None where it is none."""
    try:
        return amount_of(value)
    except (ValueError, TypeError, ArithmeticError):
        return None


def whole(amount: Fraction) -> int:
    """An amount in whole units, rounded away from zero, as Go reads a quantity as an integer."""
    return -whole(-amount) if amount < 0 else -(-amount.numerator // amount.denominator)


def validate_resource_value(name: str, value: Any, path: str) -> Iterator[FieldError]:
    """One amount of one resource: a quantity, not negative, whole where pieces are counted."""
    amount = read_amount(value)
    if amount is None:
        yield invalid_value(path, value, QUANTITY_FORM)
        return
    if amount < 0:
        yield invalid_value(path, str(value), NOT_NEGATIVE)
    if amount.denominator != 1 and is_integer_resource(name):
        yield invalid_value(path, str(value), NOT_INTEGER)


def overcommittable(name: str) -> bool:
    """Whether a limit may be above the request."""
    return is_native_resource(name) and not is_hugepage(name)


def validate_resource_requirements(
    resources: Obj, path: str, claim_names: frozenset[str] = frozenset()
) -> Iterator[FieldError]:
    """`resources` of a container."""
    yield from _validate_amounts(resources, path, container_resource_problems)
    if resources.get("claims"):
        yield from _validate_claims(resources["claims"], f"{path}.claims", claim_names)


def _validate_amounts(resources: Obj, path: str, name_problems: Callable[[str], Problems]) -> Iterator[FieldError]:
    limits: Mapping[str, Any] = resources.get("limits") or {}
    requests: Mapping[str, Any] = resources.get("requests") or {}
    for name, value in limits.items():
        yield from _validate_amount(name, value, f"{path}.limits[{name}]", name_problems)
        yield from _validate_pages(name, value, f"{path}.limits[{name}]")
    for name, value in requests.items():
        yield from _validate_amount(name, value, f"{path}.requests[{name}]", name_problems)
        yield from _against_limit(name, value, limits, path)
        yield from _validate_pages(name, value, f"{path}.requests[{name}]")
    if "cpu" in limits or "memory" in limits or "cpu" in requests or "memory" in requests:
        return
    if any(is_hugepage(name) for name in (*limits, *requests)):
        yield forbidden_field(path, "HugePages require cpu or memory")


def _validate_amount(
    name: str, value: Any, path: str, name_problems: Callable[[str], Problems]
) -> Iterator[FieldError]:
    for problem in name_problems(name):
        yield invalid_value(path, name, problem)
    yield from validate_resource_value(name, value, path)


def _validate_pages(name: str, value: Any, path: str) -> Iterator[FieldError]:
    """Huge pages are asked for in whole pages."""
    if not is_hugepage(name):
        return
    size, amount = read_amount(name.removeprefix("hugepages-")), read_amount(value)
    if amount is not None and (not size or size < 0 or amount % size):
        yield invalid_value(path, str(value), f"{value} is not positive integer multiple of {name}")


def _against_limit(name: str, value: Any, limits: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    request = read_amount(value)
    if name not in limits:
        if not overcommittable(name):
            yield required(f"{path}.limits", "Limit must be set for non overcommitable resources")
        return
    limit = read_amount(limits[name])
    if request is None or limit is None:
        return
    if not overcommittable(name):
        if request != limit:
            yield invalid_value(f"{path}.requests", str(value), f"must be equal to {name} limit of {limits[name]}")
    elif request > limit:
        detail = f"must be less than or equal to {name} limit of {limits[name]}"
        yield invalid_value(f"{path}.requests", str(value), detail)


def _validate_claims(claims: Any, path: str, claim_names: frozenset[str]) -> Iterator[FieldError]:
    """References to the pod's resource claims: to a claim as a whole, or to one request of it, once each."""
    whole: set[str] = set()
    parts: set[tuple[str, str]] = set()
    for index, claim in enumerate(claims):
        name, request, at = claim.get("name") or "", claim.get("request") or "", f"{path}[{index}]"
        if not name:
            yield required(at)
            continue
        if name in whole:
            yield duplicate(at, name)
        elif request:
            yield from validate_dns_label(request, f"{at}.request")
            if (name, request) in parts:
                yield duplicate(at, f"{name}/{request}")
            parts.add((name, request))
        else:
            for other, _ in parts:
                if other == name:
                    yield duplicate(at, name)
            whole.add(name)
        if name not in claim_names:
            detail = "must be one of the names in pod.spec.resourceClaims"
            detail += f": {', '.join(sorted(claim_names))}" if claim_names else " which is empty"
            yield FieldError("FieldValueNotFound", at, detail, name)


def validate_pod_resources(spec: Obj, path: str) -> Iterator[FieldError]:
    """`spec.resources`: amounts for the pod as a whole, no less than its containers ask for."""
    resources = spec["resources"]
    if (spec.get("os") or {}).get("name") == "windows":
        yield forbidden_field(path, "may not be set for a windows pod")
        return
    if resources.get("claims") is not None:
        yield forbidden_field(f"{path}.claims", "claims may not be set for Resources at pod-level")
    for field in ("limits", "requests"):
        for name in resources.get(field) or ():
            if not resource_name_problems(name) and not pod_level_resource(name):
                yield not_supported(f"{path}.{field}[{name}]", name, ("cpu", "hugepages-", "memory"))
    yield from _validate_amounts(resources, path, resource_name_problems)
    yield from _validate_consistency(spec, resources, path)


def _validate_consistency(spec: Obj, resources: Obj, path: str) -> Iterator[FieldError]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    try:
        asked = pod_amounts({**spec, "resources": {}}, overhead=False)
        capped = pod_amounts({**spec, "resources": {}}, "limits", overhead=False)
    except (ValueError, TypeError, ArithmeticError):
        return  # the containers' own errors say so
    for name, amount in asked.items():
        own = read_amount(requests[name]) if name in requests else None
        if own is not None and amount > own:
            detail = f"must be greater than or equal to aggregate container requests of {format_amount(amount)}"
            yield invalid_value(f"{path}.requests[{name}]", str(requests[name]), detail)
    for name, amount in capped.items():
        own = read_amount(limits[name]) if is_hugepage(name) and name in limits else None
        if own is not None and amount > own:
            detail = f"must be greater than or equal to aggregate container limits of {format_amount(amount)}"
            yield invalid_value(f"{path}.limits[{name}]", str(limits[name]), detail)
    for index, container in enumerate(spec.get("containers") or ()):
        for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
            whole, own = read_amount(limits[name]) if name in limits else None, read_amount(value)
            if whole is not None and own is not None and own > whole:
                detail = f"must be less than or equal to pod limits of {limits[name]}"
                yield invalid_value(f"{path}.containers[{index}][{name}].limits", str(value), detail)


def validate_resize_policy(policies: Any, path: str, restart_policy: str) -> Iterator[FieldError]:
    """A container's `resizePolicy`."""
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        name, restart = policy.get("resourceName") or "", policy.get("restartPolicy") or ""
        if name in seen:
            yield duplicate(f"{path}[{index}]", name)
        seen.add(name)
        for value, supported in ((name, ("cpu", "memory")), (restart, ("NotRequired", "RestartContainer"))):
            if not value:
                yield required(path)
            elif value not in supported:
                yield not_supported(path, value, supported)
        if restart_policy == "Never" and restart != "NotRequired":
            yield invalid_value(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")
