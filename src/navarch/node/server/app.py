"""The kubelet's HTTPS server: logs, exec, attach, port-forward, the node's pods, statistics, metrics, health.

The API server is its main client and shows a certificate; paths and parameters are those of Kubernetes' kubelet.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from navarch.api.meta import Obj
from navarch.node import podspec
from navarch.node.engine.observed import ObservedContainer
from navarch.node.engine.parts import Parts
from navarch.node.engine.pods import Pods
from navarch.node.engine.worker import PodWorker
from navarch.node.runtime.base import RuntimeFailure, Streams
from navarch.node.runtime.logs import LogOptions, is_true, options_of, read_log
from navarch.node.server import streaming, system_logs, tls
from navarch.node.server.auth import Guard
from navarch.node.server.counting import Counting
from navarch.node.server.stats import Statistics
from navarch.numbers import integer_or
from navarch.tls import HTTP1_ONLY, show, tls_context

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_SHUTDOWN_S: Final = 0.5
_IDLE_S: Final = 90.0
_DEBUGGING: Final = ("run", "exec", "attach", "portForward", "containerLogs", "runningpods", "checkpoint")
# <linux/in.h>; the socket module does not name it.
_IP_FREEBIND: Final = 15


def _flag(request: web.Request, *names: str) -> bool:
    return any(is_true(request.query.get(name, "")) for name in names)


def log_options(query: Mapping[str, str], now: datetime) -> LogOptions:
    """What of a log a request asks for."""
    try:
        return options_of(query, now)
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"unable to decode query: {error}") from error


class KubeletServer:
    """Serves the pods of one node. `port` is the one it listens on, once started."""

    def __init__(self, parts: Parts, pods: Pods) -> None:
        self._parts = parts
        self._pods = pods
        self._guard = Guard(parts.client, parts.config.node_name, parts.clock, parts.config.serving)
        self._statistics = Statistics(parts, pods)
        self._counting = Counting(parts, pods)
        self._runners: list[web.AppRunner] = []
        self._context: ssl.SSLContext | None = None
        self.port = parts.config.port

    async def start(self) -> None:
        """Listen; without a serving certificate it listens on loopback in plain HTTP, for tests."""
        config = self._parts.config
        app = web.Application(middlewares=[self._authorise], client_max_size=1 << 20)
        self._add_readings(app)
        app.router.add_route("GET", "/configz", self._configz)
        self._add_system_logs(app)
        if config.serving.debugging:
            self._add_streams(app)
        else:
            for top in _DEBUGGING:
                app.router.add_route("*", f"/{top}/{{tail:.*}}", self._disabled)
        secured = self._tls()
        addresses = config.addresses if secured else ("127.0.0.1",)
        self.port = await self._listen(app, addresses, config.port, secured)
        if config.serving.read_only_port:
            readings = web.Application()
            self._add_readings(readings)
            await self._listen(readings, addresses, config.serving.read_only_port, None)
        if config.serving.healthz_port:
            health = web.Application()
            health.router.add_route("GET", "/healthz", self._healthz)
            await self._listen(health, (config.serving.healthz_address,), config.serving.healthz_port, None)

    def _add_readings(self, app: web.Application) -> None:
        """What says how the node and its pods are, and changes nothing."""
        for path, answer in (
            ("/healthz", self._healthz),
            ("/healthz/{name}", self._healthz),
            ("/pods", self._list_pods),
            ("/stats/summary", self._summary),
            ("/metrics", self._metrics),
            ("/metrics/resource", self._resource_metrics),
            ("/metrics/cadvisor", self._cadvisor_metrics),
            ("/metrics/probes", self._probe_metrics),
        ):
            app.router.add_route("GET", path, answer)

    def _add_system_logs(self, app: web.Application) -> None:
        shown = self._parts.config.serving.debugging and self._parts.config.serving.system_logs
        queries = self._parts.config.serving.log_queries
        answer = system_logs.system_logs(self._parts.world, queries=queries) if shown else system_logs.disabled
        for path in ("/logs", "/logs/{path:.*}"):
            app.router.add_route("GET", path, answer)
            app.router.add_route("HEAD", path, answer)

    def _add_streams(self, app: web.Application) -> None:
        """What leads into containers, or shows what they say."""
        route = app.router.add_route
        route("GET", "/runningpods/", self._running_pods)
        route("POST", "/checkpoint/{namespace}/{pod}/{container}", self._checkpoint)
        route("GET", "/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for verb in ("GET", "POST"):
            for tail in ("{namespace}/{pod}/{container}", "{namespace}/{pod}/{uid}/{container}"):
                route(verb, f"/exec/{tail}", self._exec)
                route(verb, f"/attach/{tail}", self._attach)
            route(verb, "/portForward/{namespace}/{pod}", self._port_forward)
            route(verb, "/portForward/{namespace}/{pod}/{uid}", self._port_forward)
        route("POST", "/run/{namespace}/{pod}/{container}", self._run)
        route("POST", "/run/{namespace}/{pod}/{uid}/{container}", self._run)

    async def _listen(
        self, app: web.Application, addresses: Iterable[str], port: int, secured: ssl.SSLContext | None
    ) -> int:
        """Serve `app`; returns the port."""
        runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_S,
            handle_signals=False,
            # A connection that asks for nothing is not kept for long; what streams has its own ways to notice.
            keepalive_timeout=_IDLE_S,
            # A command to execute travels in the URL.
            max_line_size=1 << 20,
        )
        self._runners.append(runner)
        await runner.setup()
        for listener in _listeners(addresses, port):
            await web.SockSite(runner, listener, ssl_context=secured).start()
        return int(runner.addresses[0][1])

    def _tls(self) -> ssl.SSLContext | None:
        config = self._parts.config
        if config.serving_cert is None or config.serving_key is None:
            return None
        # A caller may come with a token instead of a certificate.
        context = tls_context(config.serving_cert, config.serving_key, config.client_ca, HTTP1_ONLY)
        context.minimum_version = tls.MINIMUM_VERSIONS[config.serving.tls_min_version]
        if config.serving.cipher_suites:
            context.set_ciphers(tls.openssl_names(config.serving.cipher_suites))
        self._context = context
        return context

    def certificate_changed(self) -> None:
        """Show new connections the certificate that is in the files now."""
        config = self._parts.config
        if self._context is not None and config.serving_cert is not None and config.serving_key is not None:
            show(self._context, config.serving_cert, config.serving_key)

    async def stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    @web.middleware
    async def _authorise(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        secure = self._parts.config.serving_cert is not None
        if secure and request.path != "/healthz":
            refusal = await self._guard.refusal(request)
            if refusal is not None:
                return refusal
        return await handler(request)

    # Finding.

    def _worker(self, request: web.Request) -> PodWorker:
        info = request.match_info
        worker = self._pods.find(info["namespace"], info["pod"], info.get("uid", ""))
        if worker is None:
            raise web.HTTPNotFound(text=f'pod "{info["namespace"]}/{info["pod"]}" does not exist')
        return worker

    async def _instance(self, request: web.Request) -> tuple[PodWorker, Obj, ObservedContainer]:
        """The running instance that a request is about."""
        worker = self._worker(request)
        name = request.match_info["container"]
        container = podspec.find_container(worker.pod, name)
        if container is None:
            raise web.HTTPNotFound(text=f'container "{name}" not found in pod "{request.match_info["pod"]}"')
        instance = worker.observed.latest(name)
        if instance is None or not instance.running:
            await worker.observe()
            instance = worker.observed.latest(name)
        if instance is None or not instance.running:
            raise web.HTTPInternalServerError(text=f'container not found ("{name}")')
        return worker, container, instance

    # Answers.

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _list_pods(self, request: web.Request) -> web.Response:
        pods = [worker.pod for worker in self._pods]
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})

    async def _running_pods(self, request: web.Request) -> web.Response:
        pods = [worker.pod for worker in self._pods if worker.observed.any_running]
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})

    async def _configz(self, request: web.Request) -> web.Response:
        return _json({"kubeletconfig": {**self._parts.config.document, "port": self.port}})

    async def _disabled(self, request: web.Request) -> web.Response:
        return web.Response(status=405, text="Debug endpoints are disabled.\n")

    async def _summary(self, request: web.Request) -> web.Response:
        return _json(await self._statistics.summary())

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=await self._statistics.metrics(), content_type="text/plain")

    async def _resource_metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=await self._statistics.resource_metrics(), content_type="text/plain")

    async def _cadvisor_metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=await self._counting.cadvisor(), content_type="text/plain")

    async def _probe_metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self._counting.probes(), content_type="text/plain")

    async def _checkpoint(self, request: web.Request) -> web.Response:
        worker, name = self._worker(request), request.match_info["container"]
        instance = worker.observed.latest(name)
        if podspec.find_container(worker.pod, name) is None or instance is None:
            raise web.HTTPNotFound(text=f"container {name} does not exist")
        info = request.match_info
        where = f"{info['namespace']}/{info['pod']}/{name}"
        folder = self._parts.config.data / "checkpoints"
        stamp = self._parts.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        file = folder / f"checkpoint-{info['pod']}_{info['namespace']}-{name}-{stamp}.tar"
        try:
            timeout_s = int(request.query.get("timeout") or 0)
        except ValueError:
            raise web.HTTPInternalServerError(text="cannot parse value of timeout parameter") from None
        await self._parts.world.in_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        try:
            await self._parts.runtime.checkpoint(instance.id, file, timeout_s)
        except (RuntimeFailure, ConnectionError) as error:
            raise web.HTTPInternalServerError(text=f"checkpointing of {where} failed ({error})") from error
        return _json({"items": [str(file)]})

    # Logs.

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker = self._worker(request)
        name = request.match_info["container"]
        pod_name = request.match_info["pod"]
        if podspec.find_container(worker.pod, name) is None:
            raise web.HTTPNotFound(text=f'container "{name}" not found in pod "{pod_name}"')
        options = log_options(request.query, self._parts.clock.now())
        instance = await self._logged_instance(worker, name, previous=_flag(request, "previous"))
        path = Path(instance.status.log_path)
        if instance.exited and not await self._parts.world.in_thread(path.exists):
            raise _no_log(instance.id)

        def running() -> bool:
            latest = worker.observed.containers.get(name) or ()
            return any(one.id == instance.id and one.running for one in latest)

        return await streaming.send_chunks(request, read_log(path, options, running))

    async def _logged_instance(self, worker: PodWorker, name: str, *, previous: bool) -> ObservedContainer:
        """The instance whose log is asked for; says why there is none as Kubernetes does."""
        pod_name = worker.pod["metadata"]["name"]
        instances = [one for one in worker.observed.containers.get(name) or () if not one.created_only]
        if not instances:
            await worker.observe()
            instances = [one for one in worker.observed.containers.get(name) or () if not one.created_only]
        if previous:
            ended = [one for one in instances if one.exited]
            if instances and instances[0].exited and worker.ending:
                ended = ended[1:]
            if not ended:
                raise web.HTTPBadRequest(text=f'previous terminated container "{name}" in pod "{pod_name}" not found')
            return ended[0]
        if instances:
            return instances[0]
        if gone := _told_end(worker.pod, name).get("containerID"):
            raise _no_log(gone.rpartition("/")[2])
        state = worker.memory.get(name)
        reason = state.waiting_reason if state is not None else ""
        if reason in ("ErrImagePull", "ImagePullBackOff"):
            words = "trying and failing to pull image" if reason == "ErrImagePull" else "image can't be pulled"
            text = f'container "{name}" in pod "{pod_name}" is waiting to start: {words}'
        else:
            default = "PodInitializing" if podspec.init_containers(worker.pod) else "ContainerCreating"
            text = f'container "{name}" in pod "{pod_name}" is waiting to start: {reason or default}'
        raise web.HTTPBadRequest(text=text)

    # Streams.

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        _, _, instance = await self._instance(request)
        streams = self._streams(request, tty=_flag(request, "tty"))
        command = request.query.getall("command", [])
        return await self._remote(request, self._parts.runtime.exec_url(instance.id, command, streams), streams)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        _, container, instance = await self._instance(request)
        streams = self._streams(request, tty=bool(container.get("tty")))
        if not container.get("stdin"):
            streams = streams._replace(stdin=False)
        return await self._remote(request, self._parts.runtime.attach_url(instance.id, streams), streams)

    def _streams(self, request: web.Request, *, tty: bool) -> Streams:
        streams = Streams(
            stdin=_flag(request, "input", "stdin"),
            stdout=_flag(request, "output", "stdout"),
            stderr=_flag(request, "error", "stderr") and not tty,
            tty=tty,
        )
        if not (streams.stdin or streams.stdout or streams.stderr):
            raise web.HTTPBadRequest(text="you must specify at least 1 of stdin, stdout, stderr")
        return streams

    async def _remote(self, request: web.Request, url: Awaitable[str], streams: Streams) -> web.StreamResponse:
        try:
            address = await url
        except RuntimeFailure as error:
            raise web.HTTPInternalServerError(text=streaming.refusal(error)) from error
        if request.headers.get("Upgrade", "").upper().startswith("SPDY/"):
            protocols = _offered(request) or ["v4.channel.k8s.io"]
            return await streaming.bridge_upgrade(request, address, protocols)
        socket = await streaming.web_socket(request, streaming.EXEC_PROTOCOLS)
        await streaming.bridge_remote(socket, address, streams)
        return socket

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        worker = self._worker(request)
        if not worker.observed.sandbox_ready:
            await worker.observe()
        sandbox = worker.observed.sandbox
        if sandbox is None or not worker.observed.sandbox_ready:
            raise web.HTTPInternalServerError(text="unable to forward port because pod is not running")
        stated = [*request.query.getall("port", []), *request.query.getall("ports", [])]
        ports = [_port(port) for text in stated for port in text.split(",")]
        try:
            url = await self._parts.runtime.port_forward_url(sandbox.id, ports)
        except RuntimeFailure as error:
            raise web.HTTPInternalServerError(text=streaming.refusal(error)) from error
        if request.headers.get("Upgrade", "").upper().startswith("SPDY/"):
            return await streaming.bridge_upgrade(request, url, ["portforward.k8s.io"])
        socket = await streaming.web_socket(request, streaming.FORWARD_PROTOCOLS)
        if socket.ws_protocol in streaming.TUNNEL_PROTOCOLS:
            await streaming.bridge_tunnel(socket, url)
        else:
            await streaming.bridge_ports(socket, url, ports)
        return socket

    async def _run(self, request: web.Request) -> web.Response:
        _, _, instance = await self._instance(request)
        command = request.query.get("cmd", "").split() or request.query.getall("command", [])
        try:
            result = await self._parts.runtime.exec_sync(instance.id, command, 3600)
        except RuntimeFailure as error:
            raise web.HTTPInternalServerError(text=str(error)) from error
        return web.Response(body=result.output, content_type="text/plain")


def _port(text: str) -> int:
    if not 0 < (number := integer_or(text, 0)) < 1 << 16:
        raise web.HTTPBadRequest(text=f"invalid port {text[:16]!r}")
    return number


def _offered(request: web.Request) -> list[str]:
    """The stream protocols that a SPDY client offers."""
    headers = request.headers.getall("X-Stream-Protocol-Version", [])
    return [name.strip() for value in headers for name in value.split(",")]


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


def _listeners(addresses: Iterable[str], port: int) -> list[socket.socket]:
    """Bound sockets, also for an address that the node is yet to be given.  Raises OSError."""
    made: list[socket.socket] = []
    try:
        for address in addresses:
            listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            made.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
            listener.bind((address, port))
    except OSError:
        for listener in made:
            listener.close()
        raise
    return made


def _told_end(pod: Obj, name: str) -> Obj:
    """How the container ended, as the pod's status tells it."""
    status = pod.get("status") or {}
    lists = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    told = (one for part in lists for one in status.get(part) or () if one["name"] == name)
    return next(((one.get("state") or {}).get("terminated") or {} for one in told), {})


def _no_log(container_id: str) -> web.HTTPException:
    """The container's log went before its pod, as an evicted pod's does. Kubernetes tells so in the log's place."""
    return web.HTTPOk(text=f"unable to retrieve container logs for containerd://{container_id}")
