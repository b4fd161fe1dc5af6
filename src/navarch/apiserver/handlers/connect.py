"""Requests that go on to somebody else: a pod's log, exec, attach and port-forward at its kubelet; proxied pods,
services and nodes.

In: a Call.  Out: what the other end answers, streamed; where it agrees to an upgrade (WebSocket, SPDY), a `Tunnel`, and
the HTTP front joins the two connections byte for byte.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from navarch.api.errors import StatusError, bad_request, forbidden, not_found, unavailable
from navarch.api.meta import Obj
from navarch.apiserver.admitting import CONNECT, admission
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.call import Call
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.connect_options import check_log_options, kubelet_request, options_of
from navarch.apiserver.handlers.objects import Objects
from navarch.apiserver.handlers.rewriting import LONGEST_PAGE, Proxied
from navarch.apiserver.handlers.targets import (
    Target,
    kubelet_of,
    node_target,
    pod_target,
    refuse_simulated,
    scheme_name_port,
    service_target,
)
from navarch.apiserver.impersonation import NAMING
from navarch.apiserver.relaying import HOP_BY_HOP, chunks_of, why_unreachable
from navarch.apiserver.tunnel import open_tunnel
from navarch.apiserver.writes import Origin
from navarch.client.transport import Request, Response
from navarch.kinds.core.kubelets import is_simulated
from navarch.kinds.resources import NODES, PODS

if TYPE_CHECKING:
    import aiohttp

# Of a request, also who makes it: what is proxied to is told nothing of that.
_NOT_PASSED = HOP_BY_HOP | {"authorization"}
_LOG_OPTIONS = (
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
)
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_CORS = frozenset(
    {
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
    }
)
# The client's own headers or none: what it does not say is not ours to say.
_OURS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_CONNECT_S = 10.0
_NODE_HEADER = "x-navarch-node"
_NOTHING: Mapping[str, str] = {}


class Connect:
    def __init__(self, core: Core, objects: Objects) -> None:
        self._core = core
        self._objects = objects
        self._dice = core.world.random("apiserver", "proxied services")
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    # Pods at their kubelet

    async def pod_log(self, call: Call) -> Response:
        check_log_options(call, streams=self._core.features.on("PodLogsQuerySplitStreams"))
        pod = await self._pod(call)
        container = _container(pod, call.request.arg("container"), call.route.name)
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            return Response(200, b"", {}, "text/plain")
        query = [(name, value) for name, value in call.request.query if name in _LOG_OPTIONS]
        target = await self._kubelet(str(node))
        path = f"/containerLogs/{call.namespace}/{call.route.name}/{container}"
        return await self._forward(call, target, path, query, content_type="text/plain")

    async def pod_stream(self, call: Call) -> Response:
        """exec, attach, portforward."""
        await self._authorize_upgrade(call)
        return await self._admitted(call, self._stream)

    async def _stream(self, call: Call, options: Obj) -> Response:
        pod = await self._pod(call)
        name, subresource = call.route.name, call.route.subresource
        container = ""
        if subresource != "portforward":
            container = _container(pod, options.get("container") or "", name)
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            raise bad_request(f"pod {name} does not have a host assigned")
        target = await self._kubelet(str(node))
        path, query = kubelet_request(subresource, call.namespace, name, container, options)
        return await self._forward(call, target, path, query)

    async def _admitted(self, call: Call, connect: Callable[[Call, Obj], Awaitable[Response]]) -> Response:
        """A connection is admitted as Kubernetes does it: operation CONNECT, the object being its options."""
        options = options_of(call)
        async with admission(
            self._core.admission,
            Origin(call.user, "", warnings=call.warnings),
            call.kind,
            CONNECT,
            namespace=call.namespace,
            name=call.route.name,
            subresource=call.route.subresource,
            obj=options,
        ) as admitted:
            options = await admitted.mutate(options) or options
            await admitted.validate(options)
            response = await connect(call, options)
            admitted.landed(options)
        return response

    async def _authorize_upgrade(self, call: Call) -> None:
        """A WebSocket begins with a GET, but who may only read may not run commands by it.  Raises StatusError 403."""
        if call.verb == "create" or not self._core.features.on("AuthorizePodWebsocketUpgradeCreatePermission"):
            return
        route, name = call.route, call.route.name
        asked = RequestAttributes("create", "", "v1", "pods", route.subresource, call.namespace, name)
        decision = await self._core.decide(call.user, asked)
        if not decision.allowed:
            why = f'User "{call.user.name}" cannot create resource "pods/{route.subresource}" in API group "" in the '
            why += f'namespace "{call.namespace}"'
            raise forbidden("pods", "", name, f"{why}: {decision.reason}" if decision.reason else why)

    async def _pod(self, call: Call) -> Obj:
        cached = await self._objects.reading.get(self._core.kind_of(PODS), call.namespace, call.route.name)
        return cached.obj()

    async def _kubelet(self, node: str) -> Target:
        return kubelet_of(
            (await self._objects.reading.get(self._core.kind_of(NODES), "", node)).obj(), self._core.kubelet_tls
        )

    # Proxies

    async def pod_proxy(self, call: Call) -> Response:
        return await self._admitted(call, self._to_pod)

    async def service_proxy(self, call: Call) -> Response:
        return await self._admitted(call, self._to_service)

    async def node_proxy(self, call: Call) -> Response:
        return await self._admitted(call, self._to_node)

    async def _to_pod(self, call: Call, options: Obj) -> Response:
        _, name, _ = scheme_name_port(call.route.name, "pod")
        await self._core.caches.sync()
        cached = self._core.caches.of(PODS).get(call.namespace, name)
        if cached is None:
            raise not_found("pods", "", name)
        pod = cached.obj()
        refuse_simulated(self._core.caches, (pod.get("spec") or {}).get("nodeName") or "", name)
        return await self._proxied(call, pod_target(pod, call.route.name))

    async def _to_service(self, call: Call, options: Obj) -> Response:
        await self._core.caches.sync()
        target = service_target(self._core.caches, call.namespace, call.route.name, self._dice)
        return await self._proxied(call, target)

    async def _to_node(self, call: Call, options: Obj) -> Response:
        _, name, _ = scheme_name_port(call.route.name, "node")
        node = (await self._objects.reading.get(self._core.kind_of(NODES), "", name)).obj()
        target = node_target(node, call.route.name, self._core.kubelet_tls)
        # Simulated nodes share their address.
        return await self._proxied(call, target, {_NODE_HEADER: name} if is_simulated(node) else {})

    async def _proxied(self, call: Call, target: Target, more: Mapping[str, str] = _NOTHING) -> Response:
        path = "/" + call.route.rest
        shown = call.request.path
        if not call.route.rest and not shown.endswith("/") and call.request.method in ("GET", "HEAD"):
            # Relative links of the page are relative to a folder. What is sent with other methods would get lost.
            query = urlencode(list(call.request.query))
            return Response(301, b"", {"Location": f"{shown}/" + (f"?{query}" if query else "")}, "text/plain")
        prefix = shown[: len(shown) - len(path)] if shown.endswith(path) else shown.rstrip("/")
        proxied = Proxied(target.authority, call.request.headers.get("host", ""), prefix)
        return await self._forward(call, target, path, call.request.query, proxied=proxied, more=more)

    # The wire

    async def _forward(
        self,
        call: Call,
        target: Target,
        path: str,
        query: Sequence[tuple[str, str]],
        *,
        content_type: str = "",
        proxied: Proxied | None = None,
        more: Mapping[str, str] = _NOTHING,
    ) -> Response:
        import aiohttp
        from yarl import URL

        request = call.request
        url = path + ("?" + urlencode(list(query)) if query else "")
        if "upgrade" in request.headers.get("connection", "").lower():
            return await open_tunnel(request, target, url)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in _NOT_PASSED and not name.startswith(NAMING)
        }
        headers.update(more)
        if proxied is not None:
            headers.update(proxied.forwarded(path, headers.get("x-forwarded-for", ""), request.remote))
        try:
            answer = await self._open().request(
                request.method,
                URL(target.base_url + url, encoded=True),
                headers=headers,
                data=request.body or None,
                ssl=target.tls if target.tls is not None else True,
                allow_redirects=False,
                skip_auto_headers=_OURS,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if proxied is not None:
                why = why_unreachable(error, target.host, target.port)
                raise unavailable(f"error trying to reach service: {why}") from error
            raise _unreachable(request, target, url, error) from error
        if content_type and answer.status >= 400:
            raise await _failure(answer)
        passed = {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_PASSED}
        passed.pop("Content-Type", None)
        # The connection writes its own.
        passed.pop("Date", None)
        for name in [name for name in passed if name.lower() == "cache-control"]:
            # What this server says of all that it answers holds beside it.
            passed["Cache-Control"] = f"no-cache, private, {passed.pop(name)}"
        shown = content_type or answer.headers.get("Content-Type", "application/octet-stream")
        if proxied is None:
            return Response(answer.status, chunks_of(answer), passed, shown)
        for name in [name for name in passed if name.lower() in _CORS]:
            # This server says itself which pages may use it.
            del passed[name]
        if "Location" in passed:
            passed["Location"] = proxied.url(passed["Location"])
        if shown.partition(";")[0].strip().lower() != "text/html" or request.method == "HEAD":
            return Response(answer.status, chunks_of(answer), passed, shown)
        return Response(answer.status, await self._page(answer, proxied), passed, shown)

    async def _page(self, answer: aiohttp.ClientResponse, proxied: Proxied) -> bytes | AsyncIterator[bytes]:
        """An HTML page with its links led through the proxy; one that is too long, or in an encoding that is not known
        here, as it is."""
        began = bytearray()
        chunks = chunks_of(answer)
        async for chunk in chunks:
            began += chunk
            if len(began) > LONGEST_PAGE:
                return _joined(bytes(began), chunks)
        body = bytes(began)
        encoding = answer.headers.get("Content-Encoding", "").lower()
        try:
            page = await self._core.work.apart(len(body), proxied.page, body, encoding)
        except (OSError, EOFError, zlib.error):
            # It is not what its server says it is.
            return body
        return body if page is None else page

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session


def _container(pod: Obj, stated: str, name: str) -> str:
    """The container meant; a default that an annotation names is the client's to know.  Raises StatusError 400."""
    spec = pod.get("spec") or {}
    names = [str(container["name"]) for field in _CONTAINERS for container in spec.get(field) or ()]
    if not stated:
        plain = spec.get("containers") or []
        if len(plain) == 1:
            return str(plain[0]["name"])
        raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]")
    if stated not in names:
        raise bad_request(f"container {stated} is not valid for pod {name}")
    return stated


def _unreachable(request: Request, target: Target, url: str, error: BaseException) -> StatusError:
    return unavailable(f'{request.method.title()} "{target.base_url}{url}": {error}')


async def _failure(answer: aiohttp.ClientResponse) -> StatusError:
    """A kubelet's plain-text refusal as a Status."""
    async with answer:
        text = (await answer.text(errors="replace")).strip()
    reasons = {400: "BadRequest", 404: "NotFound", 403: "Forbidden", 401: "Unauthorized"}
    return StatusError(answer.status, reasons.get(answer.status, "InternalError"), text or f"kubelet: {answer.status}")


async def _joined(began: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield began
    async for chunk in rest:
        yield chunk
