"""Reinvocation: which of those that may change a write are asked once more, because a later one changed something.

Kept per plugin and write. What is asked is told by a key: a webhook, or a policy with its binding and parameters.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import orjson

from navarch.api.meta import Obj

T = TypeVar("T", bound=Hashable)


class Rounds(Generic[T]):
    """Those that want to be asked again, and were asked before something changed."""

    def __init__(self) -> None:
        self.called: list[T] = []
        self.once_more: set[T] = set()
        self._last = b""

    def changed(self) -> None:
        self.once_more.update(self.called)
        self.called.clear()

    def ended(self, obj: Obj | None) -> None:
        if self.called or self.once_more:
            self._last = orjson.dumps(obj)

    def begin_again(self, obj: Obj | None) -> None:
        if self.called and orjson.dumps(obj) != self._last:
            # By a plugin of the server's own.
            self.changed()
