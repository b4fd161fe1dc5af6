"""Where strategies are found: each kind module registers its own with `@strategy(group, kind)`; `lookup` answers.

A kind whose module registers nothing gets the plain `Strategy`, so that every kind of the schema can be stored, and
particular behaviour is only ever an addition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from navarch.kinds.base import Strategy

S = TypeVar("S", bound=type[Strategy])

_strategies: Final[dict[tuple[str, str], Strategy]] = {}
_PLAIN: Final = Strategy()


def strategy(group: str, kind: str) -> Callable[[S], S]:
    """Class decorator: one instance of the class serves the kind, in all of its versions. A kind has one strategy: a
    second one is an error, since which of the two serves would depend on the order of imports."""

    def register(cls: S) -> S:
        other = _strategies.get((group, kind))
        if other is not None and type(other).__module__ != cls.__module__:
            raise ValueError(f"{kind} of group {group!r} has a strategy in {type(other).__module__} already")
        _strategies[group, kind] = cls()
        return cls

    return register


def lookup(group: str, kind: str) -> Strategy:
    """The kind's strategy; the plain one where it has none of its own."""
    return _strategies.get((group, kind), _PLAIN)
