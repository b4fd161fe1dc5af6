"""What is no resource: health, version, metrics; discovery and OpenAPI."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import orjson

from navarch.api.errors import PathNotFound, method_not_allowed
from navarch.apiserver.aggregation.documents import MergedDocuments
from navarch.apiserver.answers import in_form
from navarch.apiserver.core import Core
from navarch.apiserver.handlers.documents import Documents
from navarch.apiserver.negotiation import JSON, OFFERED, YAML, Form, check_route, plain_type
from navarch.apiserver.routes import Route
from navarch.apiserver.user import User
from navarch.client.transport import Request, Response
from navarch.store.base import StoreUnavailable

_TEXT = "text/plain; charset=utf-8"
_OTHERS = ("/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version")
_OPENID_CONFIGURATION = "/.well-known/openid-configuration"
_JWKS = "/openid/v1/jwks"
_KEY_SET = "application/jwk-set+json"
_HEALTH = ("healthz", "livez", "readyz")
_CHECKS = ("ping", "log", "etcd", "informer-sync", "poststarthook/start-apiserver-admission-initializer")


def _navarch_version() -> str:
    try:
        return version("navarch")
    except PackageNotFoundError:
        return "0"


class Paths:
    """`ready` is what `/readyz` says."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.ready = False
        self.documents = Documents(core)
        self._merged = MergedDocuments(self.documents)

    async def handle(self, request: Request, route: Route, user: User) -> Response:
        """Raises StatusError."""
        parts = route.path.strip("/").split("/")
        first = parts[0]
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        if first in _HEALTH:
            return await self._health(first, parts[1:], request)
        accept, path = request.headers.get("accept", ""), route.path.rstrip("/")
        if path == "/version":
            check_route(accept, (JSON,))
            return Response(200, orjson.dumps(self._version(), option=orjson.OPT_INDENT_2))
        if route.path == "/metrics":
            return self._metrics()
        issuer = self._core.token_issuer
        if issuer is not None and path == _OPENID_CONFIGURATION:
            check_route(accept, (JSON,))
            return Response(200, orjson.dumps(issuer.openid_configuration()))
        if issuer is not None and path == _JWKS:
            check_route(accept, (_KEY_SET,))
            return Response(200, orjson.dumps(issuer.jwks()), {}, _KEY_SET)
        if first in ("api", "apis", "openapi"):
            if first != "openapi":
                check_route(accept, OFFERED)
            response = await self._document(request, route, user)
            if first != "openapi" and YAML in accept and plain_type(accept) == YAML:
                return await in_form(self._core.work, Form(YAML), response)
            return response
        if route.path == "/":
            return Response(200, orjson.dumps({"paths": self._listed_paths()}, option=orjson.OPT_INDENT_2))
        raise PathNotFound()

    async def _document(self, request: Request, route: Route, user: User) -> Response:
        delegate = self._core.delegate
        if delegate is not None and delegate.foreign.versions:
            return await self._merged.handle(request, route, user, delegate)
        return await self.documents.handle(request, route)

    def _listed_paths(self) -> list[str]:
        groups = [
            path
            for group, versions in self._core.registry.versions().items()
            if group
            for path in (f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions))
        ]
        return sorted(["/api", "/api/v1", "/apis", *groups, *_OTHERS])

    async def _health(self, which: str, rest: list[str], request: Request) -> Response:
        results = {check: await self._check(check) for check in _CHECKS}
        if which == "readyz":
            results["etcd-readiness"] = await self._check("etcd-readiness")
            results["shutdown"] = "" if self.ready else "the server is starting or stopping"
        wanted = "/".join(rest)
        excluded = {value for name, value in request.query if name == "exclude"}
        if wanted:
            if wanted not in results:
                raise PathNotFound()
            failed = results[wanted]
            return Response(500 if failed else 200, (failed or "ok").encode(), {}, _TEXT)
        bad = [check for check, failed in results.items() if failed and check not in excluded]
        verbose = any(name == "verbose" for name, _ in request.query)
        if not bad and not verbose:
            return Response(200, b"ok", {}, _TEXT)
        lines = [
            f"[-]{check} failed: {failed}"
            if failed and check not in excluded
            else f"[+]{check} " + ("excluded: ok" if check in excluded else "ok")
            for check, failed in results.items()
        ]
        lines.append(f"{which} check " + ("failed" if bad else "passed"))
        return Response(500 if bad else 200, ("\n".join(lines) + "\n").encode(), {}, _TEXT)

    async def _check(self, check: str) -> str:
        """Empty if all is well, else what is wrong."""
        if check == "etcd":
            try:
                await self._core.caches.store.revision()
            except StoreUnavailable as error:
                return str(error)
        if check == "etcd-readiness":
            try:
                await self._core.caches.store.check()
            except StoreUnavailable as error:
                return str(error)
        if check == "informer-sync" and not self._core.caches.following:
            return "the watch caches stand still"
        return ""

    def _version(self) -> dict[str, str]:
        major, _, minor = self._core.schemas.version.partition(".")
        return {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{major}.{minor}.0+navarch.{_navarch_version()}",
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": f"python{platform.python_version()}",
            "compiler": platform.python_implementation().lower(),
            "platform": f"{platform.system().lower()}/{_ARCHITECTURES.get(platform.machine(), platform.machine())}",
        }

    def _metrics(self) -> Response:
        caches = self._core.caches
        objects = [(cache.codec.resource.group_resource, len(cache)) for cache in caches.all()]
        text = self._core.metrics.render(objects, caches.revision)
        return Response(200, text.encode(), {}, "text/plain; version=0.0.4; charset=utf-8")


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
