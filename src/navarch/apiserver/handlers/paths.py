"""What is no resource: health, version, metrics; discovery and OpenAPI."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import cache

import orjson

from navarch.api.errors import PathNotFound, method_not_allowed
from navarch.apiserver.aggregation.documents import MergedDocuments
from navarch.apiserver.answers import in_form
from navarch.apiserver.core import Core
from navarch.apiserver.handlers import health, zpages
from navarch.apiserver.handlers.documents import Documents
from navarch.apiserver.handlers.health import Health
from navarch.apiserver.negotiation import JSON, OFFERED, YAML, Form, check_route, plain_type
from navarch.apiserver.routes import Route, pieces
from navarch.apiserver.user import User
from navarch.client.transport import Request, Response

_OPENID_CONFIGURATION = "/.well-known/openid-configuration"
_JWKS = "/openid/v1/jwks"
_KEY_SET = "application/jwk-set+json"
# Who checks tokens with what stands there need not ask each time.
_FOR_AN_HOUR = {"Cache-Control": "public, max-age=3600"}
_PRIORITY_LEVELS = "/debug/api_priority_and_fairness/dump_priority_levels"
_OTHERS = (
    _OPENID_CONFIGURATION,
    "/flagz",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    _JWKS,
    "/statusz",
    "/version",
)


@cache
def _navarch_version() -> str:
    # Loaded when somebody asks; it brings what reads mails.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("navarch")
    except PackageNotFoundError:
        return "0"


class Paths:
    """`flags` are the settings that `/flagz` shows; `priority_levels` gives what is shown of them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._started = core.now()
        self.flags: Mapping[str, str] = {}
        self.priority_levels: Callable[[], str] | None = None
        self.health = Health(core)
        self.documents = Documents(core)
        self._merged = MergedDocuments(self.documents, core.world)

    async def handle(self, request: Request, route: Route, user: User) -> Response:
        """Raises StatusError."""
        if route.path.startswith("//"):
            # Nothing begins with an empty step, whatever comes after it.
            raise PathNotFound()
        response = await self._read(request, route, user)
        if request.method not in ("GET", "HEAD") and pieces(route.path)[0] not in health.CHECKS:
            # Only now: what is not there is not found, whatever the method.
            raise method_not_allowed()
        return response

    async def _read(self, request: Request, route: Route, user: User) -> Response:
        parts = pieces(route.path)
        first = parts[0]
        if first in health.CHECKS:
            return await self.health.handle(first, "/".join(parts[1:]), request)
        accept, path = request.headers.get("accept", ""), route.path.rstrip("/")
        if path == "/version":
            check_route(accept, (JSON,))
            return Response(200, orjson.dumps(self._version(), option=orjson.OPT_INDENT_2))
        if route.path == "/metrics":
            return self._metrics()
        if route.path == "/metrics/slis":
            return self.health.slis()
        if route.path == "/statusz" and self._core.features.on("ComponentStatusz"):
            return self._statusz(request)
        if route.path == _PRIORITY_LEVELS and self.priority_levels is not None:
            return Response(200, self.priority_levels().encode(), {}, "text/plain; charset=utf-8")
        if route.path == "/flagz" and self._core.features.on("ComponentFlagz"):
            return zpages.flagz(request, self.flags)
        issuer = self._core.token_issuer
        if issuer is not None and path == _OPENID_CONFIGURATION:
            check_route(accept, (JSON,))
            return Response(200, orjson.dumps(issuer.openid_configuration()), _FOR_AN_HOUR)
        if issuer is not None and path == _JWKS:
            check_route(accept, (_KEY_SET,))
            return Response(200, orjson.dumps(issuer.jwks()), _FOR_AN_HOUR, _KEY_SET)
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
        return sorted(["/api", "/api/v1", "/apis", "/apis/", *groups, *self.health.paths(), *_OTHERS])

    def _statusz(self, request: Request) -> Response:
        served = ["/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"]
        return zpages.statusz(
            request,
            started=self._started,
            now=self._core.now(),
            runtime=self._version()["goVersion"],
            version=self._version()["gitVersion"].removeprefix("v"),
            paths=served,
        )

    def _version(self) -> dict[str, str]:
        major, _, minor = self._core.schemas.version.partition(".")
        return {
            "major": major,
            "minor": minor,
            "emulationMajor": major,
            "emulationMinor": minor,
            "minCompatibilityMajor": major,
            "minCompatibilityMinor": str(int(minor) - 1),
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
