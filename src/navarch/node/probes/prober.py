"""Probes: startup, liveness and readiness of running containers, by exec, HTTP, TCP or gRPC.

One task per probe of a running container. A probe's verdict changes only after as many equal results as its thresholds
say, and each change is reported once. Startup holds the other two back until it succeeds.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from navarch.api.meta import Obj
from navarch.api.protobuf_messages import message_class
from navarch.client.supervision import Failures, unless_cancelled, until_done
from navarch.node.probes.handlers import HTTPCaller, Outcome, http_request, port_number, tcp_connect
from navarch.node.runtime.base import Runtime, RuntimeFailure, TimedOut
from navarch.world import Clock

log = logging.getLogger(__name__)

KINDS: Final = ("startupProbe", "livenessProbe", "readinessProbe")
_TITLES: Final = {"startupProbe": "Startup", "livenessProbe": "Liveness", "readinessProbe": "Readiness"}
_SERVING: Final = 1

Verdict = Callable[[str, bool, str], None]
"""Called with the probe's kind, its new verdict, and the output that led to it."""
Told = Callable[[str, str], None]
"""Called with the reason and message of the event that a failed or doubtful attempt makes."""


def _number(probe: Obj, name: str, default: int) -> int:
    value = probe.get(name)
    return default if not value else int(value)


class Prober:
    """Runs single attempts of any kind of probe."""

    def __init__(self, runtime: Runtime, caller: HTTPCaller) -> None:
        self._runtime = runtime
        self._caller = caller

    async def attempt(self, container: Obj, probe: Obj, container_id: str, pod_ip: str) -> Outcome | None:
        """One attempt, bounded by the probe's timeout; None where nothing was learnt of the container, as when
        the runtime is away. Never raises but for cancellation."""
        try:
            return await unless_cancelled(self._attempt(container, probe, container_id, pod_ip))
        except ValueError as error:
            return Outcome(False, str(error))
        except Exception as error:
            # A fault of ours says nothing of the container: the attempt counts for nothing, as in Kubernetes.
            log.error("probe of %s: %s: %s", container.get("name"), type(error).__name__, error, exc_info=error)
            return None

    async def _attempt(self, container: Obj, probe: Obj, container_id: str, pod_ip: str) -> Outcome | None:
        timeout_s = float(_number(probe, "timeoutSeconds", 1))
        if probe.get("exec"):
            return await self._exec(probe["exec"].get("command") or [], container_id, timeout_s)
        if probe.get("httpGet"):
            url, headers = http_request(container, probe["httpGet"], pod_ip, f"kube-probe/{self._caller.version}")
            return await self._caller.get(url, headers, timeout_s)
        if probe.get("tcpSocket"):
            host = probe["tcpSocket"].get("host") or pod_ip
            return await tcp_connect(host, port_number(container, probe["tcpSocket"]["port"]), timeout_s)
        if probe.get("grpc"):
            action = probe["grpc"]
            return await grpc_health(pod_ip, int(action["port"]), action.get("service") or "", timeout_s)
        return Outcome(False, "missing probe handler")

    async def _exec(self, command: list[str], container_id: str, timeout_s: float) -> Outcome | None:
        try:
            result = await self._runtime.exec_sync(container_id, command, timeout_s)
        except TimedOut:
            return Outcome(False, f'command timed out: "{" ".join(command)}" timed out after {timeout_s:g}s')
        except ConnectionError:
            return None
        except RuntimeFailure as error:
            return Outcome(False, str(error))
        return Outcome(result.exit_code == 0, result.output[:10240].decode(errors="replace"))


def _why_no_answer(error: grpc.aio.AioRpcError, timeout_s: float) -> str:
    """In the kubelet's words, with the code as Go spells it."""
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        words = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        return f"{words}: {error.details()}"
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"timeout: health rpc did not complete within {timeout_s:g}s"
    name = error.code().name
    code = "Canceled" if name == "CANCELLED" else "".join(word.capitalize() for word in name.split("_"))
    return f"error: health rpc probe failed: rpc error: code = {code} desc = {error.details()}"


