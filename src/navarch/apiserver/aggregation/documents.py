"""Discovery and OpenAPI of all API servers together: this one's own documents, with the others' merged into them.

In: a request for a document.  Out: the document, with an ETag. What was merged is kept until one of its parts changes;
OpenAPI of version 3, which has a document per version, is passed on from its server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

import orjson
from isal import igzip

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.api.openapi_protobuf import encode_v2
from navarch.apiserver.aggregation import foreign
from navarch.apiserver.aggregation.foreign import Foreign
from navarch.apiserver.core import Delegate
from navarch.apiserver.routes import Route, pieces
from navarch.apiserver.user import User
from navarch.client.transport import Request, Response
from navarch.heap import give_back
from navarch.world import World

_SWAGGER_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2"
_JSON: Final = "application/json"


class Own(Protocol):
    """What makes this server's own documents (`handlers.documents.Documents`)."""

    async def handle(self, request: Request, route: Route) -> Response: ...


class MergedDocuments:
    """One server's; asked only while there is something to merge."""

    def __init__(self, own: Own, world: World) -> None:
        self._own = own
        self._world = world
        self._foreign = foreign.NOTHING
        self._made: dict[tuple[str, str], tuple[bytes, str]] = {}

    async def handle(self, request: Request, route: Route, user: User, delegate: Delegate) -> Response:
        """Raises StatusError 404, 406."""
        others = delegate.foreign
        if others is not self._foreign:
            self._foreign, self._made = others, {}
        parts = pieces(route.path)
        if parts == ["apis"]:
            return await self._groups(request, route, others)
        if parts[0] == "apis" and len(parts) == 2 and others.of_group(parts[1]):
            return await self._group(request, route, others, parts[1])
        if len(parts) == 3 and parts[0] == "apis" and (here := delegate.embedded.get((parts[1], parts[2]))) is not None:
            return await here.handle(request, route)
        if parts == ["openapi", "v3"] and others.has_openapi:
            own = await self._of_own(request, route)
            return await self._answer(request, own, "v3", lambda data: foreign.merged_index(data, others))
        if parts == ["openapi", "v2"] and others.has_swagger:
            return await self._swagger(request, route, others)
        if parts[:2] == ["openapi", "v3"]:
            key = (parts[3], parts[4]) if len(parts) == 5 and parts[2] == "apis" else ("", parts[-1])
            remote = delegate.remotes.get(key)
            if remote is not None:
                return await delegate.handle(request, remote, user)
        return await self._own.handle(request, route)

    async def _of_own(self, request: Request, route: Route, accept: str = "") -> Response:
        """This server's own document, whole, in JSON; `accept` in the place of what the client takes."""
        headers = {name: value for name, value in request.headers.items() if name != "if-none-match"}
        if accept:
            headers["accept"] = accept
        response = await self._own.handle(replace(request, headers=headers), route)
        if response.content_type.partition(";")[0] != _JSON and not accept:
            return await self._of_own(request, route, _JSON)
        return response

    async def _groups(self, request: Request, route: Route, others: Foreign) -> Response:
        own = await self._of_own(request, route)
        if "as=APIGroupDiscoveryList" in own.content_type:
            return await self._answer(request, own, own.content_type, lambda data: _with_items(data, others))
        return await self._answer(request, own, "groups", lambda data: _with_groups(data, others))

    async def _group(self, request: Request, route: Route, others: Foreign, name: str) -> Response:
        own: Obj = {"kind": "APIGroup", "apiVersion": "v1"}
        try:
            response = await self._of_own(request, route, _JSON)
        except StatusError as error:
            if error.code != 404:
                raise
        else:
            assert isinstance(response.body, bytes)
            own = orjson.loads(response.body)
        return Response(200, orjson.dumps(foreign.merged_group(own, others, name)))

    async def _swagger(self, request: Request, route: Route, others: Foreign) -> Response:
        accept = request.headers.get("accept", "")
        own = await self._of_own(request, route, _JSON)
        if _SWAGGER_PROTOBUF in accept and "json" not in accept and "*/*" not in accept:
            own = Response(200, own.body, own.headers, f"{_SWAGGER_PROTOBUF}.v1.0+protobuf")
            return await self._answer(request, own, "v2p", lambda data: encode_v2(_merged_swagger(data, others)))
        return await self._answer(request, own, "v2", lambda data: orjson.dumps(_merged_swagger(data, others)))

    async def _answer(self, request: Request, own: Response, form: str, merge: Callable[[bytes], bytes]) -> Response:
        assert isinstance(own.body, bytes)
        key = (form, _tag_of(own))
        made = self._made.get(key)
        if made is None:
            made = await self._world.in_thread(_made, merge, own.body)
            self._made = {**{old: kept for old, kept in self._made.items() if old[0] != form}, key: made}
        packed, tag = made
        headers = {"ETag": tag, "Vary": "Accept"}
        if request.headers.get("if-none-match", "") == tag:
            return Response(304, b"", headers, own.content_type)
        return Response(200, await self._world.in_thread(igzip.decompress, packed), headers, own.content_type)


def _made(merge: Callable[[bytes], bytes], own: bytes) -> tuple[bytes, str]:
    """A document, compressed: OpenAPI is megabytes that a client reads once."""
    data = merge(own)
    made = igzip.compress(data, 2), f'"{hashlib.sha256(data).hexdigest()[:32].upper()}"'
    del data
    give_back()
    return made


def _tag_of(response: Response) -> str:
    headers: Mapping[str, str] = response.headers
    return headers.get("ETag", "")


def _with_items(data: bytes, others: Foreign) -> bytes:
    document = orjson.loads(data)
    return orjson.dumps({**document, "items": foreign.merged_aggregated(document["items"], others)})


def _with_groups(data: bytes, others: Foreign) -> bytes:
    document = orjson.loads(data)
    return orjson.dumps({**document, "groups": foreign.merged_groups(document["groups"], others)})


def _merged_swagger(data: bytes, others: Foreign) -> Obj:
    return foreign.merged_swagger(orjson.loads(data), others)
