"""`ApiServer`: a request in, a response out, however it arrived.

Every request goes the same way: who is it (authenticate, impersonate), what does it ask for (route, verb), may they
(authorize), then the handler of the verb or subresource. What a handler raises becomes the `Status` that the client
reads; nothing that a client sends may end as a 500.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from navarch.api import schema
from navarch.api.errors import (
    StatusError,
    bad_request,
    internal,
    method_not_allowed,
    too_large,
    unavailable,
)
from navarch.api.version import DEFAULT_VERSION
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.admitting import Chain
from navarch.apiserver.allocation.keys import OWN_KINDS
from navarch.apiserver.allocation.repair import EVERY_S as REPAIR_EVERY_S
from navarch.apiserver.allocation.repair import Repair
from navarch.apiserver.allocation.services import AllocationConfig, ServiceAllocation
from navarch.apiserver.answers import in_form
from navarch.apiserver.audit.ids import HEADER as AUDIT_ID
from navarch.apiserver.audit.ids import audit_ids
from navarch.apiserver.audit.trail import Auditing, Trail
from navarch.apiserver.auth.base import Authenticator, Authorizer, EveryoneIsAdmin, RequestAttributes, TokenIssuer
from navarch.apiserver.auth.refusal import refusal
from navarch.apiserver.caches import CacheReader, Caches
from navarch.apiserver.call import Call, warning_headers
from navarch.apiserver.core import Core, Delegate
from navarch.apiserver.crd.definitions import Definitions
from navarch.apiserver.crd.finalizing import Finalizing
from navarch.apiserver.deadlines import LASTING_VERBS, limit_of, within
from navarch.apiserver.decoding import MAX_BODY, as_json
from navarch.apiserver.flowcontrol.control import READING, WRITING, FlowControl
from navarch.apiserver.flowcontrol.inflight import InFlight
from navarch.apiserver.flowcontrol.upkeep import EVERY_S as FLOW_CONTROL_EVERY_S
from navarch.apiserver.flowcontrol.upkeep import FlowControlUpkeep
from navarch.apiserver.handlers.objects import Objects
from navarch.apiserver.handlers.paths import Paths
from navarch.apiserver.handlers.subresources import Subresources
from navarch.apiserver.handlers.virtual import Virtual
from navarch.apiserver.housekeeping import Chore, Housekeeping, chores_of
from navarch.apiserver.impersonation import impersonated
from navarch.apiserver.metrics import NOTHING_SERVED
from navarch.apiserver.negotiation import (
    OFFERED,
    PLAIN,
    STREAMED,
    TABLE,
    form_of,
    is_plain,
    respond_error,
    without_body,
)
from navarch.apiserver.own_writes import ServerWriter
from navarch.apiserver.presence import EVERY_S as PRESENCE_EVERY_S
from navarch.apiserver.presence import Place, Presence
from navarch.apiserver.ready_reads import ReadyReads
from navarch.apiserver.routes import Route, attributes_of, parse, verb_of, version_of
from navarch.apiserver.served import ServedKind, served_by
from navarch.apiserver.serving import Serving, Stored
from navarch.apiserver.user import ANONYMOUS, User
from navarch.apiserver.webhooks.conversion import converters
from navarch.client.transport import Request, Response
from navarch.kinds.apiextensions.resource import ConverterOf
from navarch.kinds.base import Kind
from navarch.kinds.registry import Registry, builtin
from navarch.kinds.resources import CUSTOM_RESOURCE_DEFINITIONS, FLOW_SCHEMAS, SERVICES
from navarch.store.base import Store, StoreUnavailable, TooLarge
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

# What orjson says of nesting that it does not encode; its error is a plain TypeError.
_TOO_DEEP = "Recursion limit reached"
_FAILED = "the server failed to handle the request; its log says why"
_DEFINITIONS = (
    CUSTOM_RESOURCE_DEFINITIONS.group,
    CUSTOM_RESOURCE_DEFINITIONS.version,
    CUSTOM_RESOURCE_DEFINITIONS.plural,
)
# Subresources that answer in media types of their own.
_OTHER_MEDIA = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_POSTED = frozenset({"POST"})

Handler = Callable[[Call], Awaitable[Response]]


class ApiServer:
    """One API server over one store. `start` before the first request, `stop` after the last."""

    def __init__(
        self,
        store: Store,
        *,
        registry: Registry | None = None,
        kubernetes_version: str = DEFAULT_VERSION,
        authenticator: Authenticator | None = None,
        authorizer: Authorizer | None = None,
        token_issuer: TokenIssuer | None = None,
        admission: Chain | None = None,
        world: World | None = None,
        bookmark_s: float = 60.0,
        event_ttl_s: float = 3600.0,
        in_flight: tuple[int, int] = (READING, WRITING),
        fairness: bool = True,
    ) -> None:
        """`in_flight`: how many requests that read and that write run at a time; with `fairness` they are shared out
        among priority levels."""
        registry = registry or builtin()
        caches = Caches(store, [*registry.kinds(), *OWN_KINDS])
        everyone = EveryoneIsAdmin()
        self.store = store
        self.core = Core(
            caches,
            served_by(caches, registry, schema.load(kubernetes_version)),
            authenticator or everyone,
            authorizer or everyone,
            world or RealWorld(),
            token_issuer=token_issuer,
            on_bookmark_s=bookmark_s,
            event_ttl_s=event_ttl_s,
        )
        if admission is not None:
            self.core.admission = admission
        self.reader: Reader = CacheReader(self.core.caches)
        self.objects = Objects(self.core)
        self.writer = ServerWriter(self.objects)
        self._subresources = Subresources(self.core, self.objects)
        self._virtual = Virtual(self.core, self.objects, self._subresources.bind)
        self._paths = Paths(self.core)
        self._serving = Serving(self.core)
        self._verbs: dict[str, Handler] = {
            "get": self.objects.get,
            "list": self.objects.list,
            "watch": self.objects.watch,
            "create": self.objects.create,
            "update": self.objects.update,
            "patch": self.objects.patch,
            "delete": self.objects.delete,
            "deletecollection": self.objects.delete_collection,
        }
        finalizing = Finalizing(self.core, self.objects.deleting, self.writer)
        self._definitions = Definitions(self.core, self._serving, self.writer, finalizing)
        self._definitions.converter_of = converters(self.core.webhooks, self.core.world)
        # What others want done now and then, from `start` on.
        self.chores: list[Chore] = []
        self._housekeeping: Housekeeping | None = None
        self._repair: Repair | None = None
        self._presence: Presence | None = None
        self._flows: FlowControl | InFlight
        if fairness:
            self._flows = FlowControl(caches, self.core.world, sum(in_flight))
            self._paths.priority_levels = self._flows.levels
        else:
            self._flows = InFlight(self.core.world, *in_flight)
        self.core.metrics.parts.append(self._flows.numbers)
        self._audit_ids = audit_ids(self.core.world)
        self.ready_reads = ReadyReads(self.core, self._flows, self._audit_ids)
        self.flow_control = FlowControlUpkeep(caches, self.reader, self.writer, self.core.now_text)

    def use(
        self,
        *,
        authenticator: Authenticator | None = None,
        authorizer: Authorizer | None = None,
        token_issuer: TokenIssuer | None = None,
        admission: Chain | None = None,
        allocation: AllocationConfig | None = None,
        kubelet_tls: ssl.SSLContext | None = None,
        delegate: Delegate | None = None,
        converter_of: ConverterOf | None = None,
        auditing: Auditing | None = None,
    ) -> None:
        """Set the far end of a seam that itself needs this server's `reader` or `writer`; before `start`."""
        if authenticator is not None:
            self.core.authenticator = authenticator
        if authorizer is not None:
            self.core.authorizer = authorizer
        if token_issuer is not None:
            self.core.token_issuer = token_issuer
        if admission is not None:
            self.core.admission = admission
        if allocation is not None:
            services = ServiceAllocation(self.core.caches, self.core.world, allocation)
            self.core.companions = {**self.core.companions, SERVICES: services}
            self._repair = Repair(services)
        if kubelet_tls is not None:
            self.core.kubelet_tls = kubelet_tls
        if delegate is not None:
            self.core.delegate = delegate
        if converter_of is not None:
            self._definitions.converter_of = converter_of
        if auditing is not None:
            self.core.auditing = auditing

    async def start(self) -> None:
        """Open the store and fill the caches."""
        await self.store.open()
        extensible = self.core.registry.by_path(*_DEFINITIONS) is not None
        if extensible:
            await self._definitions.begin()
        await self.core.caches.start()
        self.core.world.incarnate(self.core.caches.revision)
        chores = [*chores_of(self.core.caches, self.core.world), *self.chores]
        if self._repair is not None:
            # Before the first service: what is stored may be older than the keys that hold its addresses.
            await self._repair()
            chores.append(Chore("repair of addresses and node ports", REPAIR_EVERY_S, self._repair))
        self._housekeeping = Housekeeping(chores, self.core.metrics.chore_failed)
        self._housekeeping.start()
        if self.core.delegate is not None:
            await self.core.delegate.start()
        if extensible:
            self._definitions.follow()
        if self.serves(FLOW_SCHEMAS.group, FLOW_SCHEMAS.plural):
            self._flows.start()
        self._paths.health.ready = True

    async def keep_flow_control(self) -> None:
        """Make the default objects of priority and fairness, and keep them and what they say right, until `stop`."""
        assert self._housekeeping is not None
        await self.flow_control.ensure()
        await self.flow_control.tell()
        self.flow_control.start()
        self._housekeeping.add(Chore("flow control", FLOW_CONTROL_EVERY_S, self.flow_control.ensure))

    async def appear(self, place: Place) -> None:
        """Be found at an address by those who ask for the service `kubernetes`, until `stop`."""
        assert self._housekeeping is not None
        self._presence = Presence(self.core.caches, self.reader, self.writer, place)
        await self._presence.renew()
        self._housekeeping.add(Chore("presence", PRESENCE_EVERY_S, self._presence.renew))

    async def stop(self) -> None:
        self._paths.health.ready = False
        if self.core.delegate is not None:
            await self.core.delegate.stop()
        await self._definitions.stop()
        if self._housekeeping is not None:
            await self._housekeeping.stop()
        await self.flow_control.stop()
        await self._flows.stop()
        if self._presence is not None:
            try:
                await self._presence.leave()
            except (StatusError, StoreUnavailable):
                # Its key expires by itself.
                log.warning("this API server could not say that it leaves", exc_info=True)
        await self._subresources.close()
        self.core.webhooks.close()
        await self.core.caches.stop()
        await self.store.close()
        if self.core.auditing is not None:
            await self.core.auditing.sink.close()

    def announce_end(self) -> None:
        """Have `/readyz` say no, so that nobody new comes, while those who are here are served as before."""
        self._paths.health.ready = False

    def drain(self) -> None:
        """End all watches, so that their connections can close; `/readyz` says no from now on."""
        self._paths.health.ready = False
        for cache in self.core.caches.all():
            for watcher in cache.watchers():
                watcher.close()

    def add_check(self, name: str, check: Callable[[], Awaitable[str]]) -> None:
        """One more of the health checks; it says what is wrong, if something is."""
        self._paths.health.add(name, check)

    def keep(self, chore: Chore) -> None:
        """Do something now and then from now on, until `stop`."""
        assert self._housekeeping is not None
        self.chores.append(chore)
        self._housekeeping.add(chore)

    def show_flags(self, flags: Mapping[str, str]) -> None:
        """The settings, by the names of kube-apiserver's flags, that `/flagz` shows."""
        self._paths.flags = dict(flags)

    # What is served

    def serves(self, group: str, plural: str) -> bool:
        """Whether clients can ask for a resource, in whichever version."""
        if any(kind.served for kind in self.core.served.of_resource(group, plural)):
            return True
        embedded = {} if self.core.delegate is None else self.core.delegate.embedded
        return any(
            own.group == group and any(each["resource"] == plural for each in own.resources)
            for own in embedded.values()
        )

    async def serve(self, *kinds: Kind) -> None:
        """Serve resources, or what has become of them: the kinds given are all versions of their resources. See
        `Serving.serve`."""
        await self._serving.serve(kinds)

    async def withdraw(self, group: str, plural: str, *, stored: Stored) -> None:
        """Serve a resource no longer; its stored objects are kept or deleted. See `Serving.withdraw`."""
        await self._serving.withdraw(group, plural, stored=stored)

    # Requests

    def as_user(self, user: User) -> Callable[[Request], Awaitable[Response]]:
        """`handle` with a fixed identity: what a LocalTransport takes."""

        async def handle(request: Request) -> Response:
            return await self.handle(request, user)

        return handle

    async def handle(self, request: Request, user: User | None = None, peer_cert: Any = None) -> Response:
        """Answer a request; `user` None means that its credentials decide."""
        route = parse(request.path)
        verb = verb_of(request, route)
        # What is asked for, as it is served now: what changes from here on is of no concern to this request.
        kind = self.core.served.of_route(route)
        started = self.core.world.monotonic()
        auditing = self.core.auditing
        trail = auditing.begin(request, route, verb) if auditing is not None else None
        try:
            limit_s = limit_of(request, route, verb) if request.query else None
            if user is None:
                user = await self.core.authenticator.authenticate(request, peer_cert)
                if user is ANONYMOUS:
                    request.last = True
            answer = self._respond(request, route, verb, user, kind, trail)
            response = await (answer if limit_s is None else within(limit_s, answer))
        except Exception as error:
            response = respond_error(_status_of(error, request), request)
            if trail is None:
                response.headers = {**response.headers, AUDIT_ID: self._audit_id(request)}
        if trail is not None:
            response = await trail.end(response)
        seconds = None if verb in LASTING_VERBS else self.core.world.monotonic() - started
        label = NOTHING_SERVED if kind is None else route.label
        self.core.metrics.request(verb, label, response.status, seconds)
        return response if request.method != "HEAD" else await without_body(response)

    def _audit_id(self, request: Request) -> str:
        return request.headers.get("audit-id") or next(self._audit_ids)

    async def _respond(
        self, request: Request, route: Route, verb: str, user: User, kind: ServedKind | None, trail: Trail | None
    ) -> Response:
        core = self.core
        if trail is not None:
            trail.known(user)
        if request.impersonates and "impersonate-" in " ".join(request.headers):
            user = await impersonated(request, user, core.decide)
            if trail is not None:
                trail.acts_as(user)
        attributes = attributes_of(request, route, verb)
        flows = self._flows
        flow = flows.flow(user, verb, None if kind is None else route.label, attributes)
        if flow is None:
            response = await self._permitted(request, route, verb, user, kind, trail, attributes)
            if trail is None:
                response.headers = {**response.headers, AUDIT_ID: self._audit_id(request)}
            return response
        level, seats = flow.level, 1
        if verb == "list" and kind is not None:
            seats = flows.seats_of_list(flow, request, attributes.name, kind.watch_cache)
        running = level.begin(seats, flow.counts)
        try:
            if running is None:
                running = await level.wait(flow.name, seats, flow.counts)
            response = await self._permitted(request, route, verb, user, kind, trail, attributes)
        except StatusError as error:
            error.headers.update(flow.headers)
            raise
        finally:
            if running is not None:
                level.leave(running)
        # Put together once: what a handler gives may be shared by many answers.
        if trail is None:
            named = request.headers.get("audit-id")
            if named or response.headers:
                response.headers = {**response.headers, **flow.headers, AUDIT_ID: named or next(self._audit_ids)}
            else:
                response.headers = flow.usual.completed(AUDIT_ID, next(self._audit_ids))
        elif flow.headers:
            response.headers = {**response.headers, **flow.headers}
        return response

    async def _permitted(
        self,
        request: Request,
        route: Route,
        verb: str,
        user: User,
        kind: ServedKind | None,
        trail: Trail | None,
        attributes: RequestAttributes,
    ) -> Response:
        """Answer a request, if its user may make it."""
        core = self.core
        deciding = core.deciding
        decision = core.authorizer.authorize(user, attributes) if deciding is None else await deciding(user, attributes)
        if trail is not None:
            trail.decided(decision)
        if not decision.allowed:
            raise refusal(user, attributes, decision.reason)
        if len(request.body) > MAX_BODY:
            raise too_large(MAX_BODY)
        delegate = core.delegate
        if delegate is not None and delegate.remotes:
            remote = delegate.remotes.get(version_of(route))
            if remote is not None:
                return await delegate.handle(request, remote, user)
        if not route.plural:
            return await self._paths.handle(request, route, user)
        if kind is None:
            own = None if delegate is None else delegate.embedded.get(version_of(route))
            if own is not None:
                return await own.handle(request, route)
            raise core.served.missing(route.path, route.group)
        if request.method not in kind.methods[route.shape]:
            raise method_not_allowed()
        if request.body:
            request = await as_json(request, core.work)
            if trail is not None:
                trail.sent(request)
        form = PLAIN
        if not is_plain(request):
            form = form_of(request, produced=_produced(kind, route))
            # What is only posted (a review, an eviction, a token) is no object that could be listed.
            tables = form.transform != TABLE or kind.methods[route.shape] != _POSTED
            if not tables or (form.protobuf and not kind.has_messages):
                form = form_of(request, messages=kind.has_messages, tables=tables)
        call = Call(request, route, verb, kind, user, form)
        if deprecation := kind.deprecation or kind.strategy.deprecation:
            call.warnings.append(deprecation)
        try:
            handler = self._handler(call) if route.subresource or kind.virtual else self._verbs.get(verb)
            if handler is None:
                raise method_not_allowed()
            response = await handler(call)
        except StatusError as error:
            if call.warnings:
                error.headers.update(warning_headers(call.warnings))
            if kind.resource.group != kind.stored_resource.group:
                _name_as_asked(error, kind)
            raise
        return response if form is PLAIN or form.plain else await in_form(core.work, form, response)

    def _handler(self, call: Call) -> Handler | None:
        """What answers a call that is more than a verb on stored objects, and that its kind's table of paths allows."""
        return self._subresources.find(call) if call.route.subresource else self._virtual.find(call)