async def grpc_health(host: str, port: int, service: str, timeout_s: float) -> Outcome:
    """The standard health service (`grpc.health.v1.Health/Check`) says SERVING."""
    request = message_class("grpc/health.HealthCheckRequest")(service=service or None).SerializeToString()
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    async with grpc.aio.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", None, None)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await channel.channel_ready()
        except TimeoutError:
            words = f'timeout: failed to connect service "{address}" within {timeout_s:g}s'
            return Outcome(False, f"{words}: context deadline exceeded")
        try:
            answer: bytes = await check(request, timeout=max(until_s - loop.time(), 0))
        except grpc.aio.AioRpcError as error:
            return Outcome(False, _why_no_answer(error, timeout_s))
    try:
        status = message_class("grpc/health.HealthCheckResponse").FromString(answer).status
    except DecodeError as error:
        return Outcome(False, f"error: health rpc probe failed: {error}")
    if status == _SERVING:
        return Outcome(True, "service healthy")
    return Outcome(False, f'service unhealthy (responded with "{_health_name(status)}")')


def _health_name(status: int) -> str:
    return {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}.get(status, str(status))


class ContainerProbes:
    """The probes of one running container instance, as tasks of a group that its owner cancels."""

    def __init__(
        self,
        prober: Prober,
        container: Obj,
        container_id: str,
        pod_ip: str,
        started_at: datetime,
        clock: Clock,
        source: random.Random,
        *,
        verdict: Verdict,
        told: Told,
        failures: Failures,
        counted: Callable[[str, bool], None] = lambda kind, ok: None,
    ) -> None:
        self._failures = failures
        self._counted = counted
        self._prober = prober
        self._container = container
        self._container_id = container_id
        self._pod_ip = pod_ip
        self._started_at = started_at
        self._clock = clock
        self._random = source
        self._verdict = verdict
        self._told = told
        self._started = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, started: bool, adopted: bool = False) -> None:
        """Start the tasks; `started` says that the startup probe has succeeded or that there is none. `adopted` is
        for a container that ran before the kubelet did: first attempts are spread, lest those of all coincide."""
        if started:
            self._started.set()
        for kind in KINDS:
            if kind == "startupProbe" and started:
                continue
            probe = self._container.get(kind)
            if probe:
                name = f"{kind} {self._container['name']}"
                running = until_done(name, partial(self._run, kind, probe, adopted), self._failures)
                self._tasks.append(asyncio.create_task(running, name=name))

    def stop(self, *, keep_readiness: bool = False) -> None:
        """Cancel the tasks."""
        kept = []
        for task in self._tasks:
            if keep_readiness and task.get_name().startswith("readinessProbe"):
                kept.append(task)
            else:
                task.cancel()
        self._tasks = kept

    async def _run(self, kind: str, probe: Obj, adopted: bool) -> None:
        period_s = float(_number(probe, "periodSeconds", 10))
        if kind != "startupProbe":
            await self._started.wait()
        age_s = (self._clock.now() - self._started_at).total_seconds()
        delay_s = _number(probe, "initialDelaySeconds", 0) - age_s
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        elif adopted:
            await asyncio.sleep(self._random.random() * min(period_s, 10.0))
        failures_needed = _number(probe, "failureThreshold", 3)
        successes_needed = _number(probe, "successThreshold", 1)
        last: bool | None = None
        run = 0
        while True:
            outcome = await self._prober.attempt(self._container, probe, self._container_id, self._pod_ip)
            if outcome is None:
                await asyncio.sleep(period_s)
                continue
            self._counted(kind, outcome.ok)
            if not outcome.ok:
                self._told("Unhealthy", f"{_TITLES[kind]} probe failed: {outcome.output}")
            elif outcome.warning:
                self._told("ProbeWarning", f"{_TITLES[kind]} probe warning: {outcome.output}")
            run = run + 1 if outcome.ok == last else 1
            last = outcome.ok
            if run >= (successes_needed if outcome.ok else failures_needed):
                self._verdict(kind, outcome.ok, outcome.output)
                if kind == "startupProbe":
                    if outcome.ok:
                        self._started.set()
                    return
                if kind == "livenessProbe" and not outcome.ok:
                    return
            await asyncio.sleep(period_s)


def ready_without_probe(container: Obj) -> bool:
    return not container.get("readinessProbe")


def started_without_probe(container: Obj) -> bool:
    return not container.get("startupProbe")


def termination_grace(container: Obj, kind: str) -> int | None:
    """A probe's own grace period for the kill that it causes."""
    value: Any = (container.get(kind) or {}).get("terminationGracePeriodSeconds")
    return None if value is None else int(value)
