"""PersistentVolume: one well-formed source, which never changes; capacity, modes, reclaim policy."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from posixpath import normpath
from typing import Any, Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_dns_subdomain, validate_immutable
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.cells import STORAGE_CLASSES, VOLUME_MODE, access_modes, storage_phase
from navarch.kinds.core.node_warnings import RENAMED_NODE_LABELS
from navarch.kinds.core.pod_defaults import SHARED_VOLUME_DEFAULTS
from navarch.kinds.core.pod_validation_resources import read_amount, whole
from navarch.kinds.core.pod_validation_scheduling import validate_node_selector
from navarch.kinds.core.pod_validation_volumes import validate_access_modes
from navarch.kinds.core.storage_warnings import MOUNT_OPTIONS_ANNOTATION, volume_warnings
from navarch.kinds.core.volume_sources import (
    PERSISTENT_SOURCES,
    validate_iscsi_persistent_name,
    validate_one_source,
)
from navarch.kinds.internal import difference, internal
from navarch.kinds.strategies import strategy

_RECLAIM_POLICIES: Final = ("Delete", "Recycle", "Retain")
_VOLUME_MODES: Final = ("Block", "Filesystem")
_SOURCE_TYPE: Final = "PersistentVolumeSource"
# The sources that an annotation may say the mount options of.
_OPTION_SOURCES: Final = frozenset({
    "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "gcePersistentDisk", "glusterfs", "iscsi",
    "nfs", "photonPersistentDisk", "quobyte", "rbd", "vsphereVolume",
})  # fmt: skip


def _modes_cell(obj: Obj, now: datetime) -> str:
    return access_modes(obj["spec"].get("accessModes") or ())


def _claim_cell(obj: Obj, now: datetime) -> str:
    claim = obj["spec"].get("claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


@strategy("", "PersistentVolume")
class PersistentVolumeStrategy(Strategy):
    returns_deleted = True
    nulls_within = ("spec.azureFile.secretNamespace",)
    columns = (
        NAME,
        Column("Capacity", ".spec.capacity.storage", description="How much it holds"),
        Column("Access Modes", _modes_cell, description="How it can be mounted"),
        Column("Reclaim Policy", ".spec.persistentVolumeReclaimPolicy", description="What follows its release"),
        Column("Status", storage_phase, description="Where it is in its life"),
        Column("Claim", _claim_cell, description="The claim that has it"),
        *STORAGE_CLASSES,
        Column("Reason", ".status.reason", description="Why it is in that state"),
        AGE,
        VOLUME_MODE,
    )

    def defaults(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
        spec.setdefault("volumeMode", "Filesystem")
        for field, fill in SHARED_VOLUME_DEFAULTS.items():
            if spec.get(field) is not None:
                fill(spec[field])
        if spec.get("claimRef"):
            spec["claimRef"].setdefault("kind", "PersistentVolumeClaim")
            spec["claimRef"].setdefault("apiVersion", "v1")

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {"phase": "Pending"}
        if now := obj["metadata"].get("creationTimestamp"):
            obj["status"]["lastPhaseTransitionTime"] = now

    def warnings(self, obj: Obj, old: Obj | None) -> Iterator[str]:
        return volume_warnings(obj)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec, name = obj["spec"], obj["metadata"].get("name") or ""
        yield from validate_volume_spec(spec, "spec", name)
        if MOUNT_OPTIONS_ANNOTATION in (obj["metadata"].get("annotations") or ()) and not _OPTION_SOURCES & spec.keys():
            detail = "may not specify mount options for this volume type"
            yield forbidden_field(f"metadata.annotations.{MOUNT_OPTIONS_ANNOTATION}", detail)
        if old is not None:
            # Kubernetes looks twice, and says everything twice.
            yield from validate_volume_spec(spec, "spec", name)
            yield from _validate_update(spec, old["spec"])


def _validate_update(spec: Obj, was: Obj) -> Iterator[FieldError]:
    before, after = (_source_of(each) for each in (was, spec))
    csi, old_csi = after.get("csi"), before.get("csi")
    if csi is not None and old_csi is not None and old_csi.get("controllerExpandSecretRef") is None:
        # Who expands volumes may come later.
        after["csi"] = {name: value for name, value in csi.items() if name != "controllerExpandSecretRef"}
    if before != after:
        detail = f"spec.persistentvolumesource is immutable after creation\n{difference(before, after, _SOURCE_TYPE)}"
        yield forbidden_field("spec.persistentvolumesource", detail)
    yield from validate_immutable(spec.get("volumeMode"), was.get("volumeMode"), "volumeMode")
    affinity, old_affinity = spec.get("nodeAffinity"), was.get("nodeAffinity")
    if old_affinity is not None and affinity != old_affinity and affinity != _renewed(old_affinity, affinity):
        shown = internal(affinity, "VolumeNodeAffinity")
        yield invalid_value("nodeAffinity", shown, "field is immutable, except for updating from beta label to GA")
    attributes = "volumeAttributesClassName"
    if was.get(attributes) is not None and spec.get(attributes) is None:
        yield forbidden_field(f"spec.{attributes}", "update from non-nil value to nil is forbidden")


def _renewed(old: Any, new: Any) -> Any:
    """The old node affinity with those labels by their newer names that the new one calls so."""
    if isinstance(old, list) and isinstance(new, list):
        return [_renewed(was, now) for was, now in zip(old, new, strict=False)] + old[len(new) :]
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return old
    renewed = {name: _renewed(value, new.get(name)) for name, value in old.items()}
    key = old.get("key")
    if isinstance(key, str) and new.get("key") == RENAMED_NODE_LABELS.get(key):
        renewed["key"] = new["key"]
    return renewed


def _source_of(spec: Obj) -> Obj:
    return {source.field: spec[source.field] for source in PERSISTENT_SOURCES if spec.get(source.field) is not None}


def validate_volume_spec(spec: Obj, path: str, name: str, *, inline: bool = False) -> Iterator[FieldError]:
    """What a persistent volume is; `inline`: as a VolumeAttachment says it, without claim, capacity and class."""
    context = "in the context of inline volumes"
    if inline:
        for field in ("claimRef", "capacity"):
            if spec.get(field):
                yield forbidden_field(f"{path}.{field}", f"may not be specified {context}")
        if spec.get("csi") is None:
            yield required(f"{path}.csi", f"has to be specified {context}")
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required(f"{path}.accessModes")
    yield from validate_access_modes(modes, f"{path}.accessModes")
    if not inline:
        yield from _validate_capacity(spec.get("capacity"), f"{path}.capacity")
    policy, at = spec.get("persistentVolumeReclaimPolicy") or "", f"{path}.persistentVolumeReclaimPolicy"
    if policy and inline and policy != "Retain":
        yield forbidden_field(at, f"may only be Retain {context}")
    elif policy and not inline and policy not in _RECLAIM_POLICIES:
        yield not_supported(at, policy, _RECLAIM_POLICIES)
    affinity = spec.get("nodeAffinity")
    if affinity is not None and inline:
        yield forbidden_field(f"{path}.nodeAffinity", f"may not be specified {context}")
    elif affinity is not None and affinity.get("required") is None:
        yield required(f"{path}.nodeAffinity.required", "must specify required node constraints")
    elif affinity is not None:
        yield from validate_node_selector(affinity["required"], f"{path}.nodeAffinity.required")
    yield from _validate_source(spec, path, name)
    yield from _validate_class(spec, path, context if inline else "")


def _validate_capacity(capacity: Obj | None, path: str) -> Iterator[FieldError]:
    if not capacity:
        yield required(path)
    if not capacity or "storage" not in capacity or len(capacity) > 1:
        yield not_supported(path, capacity, ("storage",))
    for name, value in (capacity or {}).items():
        amount = read_amount(value)
        if amount is not None and amount < 0:
            yield invalid_value(f"{path}[{name}]", whole(amount), "must be a valid resource quantity")
        if amount is None or amount <= 0:
            yield invalid_value(f"{path}[{name}]", str(value), "must be greater than zero")


def _validate_source(spec: Obj, path: str, name: str) -> Iterator[FieldError]:
    yield from validate_one_source(spec, PERSISTENT_SOURCES, path)
    if spec.get("iscsi") is not None:
        yield from validate_iscsi_persistent_name(spec["iscsi"], name, path)
    if spec.get("local") is not None and spec.get("nodeAffinity") is None:
        yield required(f"{path}.nodeAffinity", "Local volume requires node affinity")
    host = (spec.get("hostPath") or {}).get("path") or ""
    if host and normpath(host).lstrip("/") == "" and spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        yield forbidden_field(f"{path}.persistentVolumeReclaimPolicy", detail)


def _validate_class(spec: Obj, path: str, inline: str) -> Iterator[FieldError]:
    if spec.get("storageClassName") and inline:
        yield forbidden_field(f"{path}.storageClassName", f"may not be specified {inline}")
    elif spec.get("storageClassName"):
        yield from validate_dns_subdomain(spec["storageClassName"], f"{path}.storageClassName")
    mode = spec.get("volumeMode")
    if mode is not None and inline and mode != "Filesystem":
        yield forbidden_field(f"{path}.volumeMode", f"may not specify volumeMode other than Filesystem {inline}")
    elif mode is not None and not inline and mode not in _VOLUME_MODES:
        yield not_supported(f"{path}.volumeMode", mode, _VOLUME_MODES)
    attributes = spec.get("volumeAttributesClassName")
    if attributes is not None:
        at = f"{path}.volumeAttributesClassName"
        if attributes:
            yield from validate_dns_subdomain(attributes, at)
        else:
            yield required(at, "an empty string is disallowed")
        if spec.get("csi") is None:
            yield required(f"{path}.csi", "has to be specified when using volumeAttributesClassName")
