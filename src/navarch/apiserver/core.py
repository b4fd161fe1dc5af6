"""What the parts of an API server share: its store and caches, its kinds and their schemas, and the seams' far ends."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from datetime import datetime
from typing import Protocol

from navarch.api.features import Features, gates_of
from navarch.api.meta import Obj, Resource
from navarch.api.schema import SchemaSet
from navarch.api.time import format_time
from navarch.apiserver.admitting import Chain, NoAdmission
from navarch.apiserver.aggregation.directory import Remote
from navarch.apiserver.aggregation.foreign import Foreign
from navarch.apiserver.audit.trail import Auditing
from navarch.apiserver.auth.base import Authenticator, Authorizer, Decision, RequestAttributes, TokenIssuer
from navarch.apiserver.caches import Caches
from navarch.apiserver.companions import Companion
from navarch.apiserver.encodings import Encodings
from navarch.apiserver.longwork import LongWork
from navarch.apiserver.metrics import Metrics
from navarch.apiserver.routes import Route
from navarch.apiserver.served import Served, ServedKind
from navarch.apiserver.user import User
from navarch.apiserver.webhooks.client import WebhookClient
from navarch.apiserver.webhooks.services import Services
from navarch.client.transport import Request, Response
from navarch.kinds.base import Kind
from navarch.kinds.registry import Registry
from navarch.records import mutable
from navarch.world import World


class Embedded(Protocol):
    """A version of a group that is answered for in this process, though it is no kind of this server's: as long as its
    APIService, which is made as it says, names nobody else. `resources` are those of aggregated discovery."""

    @property
    def group(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def resources(self) -> tuple[Obj, ...]: ...

    @property
    def api_service(self) -> Obj: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def handle(self, request: Request, route: Route) -> Response:
        """Whoever may ask has been found out."""
        ...


class Delegate(Protocol):
    """Answers for what other API servers serve (aggregation): `remotes` by group and version, and what is shown of them
    in discovery and OpenAPI (`foreign`), as of what is `embedded` here."""

    @property
    def embedded(self) -> Mapping[tuple[str, str], Embedded]: ...

    @property
    def remotes(self) -> Mapping[tuple[str, str], Remote]: ...

    @property
    def foreign(self) -> Foreign: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def handle(self, request: Request, remote: Remote, user: User) -> Response:
        """Whoever may ask has been found out."""
        ...


@mutable
class Core:
    """Assembled once by `ApiServer`; every handler holds on to it."""

    caches: Caches
    # Replaced as a whole when what is served changes; a request keeps the kind that it found.
    served: Served
    authenticator: Authenticator
    authorizer: Authorizer
    world: World
    admission: Chain = field(default_factory=NoAdmission)
    # What is written in the same commit as objects of a kind.
    companions: Mapping[Resource, Companion] = field(default_factory=dict)
    token_issuer: TokenIssuer | None = None
    # How to reach kubelets; None: any certificate will do, and none is shown.
    kubelet_tls: ssl.SSLContext | None = None
    metrics: Metrics = field(default_factory=Metrics)
    work: LongWork = field(init=False)
    encodings: Encodings = field(init=False)
    # Asks webhooks, of admission and of conversion.
    webhooks: WebhookClient = field(init=False)
    on_bookmark_s: float = 60.0
    # Who answers for groups and versions that others serve.
    delegate: Delegate | None = None
    # Called whenever `served` has been replaced.
    served_changed: list[Callable[[], None]] = field(default_factory=list)
    # Who is asked whether a request may be, where that takes asking others; None: the authorizer alone.
    deciding: Callable[[User, RequestAttributes], Awaitable[Decision]] | None = None
    # The other components that are known of, each with who tells what is wrong with it: nothing if all is well.
    components: Mapping[str, Callable[[], Awaitable[str]]] = field(default_factory=dict)
    # What keeps a log of requests, where one is kept.
    auditing: Auditing | None = None
    features: Features = field(init=False)
    # How long what `Strategy.expires` says is kept.
    event_ttl_s: float = 3600.0

    def __post_init__(self) -> None:
        self.work = LongWork(self.world)
        self.features = Features(gates_of(self.served.schemas.version))
        self.encodings = Encodings(self.work)
        self.webhooks = WebhookClient(Services(self.caches, self.world), self.world)

    @property
    def registry(self) -> Registry:
        return self.served.registry

    @property
    def schemas(self) -> SchemaSet:
        """The definitions of the served version of Kubernetes."""
        return self.served.schemas

    def stored_kind(self, kind: Kind) -> ServedKind:
        """The kind under which objects of this one are stored: itself, or another version."""
        return self.served.of(kind.resource).pipeline_kind

    async def decide(self, user: User, attributes: RequestAttributes) -> Decision:
        """Whether somebody may do something, everybody asked."""
        if self.deciding is None:
            return self.authorizer.authorize(user, attributes)
        return await self.deciding(user, attributes)

    def decide_at_once(self, user: User, attributes: RequestAttributes) -> Decision | None:
        """None where that takes asking others."""
        return self.authorizer.authorize(user, attributes) if self.deciding is None else None

    def now(self) -> datetime:
        return self.world.now()

    def now_text(self) -> str:
        return format_time(self.world.now())

    def kind_of(self, resource: Resource) -> ServedKind:
        """Raises LookupError where it is not served."""
        return self.served.of(resource)
