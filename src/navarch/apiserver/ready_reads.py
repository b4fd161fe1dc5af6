"""Reads that can be answered at once: a plain GET of a stored object by somebody who is known.

In: a request and the certificate of its connection.  Out: the answer, or None for whatever is not that plain; then
`ApiServer.handle` answers, as if nobody had asked here. Who is it, what is asked for, may they, is there a seat: each
question is put to those whom `handle` asks, and what they answer without waiting for anybody decides. So there is no
task, no coroutine and no turn of the event loop between a request and its answer, which together cost as much as all
these questions.

Invariant: nothing has changed where the answer is None; where it is not, it is the one that `handle` would have given.
"""

from __future__ import annotations

from collections.abc import Iterator

from navarch.apiserver.audit.ids import HEADER as AUDIT_ID
from navarch.apiserver.core import Core
from navarch.apiserver.flowcontrol.control import FlowControl
from navarch.apiserver.flowcontrol.inflight import InFlight
from navarch.apiserver.negotiation import is_plain
from navarch.apiserver.routes import Route, attributes_of, parse
from navarch.apiserver.served import ServedKind
from navarch.apiserver.watchcache import WatchCache
from navarch.client.transport import Request, Response


class ReadyReads:
    """Those of one server."""

    def __init__(self, core: Core, flows: FlowControl | InFlight, audit_ids: Iterator[str]) -> None:
        self._core = core
        self._flows = flows
        self._audit_ids = audit_ids
        self._monotonic = core.world.monotonic

    def answer(self, request: Request, peer_cert: bytes | None, longest: int) -> Response | None:
        """The answer, if its body is shorter than `longest`."""
        if request.method != "GET" or request.query or request.body or request.impersonates:
            return None
        core, route = self._core, parse(request.path)
        shape = route.shape
        if not shape.named or shape.subresource or shape.watching:
            return None
        if core.auditing is not None or core.deciding is not None:
            return None
        kind = core.served.of_route(route)
        if kind is None or kind.watch_cache is None or kind.virtual or kind.deprecation or kind.strategy.deprecation:
            return None
        delegate = core.delegate
        if delegate is not None and delegate.remotes and (route.group, route.version) in delegate.remotes:
            return None
        if "GET" not in kind.methods[shape] or "audit-id" in request.headers or not is_plain(request):
            return None
        try:
            return self._read(request, route, kind, kind.watch_cache, peer_cert, longest)
        except Exception:
            # `handle` comes to it, too, and says what is wrong.
            return None

    def _read(
        self,
        request: Request,
        route: Route,
        kind: ServedKind,
        cache: WatchCache,
        peer_cert: bytes | None,
        longest: int,
    ) -> Response | None:
        core = self._core
        started = self._monotonic()
        newest = core.caches.store.known_revision()
        if newest is None or newest > core.caches.revision:
            return None
        cached = cache.get(route.namespace if route.shape.inside else "", route.name)
        if cached is None or len(cached.data) >= longest or not cached.data.startswith(kind.head):
            return None
        user = core.authenticator.recognized(request, peer_cert)
        if user is None:
            return None
        attributes = attributes_of(request, route, "get")
        flow = self._flows.flow(user, "get", route.label, attributes)
        if flow is None or not core.authorizer.authorize(user, attributes).allowed:
            return None
        level = flow.level
        running = level.begin(1, flow.counts)
        if running is None:
            return None
        level.leave(running)
        response = Response(200, cached.data, flow.usual.completed(AUDIT_ID, next(self._audit_ids)))
        core.metrics.request("get", route.label, 200, self._monotonic() - started)
        return response
