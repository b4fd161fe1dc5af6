"""What an object counts against a quota: by its kind, its requests and limits, its storage, its ports.

In: an object and its resource.  Out: amounts per quota resource name, and whether a quota's scopes cover the object.
Pure. A pod that has ended needs nothing any more and counts as an object only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from navarch.api.meta import Obj, Resource
from navarch.api.time import parse_time
from navarch.kinds.core.pod_state import is_finished
from navarch.kinds.core.pod_validation_resources import is_native_resource
from navarch.kinds.core.resource_lists import amount_of, is_hugepage, pod_amounts, qos_class
from navarch.kinds.core.service import needs_node_ports

Amounts = dict[str, Fraction]

# Kinds that quotas count under their bare plural, besides `count/<plural>`.
_PLAIN_COUNTS: Final = frozenset({"configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services",
                                  "persistentvolumeclaims", "pods"})  # fmt: skip
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_CLASS_SUFFIX: Final = ".storageclass.storage.k8s.io/"
_DEVICE_CLAIMS: Final = "resourceclaims.resource.k8s.io"
# After the name of a class of devices.
DEVICES: Final = ".deviceclass.resource.k8s.io/devices"
# As many as one claim can be given.
_MOST_DEVICES: Final = 32


def usage_of(resource: Resource, obj: Obj, now: datetime | None = None) -> Amounts:
    """What the object counts; with `now` a pod that should be gone by then is an object only, like one that has
    ended: it must not keep the one from starting that takes its place."""
    one = Fraction(1)
    usage: Amounts = {f"count/{resource.group_resource}": one}
    if resource.group:
        if resource.group_resource == _DEVICE_CLAIMS:
            usage.update(_device_usage(obj["spec"]))
        return usage
    plural = resource.plural
    if plural == "pods":
        if not is_finished(obj) and (now is None or not _is_stuck(obj, now)):
            usage["pods"] = one
            usage.update(_pod_usage(obj["spec"]))
        return usage
    if plural in _PLAIN_COUNTS:
        usage[plural] = one
    if plural == "services":
        usage.update(_service_usage(obj["spec"]))
    elif plural == "persistentvolumeclaims":
        usage.update(_claim_usage(obj))
    return usage


def _is_stuck(pod: Obj, now: datetime) -> bool:
    """Whether the time that a pod had to end is over, and it is there still."""
    metadata = pod["metadata"]
    deleted, grace_s = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    if not deleted or grace_s is None:
        return False
    return now > parse_time(deleted) + timedelta(seconds=int(grace_s))


def _pod_usage(spec: Obj) -> Amounts:
    usage: Amounts = {}
    for name, amount in pod_amounts(spec, "requests").items():
        if name in _COMPUTE or is_hugepage(name):
            usage[name] = amount
        if name in _COMPUTE or is_hugepage(name) or not is_native_resource(name):
            usage[f"requests.{name}"] = amount
    for name, amount in pod_amounts(spec, "limits").items():
        if name in _COMPUTE:
            usage[f"limits.{name}"] = amount
    return usage


def _service_usage(spec: Obj) -> Amounts:
    usage: Amounts = {}
    ports = spec.get("ports") or ()
    if needs_node_ports(spec):
        usage["services.nodeports"] = Fraction(len(ports))
    elif spec.get("type") == "LoadBalancer":
        usage["services.nodeports"] = Fraction(sum(1 for port in ports if port.get("nodePort")))
    if spec.get("type") == "LoadBalancer":
        usage["services.loadbalancers"] = Fraction(1)
    return usage


def _claim_usage(claim: Obj) -> Amounts:
    spec = claim["spec"]
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    amount = Fraction(math.ceil(amount_of(storage))) if storage is not None else Fraction(0)
    allocated = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage")
    if amount and allocated is not None:
        # What it was to grow to, where it asks for less again.
        amount = max(amount, Fraction(math.ceil(amount_of(allocated))))
    usage: Amounts = {"requests.storage": amount}
    name = spec.get("storageClassName")
    if name:
        usage[f"{name}{_CLASS_SUFFIX}requests.storage"] = amount
        usage[f"{name}{_CLASS_SUFFIX}persistentvolumeclaims"] = Fraction(1)
    return usage


def _device_usage(spec: Obj) -> Amounts:
    """Devices by class; of requests that have alternatives the most that one of them takes."""
    usage: Amounts = {}
    for request in (spec.get("devices") or {}).get("requests") or ():
        exact = request.get("exactly") or (request if "deviceClassName" in request else None)
        most: Amounts = {}
        for each in request.get("firstAvailable") or ((exact,) if exact else ()):
            name = f"{each['deviceClassName']}{DEVICES}"
            every = each.get("allocationMode") == "All"
            most[name] = max(most.get(name, Fraction(0)), Fraction(_MOST_DEVICES if every else each.get("count") or 1))
        for name, amount in most.items():
            usage[name] = usage.get(name, Fraction(0)) + amount
    return usage


# ----------------------------------------------------------------------------------------------------------- scopes


def covers(quota: Obj, resource: Resource, obj: Obj) -> bool:
    """Whether the quota's scopes cover the object; only pods and claims have any."""
    spec = quota.get("spec") or {}
    terms = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    terms += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    if not terms:
        return True
    if resource.group or resource.plural not in ("pods", "persistentvolumeclaims"):
        return False
    check = _pod_in_scope if resource.plural == "pods" else _claim_in_scope
    return all(check(obj["spec"], term) for term in terms)


