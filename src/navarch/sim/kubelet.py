"""The kubelets of simulated nodes, as the API server sees them: one small HTTPS server on loopback for all of them.

It answers what people ask of pods: a log has the lines that the pod's annotations give it, a command prints what they
say, and where they say nothing the answer is that this pod has no containers. Nothing that is asked here ever goes
further. Only the API server may ask: it shows its client certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from navarch.api.meta import Obj, annotations_of, uid_of
from navarch.api.time import format_micro_time, parse_time
from navarch.client.informer import Informer
from navarch.node import podspec
from navarch.node.runtime.logs import LogOptions, render
from navarch.records import frozen
from navarch.sim.behaviour import PREFIX
from navarch.sim.usage import resource_metrics
from navarch.tls import show
from navarch.world import Clock

if TYPE_CHECKING:
    from aiohttp import web

# Nodes have addresses that lead nowhere; by this name the API server reaches this server.
HOST: Final = "localhost"
# And says in this header which node it means.
NODE_HEADER: Final = "X-Navarch-Node"
_ADDRESS: Final = "127.0.0.1"
_API_SERVER: Final = "system:apiserver"
_LOOK_AGAIN_S: Final = 0.5
_LINE_APART: Final = timedelta(milliseconds=1)


@frozen
class ServingKeys:
    """PEM files: the server's certificate and key, and the authority of its client, the API server."""

    certificate: Path
    key: Path
    client_ca: Path


class SimulatedKubelet:
    """`pods` are those of the cluster, `nodes` the names of the nodes that are simulated here."""

    def __init__(self, pods: Informer, nodes: Container[str], clock: Clock) -> None:
        self._pods = pods
        self._nodes = nodes
        self._clock = clock
        self._listener: socket.socket | None = None
        self._shown: tuple[ssl.SSLContext, ServingKeys] | None = None

    def look_at_certificate(self) -> None:
        """Show new connections the one that is in the files now, where it is whole."""
        if self._shown is not None:
            context, keys = self._shown
            with contextlib.suppress(OSError):
                show(context, keys.certificate, keys.key)

    def listen(self, keys: ServingKeys) -> int:
        """The port; who connects waits for `serve`.  Raises OSError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(keys.certificate, keys.key)
        context.load_verify_locations(keys.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        self._shown = (context, keys)
        self._listener = socket.create_server((_ADDRESS, 0))
        self._listener.setblocking(False)
        return int(self._listener.getsockname()[1])

    async def serve(self) -> None:
        """Until cancelled. What serves is loaded when somebody connects: it would be a twentieth of a cluster's start,
        and of many clusters nobody ever asks."""
        assert self._listener is not None
        assert self._shown is not None
        with self._listener as listener:
            await _readable(listener)
            from aiohttp import web

            runner = web.AppRunner(self._application(), access_log=None, handle_signals=False, shutdown_timeout=0.5)
            try:
                await runner.setup()
                await web.SockSite(runner, listener, ssl_context=self._shown[0]).start()
                await asyncio.Event().wait()
            finally:
                await runner.cleanup()

    def _application(self) -> web.Application:
        from aiohttp import web

        app = web.Application(middlewares=[web.middleware(_authorise)])
        route = app.router.add_route
        route("GET", "/healthz", _healthz)
        route("GET", "/metrics/resource", self._resource_metrics)
        route("GET", "/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for verb in ("GET", "POST"):
            route(verb, "/exec/{namespace}/{pod}/{container}", self._exec)
            route(verb, "/attach/{namespace}/{pod}/{container}", self._attach)
            route(verb, "/portForward/{namespace}/{pod}", self._port_forward)
        route("POST", "/run/{namespace}/{pod}/{container}", self._run)
        return app

    # Answers.

    def _pod(self, request: web.Request) -> Obj:
        from aiohttp import web

        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        pod = self._pods.get(namespace, name)
        if pod is None or pod["spec"].get("nodeName") not in self._nodes:
            raise web.HTTPNotFound(text=f'pod "{namespace}/{name}" does not exist')
        return pod

    async def _resource_metrics(self, request: web.Request) -> web.Response:
        """What the pods of a node use. All nodes are at one address: the API server says which one it means."""
        from aiohttp import web

        node = request.headers.get(NODE_HEADER, "")
        if node not in self._nodes:
            raise web.HTTPNotFound(text=f'node "{node}" is not simulated here')
        pods = [pod for pod in self._pods.list() if pod["spec"].get("nodeName") == node]
        return web.Response(text=resource_metrics(pods, self._clock.now()), content_type="text/plain")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        from navarch.node.server.app import log_options
        from navarch.node.server.streaming import send_chunks

        pod, name = self._pod(request), request.match_info["container"]
        options = log_options(request.query, self._clock.now())
        run = _run_of(pod, name, previous=request.query.get("previous", "") in ("1", "true"))
        lines = logged(pod, name)
        if lines is None:
            raise _refusal(f"{_what(pod, name)}, so it has no log; {_hint('logs', 'gives it lines')}")
        return await send_chunks(request, self._read(pod, name, run, lines, options))

    async def _read(
        self, pod: Obj, name: str, run: _Run, lines: list[str], options: LogOptions
    ) -> AsyncIterator[bytes]:
        stamped = [
            f"{format_micro_time(run.started + index * _LINE_APART)} stdout F {line}".encode()
            for index, line in enumerate(lines)
        ]
        if options.tail_lines is not None:
            stamped = stamped[max(len(stamped) - options.tail_lines, 0) :]
        said = b"".join(render(line, options) for line in stamped)
        yield said if options.limit_bytes is None else said[: options.limit_bytes]
        if options.follow and options.limit_bytes is None:
            await self._ended(pod, name, run)

    async def _ended(self, pod: Obj, name: str, run: _Run) -> None:
        """Wait until this run of the container is over."""
        while self._goes_on(pod, name, run):  # noqa: ASYNC110 - few follow, and an informer tells all of all pods.
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _goes_on(self, pod: Obj, name: str, run: _Run) -> bool:
        now = self._pods.get(pod["metadata"]["namespace"], pod["metadata"]["name"])
        if now is None or uid_of(now) != uid_of(pod):
            return False
        state = _status_of(now, name)
        return "running" in (state.get("state") or {}) and int(state.get("restartCount") or 0) == run.attempt

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        from navarch.node.server import streaming

        pod, name = self._pod(request), request.match_info["container"]
        said = self._said(pod, name)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise _refusal(f"{_what(pod, name)}, and what its annotation says is told over WebSockets only")
        socket = await streaming.web_socket(request, streaming.EXEC_PROTOCOLS)
        await streaming.say(socket, said)
        return socket

    async def _run(self, request: web.Request) -> web.Response:
        from aiohttp import web

        return web.Response(body=self._said(self._pod(request), request.match_info["container"]))

    def _said(self, pod: Obj, name: str) -> bytes:
        """What a command prints in this container."""
        _must_run(pod, name)
        said = annotations_of(pod).get(f"{PREFIX}exec")
        if said is None:
            raise _refusal(f"{_what(pod, name)}, so nothing can run in it; {_hint('exec', 'says what commands print')}")
        return said.encode() + (b"" if said.endswith("\n") or not said else b"\n")

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        pod, name = self._pod(request), request.match_info["container"]
        raise _refusal(f"{_what(pod, name)}, so there is no process to attach to")

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)
        raise _refusal(f"{_what(pod)}, so nothing listens on its ports")


async def _readable(listener: socket.socket) -> None:
    """Until somebody waits to be accepted."""
    loop = asyncio.get_running_loop()
    come = asyncio.Event()
    loop.add_reader(listener.fileno(), come.set)
    try:
        await come.wait()
    finally:
        loop.remove_reader(listener.fileno())


async def _healthz(request: web.Request) -> web.Response:
    from aiohttp import web

    return web.Response(text="ok")


async def _authorise(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    from aiohttp import web

    peer = request.get_extra_info("peercert") or {}
    names = {value for part in peer.get("subject", ()) for key, value in part if key == "commonName"}
    if _API_SERVER not in names:
        raise web.HTTPForbidden(text="Forbidden")
    return await handler(request)


# What a pod says.


@frozen
class _Run:
    """One run of a container: which, and since when."""

    attempt: int
    started: datetime


def logged(pod: Obj, container: str) -> list[str] | None:
    """The lines of a container's log; None where no annotation gives it any."""
    annotations = annotations_of(pod)
    text = annotations.get(f"{PREFIX}logs.{container}", annotations.get(f"{PREFIX}logs"))
    return None if text is None else text.splitlines()


