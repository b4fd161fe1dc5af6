"""One write's way through admission, from the first plugin that sees it to the end of what was reserved for it.

In: what is about to be done (`Asked`) and the chain's plugins that want to see it.  Out: the object as they changed it,
or the StatusError of the one that refused. Every handler and pipeline comes this way, so that all plugins see the same
attributes: Kubernetes' operation, subresource, object, old object and options.

An `Admission` is an asynchronous context manager. Invariant: a write that is no dry run ends in exactly one of
`committed` (what was stored is known: `landed` was called) and `rolled_back` (anything else: a refusal, a conflict, an
error, a client that went away), for every plugin that has the hook.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Final, Protocol

import orjson

from navarch.api.meta import Obj
from navarch.apiserver.admission.base import NOBODY, Attributes, Interested
from navarch.apiserver.audit.policy import METADATA, REQUEST
from navarch.apiserver.audit.trail import annotate
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.user import User
from navarch.kinds.base import Kind

log = logging.getLogger(__name__)

# Audit annotations that have what webhooks made of a request.
PATCHES: Final = "patch.webhook.admission.k8s.io/"

CREATE: Final = "CREATE"
UPDATE: Final = "UPDATE"
DELETE: Final = "DELETE"
CONNECT: Final = "CONNECT"


class Chain(Protocol):
    """The admission plugins in their order (`admission.chain.Chain`)."""

    def interested(self, kind: Kind, operation: str, subresource: str) -> Interested: ...

    def forget_kinds(self) -> None:
        """Some of those that were asked about are served no more."""
        ...


class NoAdmission:
    """The chain without plugins."""

    def interested(self, kind: Kind, operation: str, subresource: str) -> Interested:
        return NOBODY

    def forget_kinds(self) -> None: ...


class Origin(Protocol):
    """Who asks and how (`writing.Origin`)."""

    @property
    def user(self) -> User: ...

    @property
    def dry_run(self) -> bool: ...

    @property
    def options(self) -> Obj: ...

    @property
    def warnings(self) -> list[str]: ...

    @property
    def requested(self) -> Kind | None: ...


class Admission:
    """Made by `admission`. `mutates` says whether any plugin may change the object, `leaves_whole` that what they do
    to it needs no second look."""

    __slots__ = ("_attributes", "_interested", "_stored", "leaves_whole", "mutates")

    def __init__(self, interested: Interested, attributes: Attributes | None) -> None:
        self._interested = interested
        self._attributes = attributes
        self._stored: Obj | None = None
        self.mutates = bool(interested.mutate)
        self.leaves_whole = interested.leaves_whole

    def guard(self, old: Obj) -> None:
        """Plugins that may change anything get an old object of their own: what they do to it restores nothing."""
        if self._attributes is not None and not self.leaves_whole:
            self._attributes.old = orjson.loads(orjson.dumps(old))

    async def mutate(self, obj: Obj | None) -> Obj | None:
        """Raises StatusError."""
        attributes = self._attributes
        if attributes is None:
            return obj
        attributes.obj = obj
        for plugin in self._interested.mutate:
            await plugin.mutate(attributes)
        if attributes.reinvoke:
            # Once: what they make of each other's changes may go on for ever.
            attributes.again = True
            for plugin in self._interested.mutate:
                await plugin.mutate(attributes)
        return attributes.obj

    async def validate(self, obj: Obj | None) -> None:
        """`obj` is what would be stored, a generated name included.  Raises StatusError."""
        attributes = self._attributes
        if attributes is None:
            return
        attributes.obj = obj
        if obj is not None and not attributes.name and attributes.subresource == "":
            attributes.name = obj["metadata"].get("name") or ""
        for plugin in self._interested.validate:
            await plugin.validate(attributes)

    def landed(self, stored: Obj) -> None:
        """The write has happened; to be called before anything else can fail."""
        if self._attributes is not None:
            self._stored = stored

    async def __aenter__(self) -> Admission:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        attributes = self._attributes
        if attributes is None:
            return
        for key, value in attributes.annotations.items():
            # What a patch says is part of the request.
            annotate(key, value, REQUEST if key.startswith(PATCHES) else METADATA)
        if attributes.dry_run:
            return
        if self._stored is None:
            for plugin in self._interested.rolled_back:
                await plugin.rolled_back(attributes)
            return
        for plugin in self._interested.committed:
            try:
                await plugin.committed(attributes, self._stored)
            except Exception:
                # What is stored is stored: its client must not read that it is not.
                log.exception("%s could not take note of a write", plugin.name)


# What no plugin wants to see, or has seen already.
NOT_ADMITTED: Final = Admission(NOBODY, None)


def admission(
    chain: Chain,
    origin: Origin,
    kind: Kind,
    operation: str,
    *,
    namespace: str,
    name: str,
    subresource: str = "",
    obj: Obj | None = None,
    old: Obj | None = None,
    size: int = 0,
    work: LongWork | None = None,
) -> Admission:
    """The only place where attributes are made. `old` is what is stored (None for CREATE and CONNECT), and never
    changed; options are those of the request, None for CONNECT. The object has about `size` bytes."""
    interested = chain.interested(kind, operation, subresource)
    if interested is NOBODY:
        return NOT_ADMITTED
    attributes = Attributes(
        kind,
        operation,
        namespace,
        name,
        subresource,
        obj,
        old,
        origin.user,
        origin.dry_run,
        origin.options,
        origin.warnings,
        requested=origin.requested,
        size=size,
        work=work,
    )
    return Admission(interested, attributes)
