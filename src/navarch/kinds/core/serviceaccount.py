"""ServiceAccount: the identity of pods."""

from __future__ import annotations

from navarch.kinds.base import AGE, NAME, Strategy
from navarch.kinds.strategies import strategy


@strategy("", "ServiceAccount")
class ServiceAccountStrategy(Strategy):
    returns_deleted = True
    columns = (NAME, AGE)
