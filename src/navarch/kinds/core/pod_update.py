"""What may change in a pod that exists: through the pod itself, its status, its ephemeral containers, its sizes.

In: the new Pod and the old one.  Out: field errors in Kubernetes' words. Invariant: what a kubelet has started is never
changed under it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field, immutable, invalid_value
from navarch.api.meta import Obj
from navarch.api.validation import ip_problems
from navarch.kinds.core.pod_validation import validate_pod_spec
from navarch.kinds.core.resource_lists import qos_class

_MAY_CHANGE: Final = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_RESIZABLE: Final = ("cpu", "memory")


def validate_pod_update(pod: Obj, old: Obj) -> Iterator[FieldError]:
    """A write to the pod itself: images, deadline, more tolerations, fewer gates; nothing else."""
    spec, was = pod["spec"], old["spec"]
    counted = False
    for field in ("containers", "initContainers"):
        if len(spec.get(field) or ()) != len(was.get(field) or ()):
            yield forbidden_field(f"spec.{field}", "pod updates may not add or remove containers")
            counted = True
    if counted:
        return
    yield from _validate_deadline(spec, was)
    yield from _validate_tolerations(spec, was)
    yield from _validate_gates(spec, was)
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            image = container.get("image") or ""
            if image != image.strip():
                detail = "must not have leading or trailing whitespace"
                yield invalid_value(f"spec.{field}[{index}].image", image, detail)
    expected = _with_allowed_changes(spec, was)
    if expected != spec:
        detail = f"pod updates may not change fields other than {_MAY_CHANGE}\n{_difference(was, spec)}"
        yield forbidden_field("spec", detail)


def _with_allowed_changes(spec: Obj, was: Obj) -> Obj:
    """The old spec with those changes that the new one is allowed to make."""
    expected: Obj = dict(was)
    for field in ("containers", "initContainers"):
        if was.get(field):
            expected[field] = [
                {**before, "image": after["image"]} if "image" in after else before
                for before, after in zip(was[field], spec[field], strict=True)
            ]
    for field in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        _take(expected, spec, field)
    if was.get("terminationGracePeriodSeconds", 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        expected["terminationGracePeriodSeconds"] = 1
    if was.get("schedulingGates"):
        _take_tightened(expected, spec, was)
    return expected


def _take(expected: Obj, spec: Obj, field: str) -> None:
    if field in spec:
        expected[field] = spec[field]
    else:
        expected.pop(field, None)


def _take_tightened(expected: Obj, spec: Obj, was: Obj) -> None:
    """A pod held by scheduling gates may narrow where it can run."""
    selector, before = spec.get("nodeSelector") or {}, was.get("nodeSelector") or {}
    if all(selector.get(key) == value for key, value in before.items()):
        _take(expected, spec, "nodeSelector")
    if not ((was.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ):
        new_affinity = copy.copy(spec.get("affinity") or {})
        old_affinity = was.get("affinity") or {}
        same = {k: v for k, v in new_affinity.items() if k != "nodeAffinity"} == {
            k: v for k, v in old_affinity.items() if k != "nodeAffinity"
        }
        if same:
            _take(expected, spec, "affinity")


def _validate_deadline(spec: Obj, was: Obj) -> Iterator[FieldError]:
    before, after = was.get("activeDeadlineSeconds"), spec.get("activeDeadlineSeconds")
    if before is None:
        return
    at = "spec.activeDeadlineSeconds"
    if after is None:
        yield invalid_value(at, None, "must not update from a positive integer to nil value")
    elif after > before:
        yield invalid_value(at, after, "must be less than or equal to previous value")


def _validate_tolerations(spec: Obj, was: Obj) -> Iterator[FieldError]:
    def shape(toleration: Obj) -> str:
        return json.dumps({k: v for k, v in toleration.items() if k != "tolerationSeconds"}, sort_keys=True)

    now = {shape(toleration) for toleration in spec.get("tolerations") or ()}
    for toleration in was.get("tolerations") or ():
        if shape(toleration) not in now:
            detail = "existing toleration can not be modified except its tolerationSeconds"
            yield forbidden_field("spec.tolerations", detail)
            return


def _validate_gates(spec: Obj, was: Obj) -> Iterator[FieldError]:
    before = {gate.get("name") for gate in was.get("schedulingGates") or ()}
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        name = gate.get("name")
        if name not in before:
            detail = f"only deletion is allowed, but found new scheduling gate '{name}'"
            yield forbidden_field(f"spec.schedulingGates[{index}]", detail)


def _difference(old: Any, new: Any, path: str = "spec") -> str:
    """The changed fields, one line for what was and one for what is asked for."""
    return "\n".join(_differences(old, new, path))


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (*old, *(key for key in new if key not in old)):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}")
        return
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{path}[{index}]")
        return
    if old is not None:
        yield f"- \t{path}: {json.dumps(old)}"
    if new is not None:
        yield f"+ \t{path}: {json.dumps(new)}"


# ----------------------------------------------------------------------------------------------------------- status


def validate_pod_status_update(pod: Obj, old: Obj) -> Iterator[FieldError]:
    """A write to `/status`."""
    status, was = pod.get("status") or {}, old.get("status") or {}
    spec = pod.get("spec") or {}
    for field, containers in (
        ("containerStatuses", spec.get("containers")),
        ("initContainerStatuses", spec.get("initContainers")),
    ):
        by_name = {container["name"]: container for container in containers or ()}
        policy = spec.get("restartPolicy") or "Always"
        yield from _validate_transitions(
            status.get(field) or (), was.get(field) or (), policy, by_name, f"status.{field}"
        )
    for listed in ("podIPs", "hostIPs"):
        seen: set[str] = set()
        for index, entry in enumerate(status.get(listed) or ()):
            address = entry.get("ip") or ""
            for problem in ip_problems(address):
                yield invalid_value(f"status.{listed}[{index}]", address, problem)
            if address in seen:
                yield FieldError("FieldValueDuplicate", f"status.{listed}[{index}]", "", address)
            seen.add(address)
    if was.get("qosClass") and status.get("qosClass") != was["qosClass"]:
        yield immutable("status.qosClass", status.get("qosClass"))


def _validate_transitions(
    new: Iterable[Obj], old: Iterable[Obj], pod_policy: str, containers: Mapping[str, Obj], path: str
) -> Iterator[FieldError]:
    """A container that has ended for good stays ended."""
    states = {container.get("name"): container.get("state") or {} for container in new}
    for index, before in enumerate(old):
        name = str(before.get("name"))
        terminated = (before.get("state") or {}).get("terminated")
        if not terminated or _may_restart(containers.get(name) or {}, pod_policy, int(terminated.get("exitCode") or 0)):
            continue
        state = states.get(name)
        if state is not None and not state.get("terminated"):
            yield forbidden_field(f"{path}[{index}].state", "may not be transitioned to non-terminated state")


def _may_restart(container: Obj, pod_policy: str, exit_code: int) -> bool:
    """Whether a container that ended so may run again: its own rules and policy (a sidecar's too) before the pod's."""
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        if (exit_code in (codes.get("values") or ())) == (codes.get("operator") == "In"):
            return True
    policy = container.get("restartPolicy") or pod_policy
    return bool(policy == "Always" or (policy == "OnFailure" and exit_code))


# ------------------------------------------------------------------------------------------------------ subresources


def validate_ephemeral_update(pod: Obj, old: Obj) -> Iterator[FieldError]:
    """A write to `/ephemeralcontainers`: containers may be added, never changed or removed."""
    if "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {}):
        yield forbidden_field("", "static pods do not support ephemeral containers")
    yield from validate_pod_spec(pod["spec"])
    now = {container.get("name"): container for container in pod["spec"].get("ephemeralContainers") or ()}
    for index, before in enumerate(old["spec"].get("ephemeralContainers") or ()):
        after = now.get(before.get("name"))
        at = "spec.ephemeralContainers"
        if after is None:
            detail = f"existing ephemeral containers {json.dumps(before.get('name'))} may not be removed\n"
            yield forbidden_field(at, detail)
        elif after != before:
            detail = f"existing ephemeral containers {json.dumps(before.get('name'))} may not be changed\n"
            yield forbidden_field(at, detail + _difference(before, after, f"{at}[{index}]"))


def resized(spec: Obj, old: Obj) -> Obj:
    """The specification that a write to `/resize` asks for: the old one with the new one's amounts. Containers that the
    old one does not have stay as they are stated, for validation to refuse."""
    wanted = dict(old)
    for field in ("containers", "initContainers"):
        stated = spec.get(field) or []
        known = {container["name"]: container for container in old.get(field) or ()}
        if stated or known:
            wanted[field] = [_with_amounts(known.get(container.get("name")), container) for container in stated]
    if "resources" in spec or "resources" in old:
        _take(wanted, spec, "resources")
    return wanted


def _with_amounts(known: Obj | None, stated: Obj) -> Obj:
    if known is None:
        return stated
    container = dict(known)
    for field in ("resources", "resizePolicy"):
        _take(container, stated, field)
    return container


def validate_resize(pod: Obj, old: Obj) -> Iterator[FieldError]:
    """A write to `/resize`: amounts of CPU and memory, without leaving the pod's quality of service."""
    yield from validate_pod_spec(pod["spec"])
    if qos_class(pod["spec"]) != qos_class(old["spec"]):
        detail = "Pod QOS Class may not change as a result of resizing"
        yield invalid_value("spec", qos_class(old["spec"]), detail)
    if "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {}):
        yield forbidden_field("", "static pods cannot be resized")
    expected = dict(old["spec"])
    for field in ("containers", "initContainers"):
        before, after = old["spec"].get(field) or [], pod["spec"].get(field) or []
        if len(before) != len(after):
            yield forbidden_field(f"spec.{field}", f"{field} may not be added or removed on resize")
            return
        if before:
            expected[field] = [_resized(b, a) for b, a in zip(before, after, strict=True)]
        for index, (was, container) in enumerate(zip(before, after, strict=True)):
            yield from _validate_removed_amounts(was, container, f"spec.{field}[{index}].resources")
    if "resources" in pod["spec"] or "resources" in old["spec"]:
        _take(expected, pod["spec"], "resources")
    if expected != pod["spec"]:
        detail = f"only cpu and memory resources are mutable\n{_difference(expected, pod['spec'])}"
        yield forbidden_field("spec", detail)


def _resized(before: Obj, after: Obj) -> Obj:
    """The old container with the new amounts of what can be resized."""
    resized = copy.deepcopy(before)
    new, old = after.get("resources") or {}, resized.setdefault("resources", {})
    for kind in ("limits", "requests"):
        amounts = {name: value for name, value in (old.get(kind) or {}).items() if name not in _RESIZABLE}
        amounts.update({name: value for name, value in (new.get(kind) or {}).items() if name in _RESIZABLE})
        if amounts:
            old[kind] = amounts
        else:
            old.pop(kind, None)
    if after.get("resizePolicy") and not before.get("resizePolicy"):
        resized["resizePolicy"] = after["resizePolicy"]
    return resized


def _validate_removed_amounts(was: Obj, container: Obj, path: str) -> Iterator[FieldError]:
    for kind in ("limits", "requests"):
        before = (was.get("resources") or {}).get(kind) or {}
        after = (container.get("resources") or {}).get(kind) or {}
        for name in _RESIZABLE:
            if name in before and name not in after:
                yield forbidden_field(f"{path}.{kind}", f"resource {kind} cannot be removed")
                break
