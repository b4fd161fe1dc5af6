"""ControllerRevision: the immutable snapshots that StatefulSets and DaemonSets keep of their templates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from navarch.api.errors import FieldError, required
from navarch.api.meta import Obj, controller_of
from navarch.api.validation import validate_immutable, validate_non_negative
from navarch.kinds import columns
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy


def _controller_cell(obj: Obj, now: datetime) -> str:
    owner = controller_of(obj)
    if owner is None:
        return "<none>"
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    kind = str(owner.get("kind", "")).lower()
    return f"{kind}.{group}/{owner.get('name')}" if group else f"{kind}/{owner.get('name')}"


@strategy("apps", "ControllerRevision")
class ControllerRevisionStrategy(Strategy):
    columns = (
        NAME,
        Column("Controller", _controller_cell, description="Controller of the object"),
        Column("Revision", columns.count("revision")),
        AGE,
    )

    def defaults(self, obj: Obj) -> None:
        obj.setdefault("revision", 0)

    def validate(self, obj: Obj, old: Obj | None) -> Iterator[FieldError]:
        if obj.get("data") is None:
            yield required("data", "data is mandatory")
        yield from validate_non_negative(obj.get("revision", 0), "revision")
        if old is not None:
            yield from validate_immutable(obj.get("data"), old.get("data"), "data")
