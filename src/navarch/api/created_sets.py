"""What the creator of an object comes to own, remembered by what the object says.

In: an object that is new.  Out: its set of fields, from memory where one that says the same but for its name has been
seen: the pods of one template, and most of what else controllers and benchmarks make. Which fields there are depends on
values too (keys of list items, what is empty), so that the whole object is the key. Kinds whose objects are all
different (events) stop asking for a while.

Invariant: a set is never changed once it is here; what is given out has a first level and metadata of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

import orjson

from navarch.api.errors import Obj

_Set = dict[str, Any]

_MOST: Final = 64
# Bytes of an object that is remembered: its set is some times larger.
_LONGEST: Final = 4096
# How often asking may be in vain before it is given up, and for how many objects then.
_PATIENCE: Final = 64
_PAUSE: Final = 1024


class CreatedSets:
    """Those of one kind."""

    __slots__ = ("_known", "_patience")

    def __init__(self) -> None:
        self._known: dict[bytes, _Set] = {}
        self._patience = _PATIENCE

    def of(self, obj: Obj, make: Callable[[Obj, _Set], None]) -> _Set:
        """`make` adds the object's fields to a set that is empty."""
        self._patience -= 1
        if self._patience < 0:
            if self._patience < -_PAUSE:
                self._patience = _PATIENCE
            return _made(obj, make)
        data = orjson.dumps(_nameless(obj))
        if len(data) > _LONGEST:
            return _made(obj, make)
        key = blake2b(data, digest_size=16).digest()
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            known = self._known[key] = _made(obj, make)
        else:
            self._patience = _PATIENCE
        return own_levels(known)


def own_levels(known: _Set) -> _Set:
    """The set with a first level and metadata of its own."""
    own = dict(known)
    if metadata := own.get("f:metadata"):
        own["f:metadata"] = dict(metadata)
    return own


def _made(obj: Obj, make: Callable[[Obj, _Set], None]) -> _Set:
    out: _Set = {}
    make(obj, out)
    return out


def _nameless(obj: Obj) -> Obj:
    """The object with a name that is nobody's; it may share its parts."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict) and metadata.get("name"):
        return {**obj, "metadata": {**metadata, "name": " "}}
    return obj
