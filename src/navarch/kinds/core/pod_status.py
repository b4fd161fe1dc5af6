"""What a write to a pod's status may say.

In: the new Pod and the old one.  Out: field errors in Kubernetes' words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from navarch.api.addresses import is_one_of_each_family
from navarch.api.errors import FieldError, duplicate, forbidden_field, immutable, invalid_value, not_supported
from navarch.api.meta import Obj
from navarch.api.validation import (
    dns_subdomain_problems,
    qualified_name_problems,
    validate_dns_subdomain,
    validate_ip,
    validate_qualified_name,
)
from navarch.kinds.core.pod_state import restart_rule, restarts_whole
from navarch.kinds.core.pod_validation_security import validate_id
from navarch.kinds.internal import internal

_SYSTEM_CONDITIONS: Final = ("PodScheduled", "Ready", "Initialized")
_STATUSES: Final = {"containerStatuses": "containers", "initContainerStatuses": "initContainers"}
_ALL_STATUSES: Final = (*_STATUSES, "ephemeralContainerStatuses")
_TIMES: Final = ("startedAt", "finishedAt")
_HEALTHS: Final = ("Healthy", "Unhealthy", "Unknown")


def complete_pod_status(status: Obj) -> None:
    """What is there though nobody said so: times of conditions, and states of containers."""
    for condition in status.get("conditions") or ():
        for name in ("lastProbeTime", "lastTransitionTime"):
            if name not in condition:
                condition[name] = None
    for field in _ALL_STATUSES:
        if containers := status.get(field):
            _complete_containers(containers)


def _complete_containers(containers: Iterable[Obj]) -> None:
    for container in containers:
        for name in ("state", "lastState"):
            if name not in container:
                container[name] = {}
            elif (ended := (container[name] or {}).get("terminated")) and not ended.keys() >= set(_TIMES):
                # One that was lost has none.
                container[name] = {**container[name], "terminated": {**dict.fromkeys(_TIMES), **ended}}


def validate_pod_status_update(pod: Obj, old: Obj) -> Iterator[FieldError]:
    """A write to `/status`."""
    status, was = pod.get("status") or {}, old.get("status") or {}
    spec = pod.get("spec") or {}
    for index, condition in enumerate(status.get("conditions") or ()):
        if (condition.get("observedGeneration") or 0) < 0:
            yield _negative_generation(condition, f"status.conditions[{index}]")
        kind = condition.get("type") or ""
        if kind not in _SYSTEM_CONDITIONS and qualified_name_problems(kind):
            yield from validate_qualified_name(kind, f"status.conditions[{index}].Type")
    nominated = status.get("nominatedNodeName") or ""
    if nominated and nominated != was.get("nominatedNodeName"):
        yield from validate_dns_subdomain(nominated, "status.nominatedNodeName")
        if (old.get("spec") or {}).get("nodeName"):
            detail = "may not be set on pods that are already bound to a node"
            yield forbidden_field("status.nominatedNodeName", detail)
    if (status.get("observedGeneration") or 0) < 0:
        yield _negative_generation(status, "status")
    if was.get("qosClass") and status.get("qosClass") != was["qosClass"]:
        yield immutable("status.qosClass", status.get("qosClass"))
    # This is on the path of every kubelet's every write: what is not there is not asked about further.
    for field in _ALL_STATUSES:
        if before := was.get(field):
            yield from _validate_transitions(status.get(field) or (), before, spec, field)
    if claims := status.get("resourceClaimStatuses"):
        yield from _validate_claims(claims, spec)
    yield from _validate_addresses(status, was)
    system = (spec.get("os") or {}).get("name") or "linux"
    for field in _ALL_STATUSES:
        if containers := status.get(field):
            yield from _validate_users(containers, system, f"status.{field}")
    for field, listed in _STATUSES.items():
        if containers := status.get(field):
            yield from _validate_allocated(containers, spec.get(listed) or (), f"status.{field}")
    for index, container in enumerate(status.get("ephemeralContainerStatuses") or ()):
        if container.get("allocatedResourcesStatus"):
            at = f"status.ephemeralContainerStatuses[{index}].allocatedResourcesStatus"
            yield forbidden_field(at, "must not be specified in container status")


def _negative_generation(holder: Obj, path: str) -> FieldError:
    detail = "must be a non-negative integer"
    return invalid_value(f"{path}.observedGeneration", holder["observedGeneration"], detail)


def _validate_users(statuses: Iterable[Obj], system: str, path: str) -> Iterator[FieldError]:
    """As whom a container runs: numbers that Linux has, and none on Windows."""
    for index, status in enumerate(statuses):
        user, at = (status.get("user") or {}).get("linux"), f"{path}[{index}].user.linux"
        if user is None:
            continue
        if system == "windows":
            yield forbidden_field(at, "cannot be set for a windows pod")
        elif system == "linux":
            yield from validate_id(user.get("uid") or 0, f"{at}.uid")
            yield from validate_id(user.get("gid") or 0, f"{at}.gid")
            for number, group in enumerate(user.get("supplementalGroups") or ()):
                yield from validate_id(group, f"{at}.supplementalGroups[{number}]")


def _validate_allocated(statuses: Iterable[Obj], containers: Iterable[Obj], path: str) -> Iterator[FieldError]:
    """The health of what a container was given: of resources that it asks for, each piece once."""
    by_name = {container.get("name"): container for container in reversed([*containers])}
    for index, status in enumerate(statuses):
        container = by_name.get(status.get("name"))
        for number, given in enumerate(status.get("allocatedResourcesStatus") or ()):
            at, name = f"{path}[{index}].allocatedResourcesStatus[{number}]", given.get("name") or ""
            if container is not None and (problem := _unasked(name, container.get("resources") or {})):
                yield invalid_value(f"{at}.name", name, problem)
            seen: set[str] = set()
            for piece, each in enumerate(given.get("resources") or ()):
                here, identity = f"{at}.resources[{piece}]", each.get("resourceID") or ""
                if (health := each.get("health") or "") not in _HEALTHS:
                    yield not_supported(f"{here}.health", health, _HEALTHS)
                if identity in seen:
                    yield duplicate(f"{here}.resourceID", identity)
                seen.add(identity)


def _unasked(name: str, resources: Obj) -> str:
    """Why a container cannot have been given the resource: it does not ask for it; empty if it does."""
    if not name.startswith("claim:"):
        return (
            "" if name in (resources.get("requests") or ()) else "must match one of the container's resource requests"
        )
    for claim in resources.get("claims") or ():
        asked = f"claim:{claim.get('name') or ''}"
        if name == (f"{asked}/{claim['request']}" if claim.get("request") else asked):
            return ""
    return (
        "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or "
        "'claim:<claimName>' if request is empty"
    )


def _validate_claims(entries: Iterable[Obj], spec: Obj) -> Iterator[FieldError]:
    known, seen = {claim.get("name") for claim in spec.get("resourceClaims") or ()}, set()
    for index, entry in enumerate(entries):
        here, name = f"status.resourceClaimStatuses[{index}]", entry.get("name") or ""
        at = f"{here}.name"
        if name not in known:
            yield invalid_value(at, name, "must match the name of an entry in `spec.resourceClaims`")
        if name in seen:
            yield duplicate(at, name)
        seen.add(name)
        if (claim := entry.get("resourceClaimName")) is not None:
            for problem in dns_subdomain_problems(claim):
                yield invalid_value(f"{here}.resourceClaimName", claim, problem)


def _validate_addresses(status: Obj, was: Obj) -> Iterator[FieldError]:
    hosts = status.get("hostIPs") or []
    for listed in ("podIPs", "hostIPs"):
        entries = status.get(listed) or []
        kept = [entry.get("ip") for entry in was.get(listed) or ()]
        texts = [entry.get("ip") or "" for entry in entries]
        if listed == "hostIPs" and hosts and status.get("hostIP") != texts[0]:
            yield invalid_value("status.hostIPs[0].ip", texts[0], "must be equal to `hostIP`")
        for index, text in enumerate(texts):
            if text not in kept:
                yield from validate_ip(text, f"status.{listed}[{index}]")
        if len(texts) > 1 and not is_one_of_each_family(texts):
            shown = [internal(entry, "PodIP") for entry in entries]
            yield invalid_value(f"status.{listed}", shown, "may specify no more than one IP for each IP family")


def _validate_transitions(new: Iterable[Obj], old: Iterable[Obj], spec: Obj, field: str) -> Iterator[FieldError]:
    """A container that has ended for good stays ended."""
    listed = _STATUSES.get(field)
    if listed and restarts_whole(spec):
        # Whatever ended runs again when the pod starts over.
        return
    # Ephemeral containers never run again.
    policy = (spec.get("restartPolicy") or "Always") if listed else ""
    containers = {container["name"]: container for container in spec.get(listed) or ()} if listed else {}
    states = {container.get("name"): container.get("state") or {} for container in new}
    for index, before in enumerate(old):
        name = str(before.get("name"))
        terminated, container = (before.get("state") or {}).get("terminated"), containers.get(name)
        if not terminated:
            continue
        if container is not None and _may_restart(container, policy, int(terminated.get("exitCode") or 0)):
            continue
        state = states.get(name)
        if state is not None and not state.get("terminated"):
            yield forbidden_field(f"status.{field}[{index}].state", "may not be transitioned to non-terminated state")


def _may_restart(container: Obj, pod_policy: str, exit_code: int) -> bool:
    """Whether a container that ended so may run again: its own rules and policy (a sidecar's too) before the pod's."""
    if restart_rule(container, exit_code):
        return True
    policy = container.get("restartPolicy") or pod_policy
    return bool(policy == "Always" or (policy == "OnFailure" and exit_code))
