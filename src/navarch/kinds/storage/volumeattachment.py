"""VolumeAttachment: validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError, required
from navarch.api.meta import Obj, get_path
from navarch.api.validation import validate_immutable
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.strategies import strategy


@strategy("storage.k8s.io", "VolumeAttachment")
class VolumeAttachmentStrategy(Strategy):
    allow_unconditional_update = False
    status_keeps = SETTABLE_METADATA
    columns = (
        NAME,
        Column("Attacher", ".spec.attacher", format="name"),
        Column("PV", lambda obj, now: get_path(obj, "spec.source.persistentVolumeName", "")),
        Column("Node", ".spec.nodeName"),
        Column("Attached", lambda obj, now: get_path(obj, "status.attached", False), type="boolean"),
        AGE,
    )

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {"attached": False}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        source = spec.get("source") or {}
        if not spec.get("attacher"):
            yield required("spec.attacher")
        if not spec.get("nodeName"):
            yield required("spec.nodeName")
        inline, claimed = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
        if inline is None and claimed is None:
            yield required("spec.source", "must specify one of inlineVolumeSpec and persistentVolumeName")
        elif inline is not None and claimed is not None:
            detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            yield FieldError("FieldValueForbidden", "spec.source", detail)
        elif claimed == "":
            yield required("spec.source.persistentVolumeName", "must specify non empty persistentVolumeName")
        if old is not None:
            yield from validate_immutable(spec, old.get("spec"), "spec")
