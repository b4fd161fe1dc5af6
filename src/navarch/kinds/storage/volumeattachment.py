"""VolumeAttachment: validation, columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.errors import FieldError, forbidden_field, invalid_value, required, too_long
from navarch.api.meta import Obj, get_path
from navarch.api.validation import dns_subdomain_problems, range_problem
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.core.persistentvolume import validate_volume_spec
from navarch.kinds.internal import immutable_internal
from navarch.kinds.storage.csi import validate_driver_name
from navarch.kinds.strategies import strategy

_MAX_TOLD_BYTES: Final = 256 * 1024
_MAX_MESSAGE_BYTES: Final = 1024


@strategy("storage.k8s.io", "VolumeAttachment")
class VolumeAttachmentStrategy(Strategy):
    allow_unconditional_update = False
    returns_deleted = True
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
        attacher, claimed = spec.get("attacher") or "", source.get("persistentVolumeName")
        yield from validate_driver_name(attacher, "spec.attacher")
        yield from _validate_source(source.get("inlineVolumeSpec"), claimed)
        for problem in dns_subdomain_problems(spec.get("nodeName") or ""):
            yield invalid_value("spec.nodeName", spec.get("nodeName") or "", problem)
        for problem in dns_subdomain_problems(claimed) if claimed and old is None else ():
            yield invalid_value("spec.source.persistentVolumeName", claimed, problem)
        if old is not None:
            yield from _validate_status(obj.get("status") or {})
            yield from immutable_internal(spec, old.get("spec"), "spec", "VolumeAttachmentSpec")

    def validate_status(self, obj: Obj, old: Obj) -> Iterator[FieldError]:
        return _validate_status(obj.get("status") or {})


def _validate_status(status: Obj) -> Iterator[FieldError]:
    """What the driver said of the attachment, and what went wrong, is not without bound."""
    told = status.get("attachmentMetadata") or {}
    if sum(len(name.encode()) + len(value.encode()) for name, value in told.items()) > _MAX_TOLD_BYTES:
        yield too_long("status.attachmentMetadata", _MAX_TOLD_BYTES)
    for name in ("attachError", "detachError"):
        error = status.get(name) or {}
        if len((error.get("message") or "").encode()) > _MAX_MESSAGE_BYTES:
            # The limit that is named is another's in Kubernetes, too.
            yield too_long(f"status.{name}.message", _MAX_TOLD_BYTES)
        if (code := error.get("errorCode")) is not None and code < 0:
            yield invalid_value(f"status.{name}.errorCode", code, range_problem(0, 2**31 - 1))


def _validate_source(inline: Obj | None, claimed: str | None) -> Iterator[FieldError]:
    detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
    if inline is None and claimed is None:
        yield required("spec.source", detail)
    elif inline is not None and claimed is not None:
        yield forbidden_field("spec.source", detail)
    elif claimed == "":
        yield required("spec.source.persistentVolumeName", "must specify non empty persistentVolumeName")
    elif inline is not None:
        yield from validate_volume_spec(inline, "spec.source.inlineVolumeSpec", "", inline=True)