def _produced(kind: ServedKind, route: Route) -> Sequence[str]:
    """The media types of a path by which built-in kinds are asked for; none where the handler alone decides."""
    if kind.own_schemas is not None or (route.subresource and route.subresource in _OTHER_MEDIA):
        return ()
    return OFFERED if route.name or route.subresource else (*OFFERED, *STREAMED)


def _name_as_asked(error: StatusError, kind: ServedKind) -> None:
    """Of an object that is stored in another group, what cannot be found is of the group that was asked."""
    stored, asked = kind.stored_resource, kind.resource
    if error.details and error.details.get("kind") == stored.plural:
        error.message = error.message.replace(f'{stored.plural} "', f'{asked.plural}.{asked.group} "', 1)
        error.details["group"] = asked.group


def _status_of(error: BaseException, request: Request) -> StatusError:
    """What the client is told of whatever ended its request."""
    while isinstance(error, BaseExceptionGroup):
        # Of several that failed side by side, what says most: a refusal, else that the store is away, else the first.
        refused, away = error.subgroup(StatusError), error.subgroup(StoreUnavailable)
        error = (refused or away or error).exceptions[0]
    if isinstance(error, StatusError):
        return error
    if isinstance(error, StoreUnavailable):
        return unavailable(str(error))
    if isinstance(error, TooLarge):
        return StatusError(413, "RequestEntityTooLarge", str(error))
    if isinstance(error, RecursionError) or (isinstance(error, TypeError) and str(error) == _TOO_DEEP):
        # The client's own nesting, put together by a patch. Any other TypeError is a mistake of ours.
        log.warning("%s %s: %s", request.method, request.path, error)
        return bad_request("exceeded max depth")
    log.error("%s %s failed", request.method, request.path, exc_info=error)
    # What went wrong in here is for the log: Python's words help no client, and change with its versions.
    return internal(_FAILED)
