"""What may change in a pod that exists, through the pod itself; what a write to its status or to one of its other
subresources may say is in `pod_status` and `pod_subresources`.

In: the new Pod and the old one.  Out: field errors in Kubernetes' words. Invariant: what a kubelet has started is never
changed under it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, required
from navarch.api.meta import Obj
from navarch.api.validation import range_problem
from navarch.kinds.core.pod_validation_scheduling import validate_tolerations
from navarch.kinds.internal import difference, internal

_MAY_CHANGE: Final = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_MAX_INT32: Final = 2**31 - 1
_LISTS: Final = ("containers", "initContainers")
_REQUIRED_AFFINITY: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def validate_pod_update(pod: Obj, old: Obj) -> Iterator[FieldError]:
    """A write to the pod itself: images, deadline, more tolerations, fewer gates; nothing else."""
    spec, was = pod["spec"], old["spec"]
    for field in _LISTS:
        now = spec.get(field) or ()
        if len(now) != len(was.get(field) or ()):
            yield forbidden_field(f"spec.{field}", "pod updates may not add or remove containers")
            return
        yield from _validate_images(now, f"spec.{field}")
    problem = _deadline_problem(spec, was)
    if problem is not None:
        yield problem
        if spec.get("activeDeadlineSeconds") is not None:
            return
    yield from _validate_added_tolerations(spec, was)
    yield from _validate_gates(spec, was)
    if spec == was:
        return
    munged = _without_allowed_changes(spec, was)
    if was.get("schedulingGates"):
        yield from _take_tightened(munged, was)
    if munged != was and (diff := difference(was, munged, "PodSpec")):
        detail = f"pod updates may not change fields other than {_MAY_CHANGE}\n{diff}"
        yield forbidden_field("spec", detail)


def _validate_images(containers: Any, path: str) -> Iterator[FieldError]:
    for index, container in enumerate(containers):
        image = container.get("image") or ""
        if not image:
            yield required(f"{path}[{index}].image")
        elif image != image.strip():
            yield invalid_value(f"{path}[{index}].image", image, "must not have leading or trailing whitespace")


def _without_allowed_changes(spec: Obj, was: Obj) -> Obj:
    """The new spec without those changes that it is allowed to make."""
    munged: Obj = dict(spec)
    for field in _LISTS:
        if was.get(field):
            munged[field] = [
                {**after, "image": before["image"]} if "image" in before else after
                for before, after in zip(was[field], spec[field], strict=True)
            ]
    for field in ("activeDeadlineSeconds", "tolerations", "schedulingGates"):
        put_back(munged, was, field)
    if was.get("terminationGracePeriodSeconds", 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        munged["terminationGracePeriodSeconds"] = was["terminationGracePeriodSeconds"]
    return munged


def put_back(munged: Obj, was: Obj, field: str) -> None:
    if field in was:
        munged[field] = was[field]
    else:
        munged.pop(field, None)


def _take_tightened(munged: Obj, was: Obj) -> Iterator[FieldError]:
    """A pod held by scheduling gates may narrow where it can run."""
    selector, before = munged.get("nodeSelector") or {}, was.get("nodeSelector") or {}
    if any(selector.get(key) != value for key, value in before.items()):
        detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        yield invalid_value("spec.nodeSelector", selector or None, detail)
    put_back(munged, was, "nodeSelector")
    affinity, old_affinity = munged.get("affinity") or {}, was.get("affinity") or {}
    new, old = affinity.get("nodeAffinity"), old_affinity.get("nodeAffinity")
    if new == old:
        return
    yield from _validate_narrowed(new or {}, old or {})
    affinity = {**affinity, "nodeAffinity": old} if old is not None else dict(affinity)
    if old is None:
        affinity.pop("nodeAffinity", None)
    if affinity or "affinity" in was:
        munged["affinity"] = affinity
    else:
        munged.pop("affinity", None)


def _validate_narrowed(new: Obj, old: Obj) -> Iterator[FieldError]:
    before = (old.get(_REQUIRED_AFFINITY) or {}).get("nodeSelectorTerms") or []
    after = (new.get(_REQUIRED_AFFINITY) or {}).get("nodeSelectorTerms") or []
    if not before:
        return
    at = f"spec.affinity.nodeAffinity.{_REQUIRED_AFFINITY}.nodeSelectorTerms"
    if len(before) != len(after):
        shown = [internal(term, "NodeSelectorTerm") for term in after] or None
        yield invalid_value(at, shown, "no additions/deletions to non-empty NodeSelectorTerms list are allowed")
        return
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        if not _only_adds(now, was):
            shown = internal(now, "NodeSelectorTerm")
            yield invalid_value(f"{at}[{index}]", shown, "only additions are allowed (no mutations or deletions)")


def _only_adds(new: Obj, old: Obj) -> bool:
    names = ("matchExpressions", "matchFields")
    if not any(old.get(name) for name in names):
        # A term that matches nothing stays so.
        return not any(new.get(name) for name in names)
    return all((new.get(name) or [])[: len(old.get(name) or ())] == (old.get(name) or []) for name in names)


def _deadline_problem(spec: Obj, was: Obj) -> FieldError | None:
    before, after = was.get("activeDeadlineSeconds"), spec.get("activeDeadlineSeconds")
    at = "spec.activeDeadlineSeconds"
    if after is not None and not 0 <= after <= _MAX_INT32:
        return invalid_value(at, after, range_problem(0, _MAX_INT32))
    if before is None:
        return None
    if after is None:
        return invalid_value(at, None, "must not update from a positive integer to nil value")
    return invalid_value(at, after, "must be less than or equal to previous value") if after > before else None


def _validate_added_tolerations(spec: Obj, was: Obj) -> Iterator[FieldError]:
    def shape(toleration: Obj) -> frozenset[tuple[str, Any]]:
        return frozenset(item for item in toleration.items() if item[0] != "tolerationSeconds")

    tolerations = spec.get("tolerations") or ()
    now = {shape(toleration) for toleration in tolerations}
    if any(shape(toleration) not in now for toleration in was.get("tolerations") or ()):
        detail = "existing toleration can not be modified except its tolerationSeconds"
        yield forbidden_field("spec.tolerations", detail)
        return
    yield from validate_tolerations(tolerations, "spec.tolerations")


def _validate_gates(spec: Obj, was: Obj) -> Iterator[FieldError]:
    before = {gate.get("name") for gate in was.get("schedulingGates") or ()}
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        name = gate.get("name")
        if name not in before:
            detail = f"only deletion is allowed, but found new scheduling gate '{name}'"
            yield forbidden_field(f"spec.schedulingGates[{index}].name", detail)
