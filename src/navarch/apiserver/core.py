"""What the parts of an API server share: its store and caches, its kinds and their schemas, and the seams' far ends."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from navarch.api.meta import Obj, Resource
from navarch.api.time import format_time
from navarch.apiserver.admission.base import Attributes
from navarch.apiserver.auth.base import Authenticator, Authorizer, TokenIssuer
from navarch.apiserver.caches import Caches
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.metrics import NOTHING_SERVED, Metrics, ServedLabel
from navarch.apiserver.routes import Methods, Route, methods_of
from navarch.kinds.base import Kind
from navarch.kinds.registry import Registry
from navarch.world import World


class AdmissionChain(Protocol):
    """The admission plugins in their order (`admission.chain.Chain`)."""

    def concerns(self, kind: Kind, operation: str) -> bool: ...

    async def mutate(self, attributes: Attributes) -> None: ...

    async def validate(self, attributes: Attributes) -> None: ...

    async def committed(self, attributes: Attributes, stored: Obj) -> None: ...

    async def rolled_back(self, attributes: Attributes) -> None: ...


class NoAdmission:
    """The chain without plugins."""

    def concerns(self, kind: Kind, operation: str) -> bool:
        return False

    async def mutate(self, attributes: Attributes) -> None:
        return

    async def validate(self, attributes: Attributes) -> None:
        return

    async def committed(self, attributes: Attributes, stored: Obj) -> None:
        return

    async def rolled_back(self, attributes: Attributes) -> None:
        return


class Compiled(Protocol):
    """A kind's compiled schema (navarch.api.schema)."""

    root: Any

    def decode(self, obj: Obj) -> list[str]: ...

    def default(self, obj: Obj) -> None: ...


class Schemas(Protocol):
    version: str

    def compile(self, definition_name: str) -> Compiled: ...

    def definition(self, name: str) -> Obj: ...


@dataclass(slots=True)
class Core:
    """Assembled once by `ApiServer`; every handler holds on to it."""

    caches: Caches
    registry: Registry
    schemas: Schemas
    authenticator: Authenticator
    authorizer: Authorizer
    world: World
    admission: AdmissionChain = field(default_factory=NoAdmission)
    token_issuer: TokenIssuer | None = None
    # How to reach kubelets; None: any certificate will do, and none is shown.
    kubelet_tls: ssl.SSLContext | None = None
    metrics: Metrics = field(default_factory=Metrics)
    work: LongWork = field(init=False)
    on_bookmark_s: float = 60.0
    # How long what `Strategy.expires` says is kept.
    event_ttl_s: float = 3600.0
    _compiled: dict[str, Compiled] = field(default_factory=dict)
    _methods: dict[Resource, Methods] = field(default_factory=dict)
    _first_status: dict[Resource, Obj | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.work = LongWork(self.world.monotonic)

    def compiled(self, kind: Kind) -> Compiled | None:
        """The kind's schema, compiled at first use."""
        name = kind.definition
        if name is None:
            return None
        known = self._compiled.get(name)
        if known is None:
            known = self._compiled[name] = self.schemas.compile(name)
        return known

    def methods(self, kind: Kind) -> Methods:
        """The table of the paths that the kind has."""
        known = self._methods.get(kind.resource)
        if known is None:
            known = self._methods[kind.resource] = methods_of(kind)
        return known

    def label_of(self, route: Route) -> ServedLabel:
        """What metrics call a path: what is served there, never what a client wrote."""
        kind = self.registry.by_path(route.group, route.version, route.plural) if route.plural else None
        if kind is None or route.odd or route.shape not in self.methods(kind):
            return NOTHING_SERVED
        return (route.group, route.version, route.plural, route.subresource)

    def first_status(self, kind: Kind) -> Obj | None:
        """The status of a new object that nobody has reported on: empty but for its required numbers, which are zero
        (clients count on the field being there). None for a kind without; the caller's own copy."""
        if kind.resource not in self._first_status:
            self._first_status[kind.resource] = self._make_first_status(kind)
        status = self._first_status[kind.resource]
        return None if status is None else dict(status)

    def _make_first_status(self, kind: Kind) -> Obj | None:
        if not kind.has_status or kind.definition is None:
            return None
        stated = self.schemas.definition(kind.definition).get("properties", {}).get("status", {})
        if "$ref" not in stated:
            return None
        definition = self.schemas.definition(stated["$ref"])
        properties = definition.get("properties", {})
        zeros = {"integer": 0, "boolean": False}
        required = definition.get("required") or ()
        return {name: zeros[type_] for name in required if (type_ := properties[name].get("type")) in zeros}

    def stored_kind(self, kind: Kind) -> Kind:
        """The kind under which objects of this one are stored: itself, or another version."""
        return kind if kind.storage is None else self.kind_of(kind.storage)

    def now(self) -> datetime:
        return self.world.now()

    def now_text(self) -> str:
        return format_time(self.world.now())

    def kind_of(self, resource: Resource) -> Kind:
        kind = self.registry.by_path(resource.group, resource.version, resource.plural)
        if kind is None:
            raise LookupError(f"{resource.group_resource} is not served")
        return kind