def _pod_in_scope(spec: Obj, term: Obj) -> bool:
    scope = term.get("scopeName")
    if scope in ("Terminating", "NotTerminating"):
        return bool((spec.get("activeDeadlineSeconds") is not None) == (scope == "Terminating"))
    if scope in ("BestEffort", "NotBestEffort"):
        return bool((qos_class(spec) == "BestEffort") == (scope == "BestEffort"))
    if scope == "PriorityClass":
        return _selected(spec.get("priorityClassName") or "", term)
    if scope == "CrossNamespacePodAffinity":
        return any("namespaces" in each or "namespaceSelector" in each for each in _affinity_terms(spec))
    return False


def _claim_in_scope(spec: Obj, term: Obj) -> bool:
    if term.get("scopeName") != "VolumeAttributesClass":
        return False
    return _selected(spec.get("volumeAttributesClassName") or "", term)


def _selected(name: str, term: Mapping[str, Any]) -> bool:
    operator, values = term.get("operator"), term.get("values") or ()
    if operator == "Exists":
        return bool(name)
    if operator == "DoesNotExist":
        return not name
    return (name in values) == (operator == "In")


def _affinity_terms(spec: Obj) -> Iterator[Obj]:
    for name in ("podAffinity", "podAntiAffinity"):
        rules = (spec.get("affinity") or {}).get(name) or {}
        yield from rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for weighted in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            yield weighted.get("podAffinityTerm") or {}


def unsaid(spec: Obj, hard: Mapping[str, Any]) -> list[str]:
    """What a quota on compute resources wants every container to state, and some do not:
    `limits.cpu for: web,sidecar`, one entry per resource."""
    missing: dict[str, list[str]] = {}
    if (spec.get("resources") or {}).get("requests") or (spec.get("resources") or {}).get("limits"):
        own = spec["resources"]
    else:
        own = {}
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container.get("resources") or {}
        for name in hard:
            kind, _, plain = name.rpartition(".")
            if plain not in ("cpu", "memory") or kind not in ("", "requests", "limits"):
                continue
            field = "limits" if kind == "limits" else "requests"
            if plain not in (resources.get(field) or {}) and plain not in (own.get(field) or {}):
                missing.setdefault(name, []).append(container.get("name") or "")
    return [f"{name} for: {','.join(sorted(set(names)))}" for name, names in sorted(missing.items())]
