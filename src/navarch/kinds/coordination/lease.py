"""Lease: validation, columns."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.errors import FieldError, invalid_value
from navarch.api.meta import Obj
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy


@strategy("coordination.k8s.io", "Lease")
class LeaseStrategy(Strategy):
    allow_create_on_update = True
    allow_unconditional_update = False
    columns = (NAME, Column("Holder", ".spec.holderIdentity"), AGE)

    def prepare_create(self, obj: Obj) -> None:
        _drop_election(obj, {})

    def prepare_update(self, obj: Obj, old: Obj) -> None:
        _drop_election(obj, old.get("spec") or {})

    def complete(self, obj: Obj) -> None:
        super().complete(obj)
        obj.setdefault("spec", {})

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        spec = obj.get("spec") or {}
        if (duration := spec.get("leaseDurationSeconds")) is not None and duration <= 0:
            yield invalid_value("spec.leaseDurationSeconds", duration, "must be greater than 0")
        if (transitions := spec.get("leaseTransitions")) is not None and transitions < 0:
            yield invalid_value("spec.leaseTransitions", transitions, "must be greater than or equal to 0")


def _drop_election(obj: Obj, used: Obj) -> None:
    """Leaders are not elected by the server: the feature is off, and its fields are not kept."""
    for name in ("preferredHolder", "strategy"):
        if name in (obj.get("spec") or {}) and name not in used:
            del obj["spec"][name]
