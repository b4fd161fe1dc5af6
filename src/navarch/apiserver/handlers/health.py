"""`/healthz`, `/livez`, `/readyz`: whether the server is well, check by check, under Kubernetes' names for the checks.

What is looked at each time: the store, the watch caches, whether the server is stopping. The checks named
`poststarthook/…` ask whether something of the start has been done; here nobody is answered before all of that is, so
whoever can ask is told that it is. Every result is counted, for `/metrics/slis`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from navarch.apiserver.core import Core
from navarch.client.transport import Request, Response
from navarch.store.base import StoreUnavailable

log = logging.getLogger(__name__)

_TEXT: Final = "text/plain; charset=utf-8"
_HOOKS: Final = (
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "peer-endpoint-reconciler-controller",
    "start-cluster-authentication-info-controller",
    "start-kube-apiserver-identity-lease-controller",
    "start-kube-apiserver-identity-lease-garbage-collector",
    "storage-readiness",
    "start-legacy-token-tracking-controller",
    "start-service-ip-repair-controllers",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kubernetes-service-cidr-controller",
    "aggregator-reload-proxy-client-cert",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-wait-for-first-sync",
    "apiservice-discovery-controller",
    "kube-apiserver-autoregistration",
    "autoregister-completion",
    "apiservice-openapi-controller",
    "apiservice-openapiv3-controller",
)
# The one among them that is no hook.
_NO_HOOK: Final = "autoregister-completion"
_STARTED: Final = tuple(name if name == _NO_HOOK else f"poststarthook/{name}" for name in _HOOKS)
_LIVE: Final = ("ping", "log", "loopback-serving-certificate", "etcd", *_STARTED)
CHECKS: Final[Mapping[str, Sequence[str]]] = {
    "healthz": _LIVE,
    "livez": _LIVE,
    "readyz": ("ping", "log", "etcd", "etcd-readiness", "informer-sync", *_STARTED, "shutdown"),
}


class Health:
    """`ready` is what the check `shutdown` says."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.ready = False
        self._checks: dict[str, list[str]] = {which: list(checks) for which, checks in CHECKS.items()}
        self._added: dict[str, Callable[[], Awaitable[str]]] = {}
        # By check, endpoint and outcome, and how the last one ended.
        self._counts: dict[tuple[str, str, str], int] = {}
        self._last: dict[tuple[str, str], bool] = {}

    def add(self, name: str, check: Callable[[], Awaitable[str]]) -> None:
        """One more, beside those of the store; it says what is wrong."""
        self._added[name] = check
        for checks in self._checks.values():
            stores = [index for index, known in enumerate(checks) if known.startswith("etcd") or known in self._added]
            checks.insert(stores[-1] + 1, name)

    def paths(self) -> list[str]:
        """All that can be asked."""
        return [
            path
            for which, checks in self._checks.items()
            for path in (f"/{which}", *(f"/{which}/{name}" for name in checks))
        ]

    async def handle(self, which: str, wanted: str, request: Request) -> Response:
        """`wanted` is the one check that is asked for; empty: all."""
        checks = self._checks[which]
        if wanted:
            if wanted not in checks:
                return Response(404, b"404 page not found\n", {}, _TEXT)
            failed = await self._run(which, wanted)
            return Response(500, f"internal server error: {failed}\n".encode(), {}, _TEXT) if failed else _ok()
        excluded = {value for name, value in request.query if name == "exclude"}
        lines, bad = [], []
        for check in checks:
            if check in excluded:
                excluded.discard(check)
                lines.append(f"[+]{check} excluded: ok")
            elif failed := await self._run(which, check):
                # What it is, is for the log: the answer may be read by anybody.
                log.warning("%s check failed: %s: %s", which, check, failed)
                lines.append(f"[-]{check} failed: reason withheld")
                bad.append(check)
            else:
                lines.append(f"[+]{check} ok")
        if excluded:
            names = ", ".join(f'"{name}"' for name in sorted(excluded))
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
        if bad:
            return Response(500, "\n".join([*lines, f"{which} check failed\n"]).encode(), {}, _TEXT)
        if not any(name == "verbose" for name, _ in request.query):
            return _ok()
        return Response(200, "\n".join([*lines, f"{which} check passed\n"]).encode(), {}, _TEXT)

    async def _run(self, which: str, check: str) -> str:
        """Empty if all is well, else what is wrong."""
        failed = await self._check(check)
        key = (check, which, "error" if failed else "success")
        self._counts[key] = self._counts.get(key, 0) + 1
        self._last[check, which] = not failed
        return failed

    async def _check(self, check: str) -> str:
        caches = self._core.caches
        if (added := self._added.get(check)) is not None:
            return await added()
        try:
            if check == "etcd":
                await caches.store.revision()
            elif check == "etcd-readiness":
                await caches.store.check()
        except StoreUnavailable as error:
            return str(error)
        if check == "informer-sync" and not caches.following:
            return "the watch caches stand still"
        if check == "shutdown" and not self.ready:
            return "the server is starting or stopping"
        return ""

    def slis(self) -> Response:
        """`/metrics/slis`: how the checks that were asked for have ended."""
        name = "kubernetes_healthcheck"
        lines = [f"# HELP {name} [STABLE] The result of a single health check.", f"# TYPE {name} gauge"]
        for (check, which), well in sorted(self._last.items()):
            lines.append(f'{name}{{name="{check}",type="{which}"}} {int(well)}')
        lines += [f"# HELP {name}s_total [STABLE] The results of all health checks.", f"# TYPE {name}s_total counter"]
        for (check, which, status), count in sorted(self._counts.items()):
            lines.append(f'{name}s_total{{name="{check}",status="{status}",type="{which}"}} {count}')
        text = "\n".join(lines) + "\n" if self._last else ""
        return Response(200, text.encode(), {}, "text/plain; version=0.0.4; charset=utf-8")


def _ok() -> Response:
    return Response(200, b"ok", {}, _TEXT)
