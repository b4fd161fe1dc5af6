"""Work whose length is not known before it is begun: it is given up where others wait for it, and done elsewhere.

In: how much work a step was.  Out: leave to go on, or `TooLongError` for who called. An event loop serves nobody while
an expression is evaluated; most take microseconds, and one that somebody meant ill may take seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_WAITED_FOR: Final = ContextVar("waited for", default=False)


class TooLongError(Exception):
    """Nothing was done: it has to be done where nobody waits for it."""


def waited_for() -> bool:
    """Whether others wait until what runs is done."""
    return _WAITED_FOR.get()


def impatiently(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Raises TooLongError, and what the function raises."""
    token = _WAITED_FOR.set(True)
    try:
        return function(*args, **kwargs)
    finally:
        _WAITED_FOR.reset(token)
