"""What a write is: who asks for it (`Origin`), in which manner (`How`), what goes with it (`Commit`), and what came of
it (`Written`)."""

from __future__ import annotations

from dataclasses import field, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

from navarch.api.alike import Alike
from navarch.api.meta import Obj
from navarch.api.status_outcomes import Outcome
from navarch.apiserver.admitting import NOT_ADMITTED, Admission
from navarch.apiserver.codec import decode
from navarch.apiserver.companions import NOTHING, Holding
from navarch.apiserver.served import ServedKind
from navarch.apiserver.user import LOOPBACK, User
from navarch.kinds.base import Requester
from navarch.records import frozen, mutable


@mutable
class Origin:
    """Who writes and how: what the pipeline must know of a request beyond the object."""

    user: User = LOOPBACK
    manager: str = "navarch"
    dry_run: bool = False
    options: Obj = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    # Bytes that the request states: big objects are looked at beside the event loop.
    size: int = 0
    # The kind that the request names, where functions convert it to another version that is written: what is wrong is
    # said, and what is owned is kept, in that version's words.
    requested: ServedKind | None = None
    # Of a write through `/status` that is like others, what is known of those.
    outcome: Outcome | None = None
    # Of a new object that is like others, and has all defaults already, what they have in common.
    alike: Alike | None = None

    def requester(self) -> Requester:
        user = self.user
        return Requester(user.name, tuple(user.groups), user.uid, user.extra)

    def creating(self) -> Origin:
        """The same, for an update that turns out to create."""
        return replace(self, options={**self.options, "kind": "CreateOptions"})


@mutable
class Written:
    """The outcome: `data` are the bytes that a client of the kind's version reads; `gone` that the change let a
    deletion finish."""

    data: bytes
    revision: int
    created: bool = False
    gone: bool = False

    def obj(self) -> Obj:
        return decode(self.data)


class View(Protocol):
    """An object as a subresource of another kind shows it."""

    def of(self, obj: Obj) -> Obj: ...

    def put(self, obj: Obj, shown: Obj) -> None:
        """Make the object say what is shown."""
        ...


class Commit(NamedTuple):
    """What goes with a commit: who is told that it happened, and what is written beside the object."""

    admitted: Admission = NOT_ADMITTED
    holding: Holding = NOTHING


@frozen
class How:
    """The manner of a change: through which subresource; whether the pipeline records field ownership (server-side
    apply does that itself); whether admission looks at it here (what a Binding does to a pod was admitted as such), and
    as what (`view`: a Scale); whether `wanted` is a function of what is stored (`patch`), so that losing a race means
    doing it again: the revision that such a change carries is the stored one, unless it states another."""

    subresource: str = ""
    manage: bool = True
    admit: bool = True
    patch: bool = False
    view: View | None = None


MAIN = How()
# The same few again and again: there are as many as subresources.
how_of = lru_cache(256)(How)


class Wanted(Protocol):
    def __call__(self, old: Obj) -> Obj:
        """The object as it shall be; what it shares with `old` the pipeline does not change in place."""
        ...
