"""What a write to a pod's ephemeral containers, or to its sizes, may change.

In: the new Pod and the old one.  Out: field errors in Kubernetes' words. Invariant: what a kubelet has started is never
changed under it, but for amounts that it can change without a restart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value
from navarch.api.meta import Obj
from navarch.kinds.core.pod_state import is_sidecar
from navarch.kinds.core.pod_update import put_back
from navarch.kinds.core.pod_validation import validate_pod_spec
from navarch.kinds.core.resource_lists import qos_class
from navarch.kinds.internal import difference

_RESIZABLE: Final = ("cpu", "memory")
_LISTS: Final = ("containers", "initContainers")
_MIRROR: Final = "kubernetes.io/config.mirror"


def validate_ephemeral_update(pod: Obj, old: Obj) -> Iterator[FieldError]:
    """A write to `/ephemeralcontainers`: containers may be added, never changed or removed."""
    if _MIRROR in (old["metadata"].get("annotations") or {}):
        yield forbidden_field("", "static pods do not support ephemeral containers")
        return
    yield from validate_pod_spec(pod["spec"])
    now = {container.get("name"): container for container in pod["spec"].get("ephemeralContainers") or ()}
    for before in old["spec"].get("ephemeralContainers") or ():
        after = now.get(before.get("name"))
        what = f"existing ephemeral containers {json.dumps(before.get('name'))}"
        if after is None:
            yield forbidden_field("spec.ephemeralContainers", f"{what} may not be removed\n")
        elif after != before:
            detail = f"{what} may not be changed\n{difference(before, after, 'EphemeralContainer')}"
            yield forbidden_field("spec.ephemeralContainers", detail)


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
        put_back(wanted, spec, "resources")
    return wanted


def _with_amounts(known: Obj | None, stated: Obj) -> Obj:
    if known is None:
        return stated
    container = dict(known)
    for field in ("resources", "resizePolicy"):
        put_back(container, stated, field)
    return container


def validate_resize(pod: Obj, old: Obj) -> Iterator[FieldError]:
    """A write to `/resize`: amounts of CPU and memory, without leaving the pod's quality of service."""
    spec, was = pod["spec"], old["spec"]
    if _MIRROR in (old["metadata"].get("annotations") or {}):
        yield forbidden_field("", "static pods cannot be resized")
        return
    if (was.get("os") or {}).get("name") == "windows":
        yield forbidden_field("", "windows pods cannot be resized")
        return
    yield from validate_pod_spec(spec)
    if qos_class(spec) != qos_class(was):
        yield invalid_value("spec", qos_class(was), "Pod QOS Class may not change as a result of resizing")
    if not _node_resizes(old):
        yield forbidden_field("spec", "Pod running on node without support for resize")
    reordered = list(_validate_order(spec, was))
    yield from reordered
    if reordered:
        return
    for field in reversed(_LISTS):
        for index, (before, after) in enumerate(zip(was.get(field) or (), spec.get(field) or (), strict=True)):
            at = f"spec.{field}[{index}].resources"
            yield from _validate_removed(before.get("resources") or {}, after.get("resources") or {}, at)
    yield from _validate_removed(was.get("resources") or {}, spec.get("resources") or {}, "spec.resources")
    munged = {name: value for name, value in spec.items() if name != "resources"}
    resources = _unresized_amounts(was, spec)
    if resources or "resources" in was:
        munged["resources"] = resources
    for field in _LISTS:
        if was.get(field):
            munged[field] = [_unresized(b, a) for b, a in zip(was[field], spec[field], strict=True)]
            yield from _validate_rest(munged[field], was[field], field)
    if all(munged.get(field) == was.get(field) for field in _LISTS) and munged != was:
        yield forbidden_field(
            "spec", f"only cpu and memory resources are mutable\n{difference(was, munged, 'PodSpec')}"
        )


def _node_resizes(pod: Obj) -> bool:
    """A node that can resize says of a container that runs what it has been given."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        if (container.get("state") or {}).get("running") is not None:
            return container.get("resources") is not None
    return True


def _validate_order(spec: Obj, was: Obj) -> Iterator[FieldError]:
    for field in _LISTS:
        before, after = was.get(field) or [], spec.get(field) or []
        if len(before) != len(after):
            yield forbidden_field(f"spec.{field}", f"{field} may not be added or removed on resize")
            continue
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            if one.get("name") != other.get("name"):
                detail = f"{field} may not be renamed or reordered on resize"
                yield forbidden_field(f"spec.{field}[{index}].name", detail)


def _validate_rest(munged: list[Obj], was: list[Obj], field: str) -> Iterator[FieldError]:
    """Nothing but amounts changed."""
    for rest, before in zip(munged, was, strict=True):
        if rest == before:
            continue
        sidecars = " for sidecar containers" if field == "initContainers" and is_sidecar(before) else ""
        yield forbidden_field("spec", f"only cpu and memory resources{sidecars} are mutable")


def _unresized(before: Obj, after: Obj) -> Obj:
    """The new container with the old amounts of what can be resized."""
    container = dict(after)
    resources = _unresized_amounts(before, after)
    if resources or "resources" in before:
        container["resources"] = resources
    else:
        container.pop("resources", None)
    if not before.get("resizePolicy"):
        # One that had none gets what it was given in effect.
        put_back(container, before, "resizePolicy")
    return container


def _unresized_amounts(before: Obj, after: Obj) -> Obj:
    """The new resources of a container, or of a pod's spec, with the old amounts of what can be resized."""
    new, old = after.get("resources") or {}, before.get("resources") or {}
    resources = dict(new)
    for kind in ("limits", "requests"):
        amounts = {name: value for name, value in (new.get(kind) or {}).items() if name not in _RESIZABLE}
        amounts |= {name: value for name, value in (old.get(kind) or {}).items() if name in _RESIZABLE}
        if amounts == (old.get(kind) or {}):
            put_back(resources, old, kind)
        else:
            resources[kind] = amounts
    return resources


def _validate_removed(old: Mapping[str, Obj], new: Mapping[str, Obj], path: str) -> Iterator[FieldError]:
    for kind in ("requests", "limits"):
        if not (old.get(kind) or {}).keys() <= (new.get(kind) or {}).keys():
            yield forbidden_field(f"{path}.{kind}", f"resource {kind} cannot be removed")
