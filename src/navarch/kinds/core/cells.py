"""Cells that several core kinds show: access modes, the creation time as such."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from navarch.api.meta import Obj
from navarch.kinds.base import Column

NONE: Final = "<none>"
UNSET: Final = "<unset>"
_SHORT_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def access_modes(modes: Iterable[str]) -> str:
    """`RWO,ROX`: each mode once, in Kubernetes' order."""
    given = set(modes)
    return ",".join(short for mode, short in _SHORT_MODES.items() if mode in given)


def _created_cell(obj: Obj, now: datetime) -> str:
    return str(obj["metadata"].get("creationTimestamp") or "")


CREATED_AT: Final = Column("Created At", _created_cell, type="date", description="When the object was created")
