"""PodCertificateRequest: a kubelet's request for a certificate that a pod's volume asks for. Columns, validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from navarch.api.errors import FieldError, required
from navarch.api.meta import Obj, Resource
from navarch.api.validation import validate_immutable
from navarch.kinds.base import AGE, NAME, SETTABLE_METADATA, Column, Strategy
from navarch.kinds.strategies import strategy

_REQUIRED: Final = (
    "signerName",
    "podName",
    "podUID",
    "serviceAccountName",
    "serviceAccountUID",
    "nodeName",
    "nodeUID",
)


def _state_cell(obj: Obj, now: datetime) -> str:
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") in ("Issued", "Denied", "Failed") and condition.get("status") == "True":
            return str(condition["type"])
    return "Pending"


@strategy("certificates.k8s.io", "PodCertificateRequest")
class PodCertificateRequestStrategy(Strategy):
    status_keeps = SETTABLE_METADATA
    selectable = ("spec.signerName", "spec.podName", "spec.nodeName")
    columns = (
        NAME,
        Column("PodName", ".spec.podName"),
        Column("ServiceAccountName", ".spec.serviceAccountName"),
        Column("NodeName", ".spec.nodeName"),
        Column("SignerName", ".spec.signerName"),
        Column("State", _state_cell),
        AGE,
    )

    def selector_fields(self, resource: Resource) -> Mapping[str, str]:
        return {name: name for name in ("metadata.name", *self.selectable)}

    def prepare_create(self, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        for name in _REQUIRED:
            if not spec.get(name):
                yield required(f"spec.{name}")
        if old is not None:
            yield from validate_immutable(spec, old.get("spec"), "spec")
