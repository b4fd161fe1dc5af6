"""Discovery and OpenAPI: documents about the server, made once per set of kinds and served with an ETag.

In: the path and what the client accepts.  Out: the document, from a cache, or 304. Big ones are made in a thread, so
that nobody else waits for them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import orjson
from isal import igzip

from navarch.api.errors import PathNotFound, not_acceptable
from navarch.api.meta import Obj
from navarch.apiserver.core import Core
from navarch.apiserver.negotiation import JSON, OFFERED, PROTOBUF, plain_type
from navarch.apiserver.protobuf_forms import of_json, of_object
from navarch.apiserver.routes import Route, pieces
from navarch.apiserver.served import Served
from navarch.client.transport import Request, Response
from navarch.heap import give_back
from navarch.kinds import discovery_docs as discovery
from navarch.kinds import openapi, openapi_roots
from navarch.world import World

_OPENAPI_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2"


_NONE: Mapping[str, str] = {}
_PLAIN = ("application/json", "*/*", "application/*")
# What clients name beside JSON: they are answered in JSON, as they would be by a server that has nothing else.
_OTHERS = ("application/yaml",)


class Documents:
    """The documents of whatever is served at the time."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._current = DocumentsOf(core.served, core.world)

    async def handle(self, request: Request, route: Route) -> Response:
        """Raises StatusError 404, 406."""
        if self._current.served is not self._core.served:
            self._current = DocumentsOf(self._core.served, self._core.world)
        return await self._current.handle(request, route)


