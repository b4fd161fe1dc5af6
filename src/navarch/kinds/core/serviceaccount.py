"""ServiceAccount: the identity of pods."""

from __future__ import annotations

from datetime import datetime

from navarch.api.meta import Obj
from navarch.kinds.base import AGE, NAME, Column, Strategy
from navarch.kinds.strategies import strategy


def _secrets_cell(obj: Obj, now: datetime) -> int:
    return len(obj.get("secrets") or ())


@strategy("", "ServiceAccount")
class ServiceAccountStrategy(Strategy):
    returns_deleted = True
    columns = (NAME, Column("Secrets", _secrets_cell, description="How many secrets it names"), AGE)
