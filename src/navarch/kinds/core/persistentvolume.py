"""PersistentVolume: one well-formed source, which never changes; capacity, modes, reclaim policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from navarch.api.meta import Obj
from navarch.api.validation import validate_dns_subdomain
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.core.cells import STORAGE_CLASSES, VOLUME_MODE, access_modes, storage_phase
from navarch.kinds.core.pod_defaults import SHARED_VOLUME_DEFAULTS
from navarch.kinds.core.pod_validation_resources import read_amount
from navarch.kinds.core.pod_validation_scheduling import validate_node_selector
from navarch.kinds.core.pod_validation_volumes import SHARED_SOURCES
from navarch.kinds.strategies import strategy

_SOURCES: Final = frozenset({*SHARED_SOURCES, "local", "storageos", "flocker"})
_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def _modes_cell(obj: Obj, now: datetime) -> str:
    return access_modes(obj["spec"].get("accessModes") or ())


def _claim_cell(obj: Obj, now: datetime) -> str:
    claim = obj["spec"].get("claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


@strategy("", "PersistentVolume")
class PersistentVolumeStrategy(Strategy):
    returns_deleted = True
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

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj["spec"]
        yield from _validate_spec(spec)
        if old is None:
            return
        for source in sorted(_SOURCES):
            before, after = old["spec"].get(source), spec.get(source)
            if before != after:
                detail = (
                    "spec.persistentvolumesource is immutable after creation\n"
                    f"- {json.dumps({source: before})}\n+ {json.dumps({source: after})}"
                )
                yield forbidden_field("spec.persistentvolumesource", detail)
        if old["spec"].get("volumeMode") != spec.get("volumeMode"):
            yield invalid_value("spec.volumeMode", spec.get("volumeMode"), "field is immutable")
        before = old["spec"].get("nodeAffinity")
        if before is not None and spec.get("nodeAffinity") != before:
            yield invalid_value("spec.nodeAffinity", spec.get("nodeAffinity"), "field is immutable")


def _validate_spec(spec: Obj) -> Iterator[FieldError]:
    modes = spec.get("accessModes") or ()
    if not modes:
        yield required("spec.accessModes")
    for mode in modes:
        if mode not in _MODES:
            yield not_supported("spec.accessModes", mode, _MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        yield forbidden_field("spec.accessModes", "may not use ReadWriteOncePod with other access modes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        yield required("spec.capacity")
    elif "storage" not in capacity or len(capacity) > 1:
        yield not_supported("spec.capacity", capacity, ("storage",))
    for name, value in capacity.items():
        amount = read_amount(value)
        if amount is None or amount <= 0:
            yield invalid_value(f"spec.capacity[{name}]", str(value), "must be greater than zero")
    policy = spec.get("persistentVolumeReclaimPolicy") or ""
    if policy not in ("Delete", "Recycle", "Retain"):
        yield not_supported("spec.persistentVolumeReclaimPolicy", policy, ("Delete", "Recycle", "Retain"))
    affinity = spec.get("nodeAffinity")
    if affinity is not None:
        if affinity.get("required") is None:
            yield required("spec.nodeAffinity.required", "must specify required node constraints")
        else:
            yield from validate_node_selector(affinity["required"], "spec.nodeAffinity.required")
    yield from _validate_source(spec)
    if spec.get("storageClassName"):
        yield from validate_dns_subdomain(spec["storageClassName"], "spec.storageClassName")
    if spec.get("volumeMode") not in ("Block", "Filesystem"):
        yield not_supported("spec.volumeMode", spec.get("volumeMode") or "", ("Block", "Filesystem"))


def _validate_source(spec: Obj) -> Iterator[FieldError]:
    given = [field for field in spec if field in _SOURCES and spec[field] is not None]
    if not given:
        yield required("spec", "must specify a volume type")
        return
    for surplus in given[1:]:
        yield forbidden_field(f"spec.{surplus}", "may not specify more than 1 volume type")
    name = given[0]
    if name == "local":
        if not spec["local"].get("path"):
            yield required("spec.local.path")
        if spec.get("nodeAffinity") is None:
            yield required("spec.nodeAffinity", "Local volume requires node affinity")
    elif name == "csi" and not spec["csi"].get("volumeHandle"):
        yield required("spec.csi.volumeHandle")
    check = SHARED_SOURCES.get(name)
    if check is not None:
        yield from check(spec[name], f"spec.{name}")