def _status_of(pod: Obj, name: str) -> Obj:
    status = pod.get("status") or {}
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for one in status.get(field) or ():
            if one["name"] == name:
                return dict(one)
    return {}


def _run_of(pod: Obj, name: str, *, previous: bool) -> _Run:
    """The run whose log is meant; where there is none, says so as a kubelet does."""
    if podspec.find_container(pod, name) is None:
        raise _refusal(f'container "{name}" not found in pod "{pod["metadata"]["name"]}"', missing=True)
    status = _status_of(pod, name)
    state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated")
    attempt = int(status.get("restartCount") or 0)
    pod_name = pod["metadata"]["name"]
    if previous:
        if not last:
            raise _refusal(f'previous terminated container "{name}" in pod "{pod_name}" not found')
        return _Run(max(attempt - 1, 0), parse_time(last["startedAt"]))
    current = state.get("running") or state.get("terminated") or last
    if not current:
        reason = (state.get("waiting") or {}).get("reason") or "ContainerCreating"
        raise _refusal(f'container "{name}" in pod "{pod_name}" is waiting to start: {reason}')
    return _Run(attempt, parse_time(current["startedAt"]))


def _must_run(pod: Obj, name: str) -> None:
    if "running" not in (_status_of(pod, name).get("state") or {}):
        raise _refusal(f'container not found ("{name}")', missing=True)


def _what(pod: Obj, container: str = "") -> str:
    """Without a colon and a blank: clients look at a refused upgrade for a Status in YAML first, and would find one
    that says nothing."""
    metadata, node = pod["metadata"], pod["spec"].get("nodeName")
    which = f'pod "{metadata["namespace"]}/{metadata["name"]}"'
    where = f'runs on the simulated node "{node}" and has no containers'
    return f"{which} {where}" if not container else f'container "{container}" does not exist, because {which} {where}'


def _hint(annotation: str, does: str) -> str:
    return f"the pod's annotation {PREFIX}{annotation} {does}"


def _refusal(text: str, *, missing: bool = False) -> web.HTTPException:
    from aiohttp import web

    return web.HTTPNotFound(text=text) if missing else web.HTTPBadRequest(text=text)