class DocumentsOf:
    """Every document of one snapshot, by what it was made for."""

    def __init__(self, served: Served, world: World) -> None:
        self.served = served
        self._world = world
        self._made: dict[tuple[str, ...], tuple[bytes, str]] = {}
        # OpenAPI documents, compressed: megabytes that a client reads once and then knows by their ETag.
        self._packed: dict[tuple[str, ...], tuple[bytes, str]] = {}
        self._making: dict[tuple[str, ...], asyncio.Task[tuple[bytes, str]]] = {}

    async def handle(self, request: Request, route: Route) -> Response:
        """Raises StatusError 404, 406."""
        parts = pieces(route.path)
        if parts[0] == "openapi":
            return await self._openapi(request, parts[1:])
        return self._discovery(request, route, parts)

    def _discovery(self, request: Request, route: Route, parts: list[str]) -> Response:
        registry = self.served.registry
        if len(parts) == 1:
            accepted = discovery.aggregated_versions(self.served.schemas.version)
            media_type, version = _aggregated_version(request.headers.get("accept", ""), accepted)
            if version:
                core = parts[0] == "api"
                key: tuple[str, ...] = ("aggregated", parts[0], version)
                made = self._get(key, lambda: discovery.aggregated(registry, core=core, api_version=version))
                if media_type == PROTOBUF:
                    made = self._in_protobuf(key, made)
                shown = f"{media_type};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
                return _with_etag(request, made, shown)
            if parts[0] == "api":
                address = request.headers.get("host", "localhost")
                key = ("api", address)
                return self._plain(request, key, self._get(key, lambda: discovery.api_versions(address)))
            return self._plain(request, ("apis",), self._get(("apis",), lambda: discovery.api_group_list(registry)))
        if parts[0] == "apis" and len(parts) == 2:
            found = discovery.api_group(registry, parts[1])
        elif parts[0] == "api" and len(parts) == 2:
            found = discovery.api_resource_list(registry, "", parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found = discovery.api_resource_list(registry, parts[1], parts[2])
        else:
            found = None
        if found is None:
            raise self.served.missing(route.path, parts[1] if parts[0] == "apis" else "")
        if _in_protobuf(request):
            return Response(200, of_object(found), {}, PROTOBUF)
        return Response(200, orjson.dumps(found))

    def _plain(self, request: Request, key: tuple[str, ...], made: tuple[bytes, str]) -> Response:
        if _in_protobuf(request):
            return _with_etag(request, self._in_protobuf(key, made), PROTOBUF)
        return _with_etag(request, made)

    def _in_protobuf(self, key: tuple[str, ...], made: tuple[bytes, str]) -> tuple[bytes, str]:
        """The ETag is that of the document, whatever the encoding."""
        key = (*key, "protobuf")
        encoded = self._made.get(key)
        if encoded is None:
            encoded = self._made[key] = of_json(made[0]), made[1]
        return encoded

    def _get(self, key: tuple[str, ...], make: Callable[[], Obj]) -> tuple[bytes, str]:
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = _tagged(orjson.dumps(make()))
        return made

    async def _openapi(self, request: Request, parts: list[str]) -> Response:
        registry, schemas = self.served.registry, self.served.schemas
        accept, known = request.headers.get("accept", ""), request.headers.get("if-none-match", "")
        if parts == ["v2"] and _OPENAPI_V2_PROTOBUF in accept and "json" not in accept and "*/*" not in accept:
            key = ("openapi", "v2", "protobuf")
            made = await self._build(key, lambda: openapi.openapi_v2_protobuf(registry, schemas), known)
            return _with_etag(request, made, f"{_OPENAPI_V2_PROTOBUF}.v1.0+protobuf")
        if parts == ["v2"]:
            made = await self._build(("openapi", "v2"), lambda: openapi.openapi_v2(registry, schemas), known)
            return _with_etag(request, made)
        if parts == ["v3"]:
            made = await self._build(("openapi", "v3"), lambda: openapi.openapi_v3_index(registry, schemas), known)
            # Kubernetes does not say what its index is, and clients do not ask.
            return _with_etag(request, made, "text/plain; charset=utf-8")
        if parts[0] == "v3":
            return await self._openapi_group(request, "/".join(parts[1:]), known)
        raise PathNotFound()

    async def _openapi_group(self, request: Request, relative: str, known: str) -> Response:
        """One document of version 3. Who names it with its hash may keep it for good; with another, is led to it."""
        registry, schemas = self.served.registry, self.served.schemas
        if relative not in openapi_roots.documents(registry):
            raise PathNotFound()
        asked, digest = request.arg("hash"), openapi.openapi_v3_hash(registry, schemas, relative)
        if asked and asked != digest:
            place = f"/openapi/v3/{relative}?hash={digest}"
            return Response(301, b"", {"Location": place}, "text/html; charset=utf-8")

        def make() -> bytes:
            document = openapi.openapi_v3_group(registry, schemas, relative)
            assert document is not None
            return document

        made = await self._build(("openapi", "v3", relative), make, known, f'"{digest}"')
        kept = {"Cache-Control": "public, immutable", "Expires": _in_a_year(self._world.now())} if asked else {}
        return _with_etag(request, made, more=kept)

    async def _build(
        self, key: tuple[str, ...], make: Callable[[], bytes], tag: str, known_as: str = ""
    ) -> tuple[bytes, str]:
        """The document and its ETag (`known_as`, else made of its bytes); no document where the client has that of
        `tag` already."""
        if known_as and tag == known_as:
            return b"", tag
        packed = self._packed.get(key)
        if packed is None:
            making = self._making.get(key)
            if making is None:
                making = self._making[key] = asyncio.create_task(self._world.in_thread(_made, make, known_as))
                making.add_done_callback(lambda _: self._making.pop(key, None))
            packed = self._packed[key] = await asyncio.shield(making)
        if packed[1] == tag:
            return b"", tag
        return await self._world.in_thread(igzip.decompress, packed[0]), packed[1]


def _made(make: Callable[[], bytes], known_as: str) -> tuple[bytes, str]:
    """Make a big document, compressed, and give back what that took: the definitions with their descriptions are some
    15 MB, which the process would keep for ever and needs once."""
    data, tag = _tagged(make())
    tag = known_as or tag
    packed = igzip.compress(data, 2)
    del data
    give_back()
    return packed, tag


def _in_a_year(now: datetime) -> str:
    from email.utils import format_datetime

    return format_datetime(now + timedelta(days=365), usegmt=True)


def _tagged(data: bytes) -> tuple[bytes, str]:
    return data, f'"{hashlib.sha256(data).hexdigest()[:32].upper()}"'


def _with_etag(
    request: Request, made: tuple[bytes, str], media_type: str = "application/json", more: Mapping[str, str] = _NONE
) -> Response:
    data, tag = made
    headers = {"ETag": tag, "Vary": "Accept", **more}
    if request.headers.get("if-none-match", "") == tag:
        return Response(304, b"", headers, media_type)
    return Response(200, data, headers, media_type)


def _in_protobuf(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return PROTOBUF in accept and plain_type(accept) == PROTOBUF


def _aggregated_version(accept: str, offered: Sequence[str]) -> tuple[str, str]:
    """The media type, and `v2` or `v2beta1`, where the client prefers the aggregated form, else empty.  Raises
    StatusError 406 where the client takes nothing that there is."""
    for clause in accept.split(","):
        media_type, *parameters = (part.strip() for part in clause.split(";"))
        if "as=APIGroupDiscoveryList" in parameters and "g=apidiscovery.k8s.io" in parameters:
            if media_type not in (JSON, PROTOBUF):
                continue
            for version in offered:
                if f"v={version}" in parameters:
                    return media_type, version
        elif "as=" not in clause and media_type in (*_PLAIN, PROTOBUF):
            return "", ""
    if accept and not any(clause.split(";")[0].strip() in _OTHERS for clause in accept.split(",")):
        raise not_acceptable(OFFERED)
    return "", ""
