"""Admission: what may still change or refuse a write after authorization.

Plugins run in a fixed order: every `mutate` on the object as it was asked for, then, when the kind has prepared and
validated it, every `validate` on what would be stored. They see the cluster through `Reader`, the API server's own
up-to-date cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Any, Final, NamedTuple, ParamSpec, Protocol, TypeVar

from navarch.api.errors import StatusError, forbidden
from navarch.api.meta import Obj, Resource
from navarch.apiserver.longwork import SHORT, LongWork
from navarch.apiserver.user import User
from navarch.kinds.base import Kind
from navarch.records import mutable

P = ParamSpec("P")
T = TypeVar("T")


class Reader(Protocol):
    """Read access to what the API server has stored. Objects are the caller's own copies."""

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None: ...

    def list(self, resource: Resource, namespace: str = "") -> Iterable[Obj]: ...


class Writer(Protocol):
    """Writes that a plugin makes beside the request (quota usage); same rules as a client's, as the server itself."""

    async def update(self, resource: Resource, obj: Obj, subresource: str = "", manager: str = "kube-apiserver") -> Obj:
        """Raises StatusError (Conflict when `obj` is stale)."""
        ...


@mutable
class Attributes:
    """One write on its way in. `operation` is CREATE, UPDATE, DELETE or CONNECT. `obj` is what is written: for CONNECT
    and for subresources of another kind their own object (a Binding, a Scale, PodExecOptions); None for DELETE; changed
    by `mutate`. `old` is what is stored: None for CREATE and CONNECT, never changed. `name` is empty while it is still
    to be generated."""

    kind: Kind
    operation: str
    namespace: str
    name: str
    subresource: str
    obj: Obj | None
    old: Obj | None
    user: User
    dry_run: bool = False
    options: Obj = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    # What a plugin wants to remember from one hook to the next of this write, under its own name.
    state: dict[str, Any] = field(default_factory=dict)
    # The kind that was asked for, where it is another version of `kind`, in which the object is.
    requested: Kind | None = None
    # Set by a plugin whose change others may want to see: every `mutate` is called once more then, `again` being true.
    reinvoke: bool = False
    again: bool = False
    # What plugins have to say of a write in the audit log.
    annotations: dict[str, str] = field(default_factory=dict)
    # About how many bytes the object has, and who calls what goes through all of a big one.
    size: int = 0
    work: LongWork | None = None

    @property
    def asked(self) -> Kind:
        """The kind as the request names it."""
        return self.requested or self.kind

    async def apart(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what goes through all of the object, its containers for example: away from the event loop if it is
        big."""
        if self.work is None or self.size <= SHORT:
            return function(*args, **kwargs)
        return await self.work.apart(self.size, function, *args, **kwargs)

    def refused(self, why: str) -> StatusError:
        """403 in the words that every plugin uses: `pods "web" is forbidden: …`."""
        resource = self.kind.resource
        name = self.name
        if not name and self.obj is not None:
            name = self.obj["metadata"].get("generateName") or "Unknown"
        return forbidden(resource.plural, resource.group, name, why)


class Plugin:
    """One admission plugin; both hooks raise StatusError to refuse."""

    name: str = ""
    # Which (group, plural) this plugin wants to see; empty: all.
    resources: frozenset[tuple[str, str]] = frozenset()
    operations: frozenset[str] = frozenset({"CREATE", "UPDATE"})
    # Which subresources; the empty one is the object itself. None: whichever.
    subresources: frozenset[str] | None = frozenset({""})

    # What it adds is whole, defaults of the schema included; it keeps off what only the server says; and of an object
    # that is there already it replaces fields of the specification, without a change to a value in them. The built-in
    # ones say so, which spares their writes a second look; nobody has to.
    leaves_whole: bool = False
    # Of which operations it changes the object.
    mutated: frozenset[str] = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})

    def concerns(self, kind: Kind, operation: str, subresource: str) -> bool:
        """Whether this plugin wants to see such writes at all; asked once per kind, operation and subresource."""
        resource = kind.resource
        return (
            operation in self.operations
            and (self.subresources is None or subresource in self.subresources)
            and (not self.resources or (resource.group, resource.plural) in self.resources)
        )

    def follow(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever `concerns` might say something else from now on."""

    def forget_kinds(self) -> None:
        """Some of those that `concerns` was asked about are served no more."""

    async def mutate(self, attributes: Attributes) -> None:
        """Change `attributes.obj` in place."""

    async def validate(self, attributes: Attributes) -> None:
        """Refuse or let pass; nothing is changed any more."""

    async def committed(self, attributes: Attributes, stored: Obj) -> None:
        """The write has happened; `stored` is what was stored."""

    async def rolled_back(self, attributes: Attributes) -> None:
        """The write has not happened; `mutate` and `validate` may not have been reached either, so what is to be undone
        is kept in `Attributes.state`."""


class Interested(NamedTuple):
    """The plugins that want to see a write, by the hooks that they have; whether all that change it leave it whole."""

    mutate: tuple[Plugin, ...] = ()
    validate: tuple[Plugin, ...] = ()
    committed: tuple[Plugin, ...] = ()
    rolled_back: tuple[Plugin, ...] = ()
    leaves_whole: bool = True


NOBODY: Final = Interested()
