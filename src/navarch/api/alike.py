"""Objects that say the same but for their names, as the pods of one template do, are decoded and completed once.

In: a new object as its body states it.  Out: the same object decoded and with all defaults, from memory where others
like it have come; and what else is known of its like (`Alike`). Only objects that decoding has nothing against are
remembered, and of those only what comes a second time.

Invariant: an object that is given out shares nothing with the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from navarch.api.errors import Obj

_MOST: Final = 64
# How often asking may be in vain before it is given up, and for how many objects then.
_PATIENCE: Final = 64
_PAUSE: Final = 1024
# What new objects say of themselves; what is more is the server's to say, and rare.
_SAID: Final = frozenset(
    {"name", "generateName", "namespace", "labels", "annotations", "ownerReferences", "finalizers"}
)
_NOBODY: Final = " "


class Alike:
    """What is known of objects that are alike: their bytes, complete but for the name; what their creator owns, once
    that was asked."""

    __slots__ = ("data", "owned")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.owned: dict[str, Any] | None = None


class Templates:
    """Those of one kind."""

    __slots__ = ("_known", "_patience")

    def __init__(self) -> None:
        # None for what was seen once.
        self._known: dict[bytes, Alike | None] = {}
        self._patience = _PATIENCE

    def key_of(self, obj: Obj) -> bytes | None:
        """What an object states beside its name; None for one that is not worth being remembered."""
        metadata = obj["metadata"]
        name = metadata.get("name")
        if self._gives_up() or not metadata.keys() <= _SAID or (name is not None and type(name) is not str):
            return None
        try:
            return _nameless(obj)
        except TypeError:
            # Numbers and texts that are refused, or that only decoding makes writable.
            return None

    def find(self, key: bytes, obj: Obj) -> tuple[Obj, Alike] | None:
        """An object that states this, complete."""
        alike = self._known.get(key)
        if alike is None:
            return None
        self._patience = _PATIENCE
        found: Obj = orjson.loads(alike.data)
        if name := obj["metadata"].get("name"):
            found["metadata"]["name"] = name
        return found, alike

    def learn(self, key: bytes, obj: Obj, complete: Callable[[Obj], None]) -> Alike | None:
        """Take note of an object that was decoded without complaint; the second of its like is made complete."""
        if key not in self._known:
            if len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[key] = None
            return None
        complete(obj)
        alike = self._known[key] = Alike(_nameless(obj))
        return alike

    def _gives_up(self) -> bool:
        self._patience -= 1
        if self._patience >= 0:
            return False
        if self._patience < -_PAUSE:
            self._patience = _PATIENCE
        return True


def _nameless(obj: Obj) -> bytes:
    """The object with a name that is nobody's, if it has one.  Raises TypeError for what JSON has no words for."""
    metadata = obj["metadata"]
    name = metadata.get("name")
    if not name:
        return orjson.dumps(obj)
    metadata["name"] = _NOBODY
    try:
        return orjson.dumps(obj)
    finally:
        metadata["name"] = name
