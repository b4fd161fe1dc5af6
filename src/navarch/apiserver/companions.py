"""What is written in the same commit as an object: keys that hold for it what only one object may have.

In: an object about to be stored, with what it replaces.  Out: the object with what was found for it filled in, and the
operations beside its own. The store refuses the commit when a key is held already, whoever wrote it: so that nothing is
given out twice, with any number of API servers, and nothing is held without its holder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from navarch.api.meta import Obj
from navarch.store.base import Conflict, Delete, Put

Operation = Put | Delete


class Holding(Protocol):
    """What one write takes and gives back."""

    def operations(self) -> Sequence[Operation]:
        """For the object as it is now (a generated name may have changed)."""
        ...

    async def lost(self, conflict: Conflict) -> None:
        """Another was there first: choose again (which changes the object), or find that nothing is in the way.  Raises
        StatusError where what was asked for is taken."""
        ...


class Companion(Protocol):
    """The companion of a kind."""

    def take(self, obj: Obj, old: Obj | None) -> Holding:
        """For a create, or an update of `old`; fills in `obj`.  Raises StatusError."""
        ...

    def release(self, old: Obj) -> Holding:
        """For a delete."""
        ...


class Nothing:
    """The holding of kinds without companion."""

    def operations(self) -> Sequence[Operation]:
        return ()

    async def lost(self, conflict: Conflict) -> None:
        raise conflict


NOTHING = Nothing()
