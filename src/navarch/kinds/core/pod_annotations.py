"""Annotations of pods, and of their templates, that mean something to Kubernetes: mirror pods, deletion costs, and the
profiles of seccomp and AppArmor that annotations carried before there were fields.

In: annotations and the spec beside them, with their paths.  Out: field errors in Kubernetes' words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value
from navarch.api.meta import Obj
from navarch.kinds.core.pod_validation_security import validate_app_armor
from navarch.kinds.core.volume_sources import validate_relative_path

MIRROR: Final = "kubernetes.io/config.mirror"
_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
APP_ARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_POD: Final = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER: Final = "container.seccomp.security.alpha.kubernetes.io/"
_COST: Final = re.compile(r"0|-?[1-9][0-9]*").fullmatch
_INT32: Final = range(-(2**31), 2**31)
_LISTS: Final = ("initContainers", "containers", "ephemeralContainers")


def validate_pod_annotations(annotations: Mapping[str, str], spec: Obj, path: str) -> Iterator[FieldError]:
    """What annotations with a meaning say by themselves."""
    mirrored = annotations.get(MIRROR)
    if mirrored is not None and not spec.get("nodeName"):
        yield invalid_value(f"{path}[{MIRROR}]", mirrored, "must set spec.nodeName if mirror pod annotation is set")
    cost = annotations.get(_DELETION_COST)
    if cost is not None and not (len(cost) < 12 and _COST(cost) and int(cost) in _INT32):
        yield invalid_value(f"{path}[{_DELETION_COST}]", cost, "must be a 32bit integer")
    if (profile := annotations.get(_SECCOMP_POD)) is not None:
        yield from _validate_seccomp(profile, f"{path}.{_SECCOMP_POD}")
    for key, value in annotations.items():
        if key.startswith(_SECCOMP_CONTAINER):
            yield from _validate_seccomp(value, f"{path}.{key}")
    for key, value in annotations.items():
        if key.startswith(APP_ARMOR):
            name = key.removeprefix(APP_ARMOR)
            if not any(c.get("name") == name for field in _LISTS for c in spec.get(field) or ()):
                yield invalid_value(f"{path}[{key}]", name, "container not found")
            if value not in ("", "runtime/default", "unconfined") and not value.startswith("localhost/"):
                yield invalid_value(f"{path}[{key}]", value, f'invalid AppArmor profile name: "{value}"')


def _validate_seccomp(profile: str, path: str) -> Iterator[FieldError]:
    if profile.startswith("localhost/"):
        yield from validate_relative_path(profile.removeprefix("localhost/"), path)
    elif profile not in ("runtime/default", "docker/default", "unconfined"):
        yield invalid_value(path, profile, "must be a valid seccomp profile")


def app_armor_profile(annotation: str) -> Obj | None:
    """What the field would say instead; None where an annotation says nothing that it could."""
    if annotation == "unconfined":
        return {"type": "Unconfined"}
    if annotation == "runtime/default":
        return {"type": "RuntimeDefault"}
    name = annotation.removeprefix("localhost/")
    if name == annotation or next(validate_app_armor({"type": "Localhost", "localhostProfile": name}, ""), None):
        return None
    return {"type": "Localhost", "localhostProfile": name}


def annotated_profiles(annotations: Mapping[str, str], spec: Obj) -> Iterator[tuple[str, Obj, Obj | None]]:
    """Of containers that have no AppArmor profile but an annotation for one: its key, the container, and the profile
    that it means, None for none. Not those where it means the pod's."""
    whole = (spec.get("securityContext") or {}).get("appArmorProfile")
    for field in _LISTS:
        for container in spec.get(field) or ():
            key = APP_ARMOR + (container.get("name") or "")
            if key in annotations and (container.get("securityContext") or {}).get("appArmorProfile") is None:
                profile = app_armor_profile(annotations[key])
                if profile is None or profile != whole:
                    yield key, container, profile


def take_annotated_profiles(pod: Obj) -> None:
    """AppArmor profiles that a new pod's annotations name become its containers' own."""
    annotations, spec = pod["metadata"].get("annotations"), pod["spec"]
    if not annotations or (spec.get("os") or {}).get("name") == "windows":
        return
    for _, container, profile in annotated_profiles(annotations, spec):
        if profile is not None:
            container["securityContext"] = {**(container.get("securityContext") or {}), "appArmorProfile": profile}


def validate_annotation_changes(pod: Obj, old: Obj) -> Iterator[FieldError]:
    """Annotations that say what a pod is from the start stay as they are."""
    now, before = pod["metadata"].get("annotations") or {}, old["metadata"].get("annotations") or {}
    if now == before:
        return
    for key, value in before.items():
        if now.get(key) != value:
            if key.startswith(APP_ARMOR):
                yield forbidden_field(f"metadata.annotations[{key}]", "may not remove or update AppArmor annotations")
            elif key == MIRROR:
                detail = "may not remove or update mirror pod annotation"
                yield forbidden_field(f"metadata.annotations[{key}]", detail)
    for key in now:
        if key in before:
            continue
        if key.startswith(APP_ARMOR):
            yield forbidden_field(f"metadata.annotations[{key}]", "may not add AppArmor annotations")
        elif key == MIRROR:
            yield forbidden_field(f"metadata.annotations[{key}]", "may not add mirror pod annotation")


def validate_profiles_agree(annotations: Mapping[str, str], spec: Obj, path: str) -> Iterator[FieldError]:
    """Where a profile is named by a field and by an annotation, both name the same."""
    if not any(".security." in key for key in annotations):
        return
    whole = spec.get("securityContext") or {}
    if whole.get("seccompProfile") is not None and _SECCOMP_POD in annotations:
        at = f"{path}.securityContext.seccompProfile"
        yield from _agree(annotations[_SECCOMP_POD], whole["seccompProfile"], "seccomp", at)
    on_windows = (spec.get("os") or {}).get("name") == "windows"
    for word, key, field in (
        ("seccomp", _SECCOMP_CONTAINER, "seccompProfile"),
        ("apparmor", APP_ARMOR, "appArmorProfile"),
    ):
        for listed in _LISTS:
            for index, container in enumerate(spec.get(listed) or ()):
                profile = (container.get("securityContext") or {}).get(field)
                if word == "apparmor":
                    profile = None if on_windows else profile or whole.get(field)
                annotation = annotations.get(key + (container.get("name") or ""))
                if profile is not None and annotation is not None:
                    at = f"{path}.{listed}[{index}].securityContext.{field}"
                    yield from _agree(annotation, profile, word, at)


def _agree(annotation: str, profile: Obj, word: str, path: str) -> Iterator[FieldError]:
    kind = profile.get("type")
    if kind == "Unconfined":
        same = annotation == "unconfined"
    elif kind == "RuntimeDefault":
        same = annotation == "runtime/default" or (word == "seccomp" and annotation == "docker/default")
    elif kind == "Localhost":
        same = annotation.startswith("localhost/")
        if same and annotation.removeprefix("localhost/") != profile.get("localhostProfile"):
            yield forbidden_field(f"{path}.localhostProfile", f"{word} profile in annotation and field must match")
    else:
        same = True
    if not same:
        yield forbidden_field(f"{path}.type", f"{word} type in annotation and field must match")
