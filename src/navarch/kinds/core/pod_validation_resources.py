"""Pod validation, resources: names and amounts in `requests` and `limits`, request against limit, huge pages.

In: a container's (or pod's) `resources` and its path.  Out: field errors in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from navarch.api.errors import FieldError, duplicate, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import qualified_name_problems
from navarch.kinds.core.resource_lists import amount_of, format_amount, pod_amounts, pod_level_resource

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


def is_hugepage(name: str) -> bool:
    return name.startswith("hugepages-")


def is_standard_resource(name: str) -> bool:
    """Resources without a domain that Kubernetes knows."""
    return name in _STANDARD or is_hugepage(name) or name.startswith("requests.hugepages-")


def is_native_resource(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def is_integer_resource(name: str) -> bool:
    """Resources that are counted in whole pieces: object counts and extended resources."""
    return name in ("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps",
                    "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
                    ) or not is_native_resource(name)  # fmt: skip


@lru_cache(maxsize=1024)
def resource_name_problems(name: str) -> tuple[str, ...]:
    """What is wrong with a resource name anywhere."""
    problems = list(qualified_name_problems(name))
    if not problems and "/" not in name and not is_standard_resource(name):
        problems.append("must be a standard resource type or fully qualified")
    return tuple(problems)


@lru_cache(maxsize=1024)
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


def _overcommittable(name: str) -> bool:
    return is_native_resource(name) and not is_hugepage(name)


def validate_resource_requirements(
    resources: Obj, path: str, claim_names: frozenset[str] = frozenset()
) -> Iterator[FieldError]:
    """`resources` of a container."""
    limits: Mapping[str, Any] = resources.get("limits") or {}
    requests: Mapping[str, Any] = resources.get("requests") or {}
    for field, listed in (("limits", limits), ("requests", requests)):
        for name, value in listed.items():
            at = f"{path}.{field}[{name}]"
            for problem in container_resource_problems(name):
                yield invalid_value(at, name, problem)
            yield from validate_resource_value(name, value, at)
    for name, value in requests.items():
        yield from _against_limit(name, value, limits, path)
    named = {*limits, *requests}
    if any(is_hugepage(name) for name in named) and not named & {"cpu", "memory"}:
        yield forbidden_field(path, "HugePages require cpu or memory")
    yield from _validate_claims(resources.get("claims") or (), f"{path}.claims", claim_names)


def _against_limit(name: str, value: Any, limits: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    request = read_amount(value)
    if name not in limits:
        if not _overcommittable(name):
            yield required(f"{path}.limits", "Limit must be set for non overcommitable resources")
        return
    limit = read_amount(limits[name])
    if request is None or limit is None:
        return
    if not _overcommittable(name):
        if request != limit:
            yield invalid_value(f"{path}.requests", str(value), f"must be equal to {name} limit of {limits[name]}")
    elif request > limit:
        detail = f"must be less than or equal to {name} limit of {limits[name]}"
        yield invalid_value(f"{path}.requests", str(value), detail)


def _validate_claims(claims: Any, path: str, claim_names: frozenset[str]) -> Iterator[FieldError]:
    seen: set[tuple[str, str]] = set()
    for index, claim in enumerate(claims):
        name = claim.get("name") or ""
        at = f"{path}[{index}]"
        if not name:
            yield required(f"{at}.name")
            continue
        key = (name, claim.get("request") or "")
        if key in seen:
            yield duplicate(at, name)
        elif name not in claim_names:
            detail = "must be one of the names in pod.spec.resourceClaims"
            if not claim_names:
                detail += " which is empty"
            yield FieldError("FieldValueNotFound", at, detail, name)
        seen.add(key)


def validate_pod_resources(spec: Obj, path: str) -> Iterator[FieldError]:
    """`spec.resources`: amounts for the pod as a whole, no less than its containers ask for."""
    resources = spec["resources"]
    limits: Mapping[str, Any] = resources.get("limits") or {}
    requests: Mapping[str, Any] = resources.get("requests") or {}
    supported = ("cpu", "memory", "hugepages-")
    for field, listed in (("limits", limits), ("requests", requests)):
        for name, value in listed.items():
            at = f"{path}.{field}[{name}]"
            if not pod_level_resource(name):
                yield not_supported(at, name, supported)
            yield from validate_resource_value(name, value, at)
    if resources.get("claims"):
        yield forbidden_field(f"{path}.claims", "claims may not be set for Resources at pod-level")
    for name, value in requests.items():
        yield from _against_limit(name, value, limits, path)
    try:
        asked = pod_amounts({**spec, "resources": {}}, overhead=False)
    except (ValueError, TypeError, ArithmeticError):
        return  # the containers' own errors say so
    for name, amount in asked.items():
        own = read_amount(requests[name]) if name in requests else None
        if own is not None and amount > own:
            detail = f"must be greater than or equal to aggregate container requests of {format_amount(amount)}"
            yield invalid_value(f"{path}.requests[{name}]", str(requests[name]), detail)


def validate_resize_policy(policies: Any, path: str, restart_policy: str) -> Iterator[FieldError]:
    """A container's `resizePolicy`."""
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        at = f"{path}[{index}]"
        name, restart = policy.get("resourceName") or "", policy.get("restartPolicy") or ""
        if name in seen:
            yield duplicate(at, name)
        seen.add(name)
        if name not in ("cpu", "memory"):
            yield not_supported(at, name, ("cpu", "memory"))
        if restart not in ("NotRequired", "RestartContainer"):
            yield not_supported(at, restart, ("NotRequired", "RestartContainer"))
        elif restart_policy == "Never" and restart != "NotRequired":
            yield invalid_value(at, restart, "must be 'NotRequired' when `restartPolicy` is 'Never'")
