"""ComponentStatus: the old way of asking how the control plane is; answered, never stored."""

from __future__ import annotations

from datetime import datetime

from navarch.api.meta import Obj
from navarch.kinds.base import NAME, Column, Strategy
from navarch.kinds.strategies import strategy


def _condition(obj: Obj) -> Obj:
    """The one condition that component statuses have."""
    conditions = obj.get("conditions") or ()
    return next((each for each in conditions if each.get("type") == "Healthy"), {})


def _status_cell(obj: Obj, now: datetime) -> str:
    status = _condition(obj).get("status")
    return {"True": "Healthy", "False": "Unhealthy"}.get(str(status), "Unknown")


def _message_cell(obj: Obj, now: datetime) -> str:
    return str(_condition(obj).get("message") or "")


def _error_cell(obj: Obj, now: datetime) -> str:
    return str(_condition(obj).get("error") or "")


@strategy("", "ComponentStatus")
class ComponentStatusStrategy(Strategy):
    deprecation = "v1 ComponentStatus is deprecated in v1.19+"
    columns = (
        NAME,
        Column("Status", _status_cell, description="Whether the component is healthy"),
        Column("Message", _message_cell, description="What it says of itself"),
        Column("Error", _error_cell, description="What is wrong with it"),
    )
