"""`Client`: the only way in which components see a cluster, over any `Transport`.

It maps verbs to requests and answers to objects; every failure is the API's own `StatusError`. Objects go in and come
out as plain JSON dictionaries, and belong to the caller.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, cast

import orjson

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource, name_of, namespace_of
from navarch.client.transport import Request, Response, Transport


class PatchKind(enum.StrEnum):
    """The content types of PATCH."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class ListResult(NamedTuple):
    """The items of a list, the revision to watch from, and the token of the next chunk (empty: there is none)."""

    items: list[Obj]
    resource_version: str
    continue_token: str = ""


class WatchEvent(NamedTuple):
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Obj


class Client:
    """Typed verbs over a transport. Every method raises StatusError for an answer of 400 or above, and
    ConnectionError (or a subclass of OSError) where no answer came."""

    def __init__(self, transport: Transport, *, user_agent: str = "navarch") -> None:
        self.transport = transport
        self._headers = {"accept": "application/json", "user-agent": user_agent}

    async def close(self) -> None:
        await self.transport.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send one request and return the body's bytes; `body` is encoded as JSON unless it is bytes already."""
        sent = dict(self._headers)
        if headers:
            sent.update(headers)
        payload = b""
        if body is not None:
            payload = body if isinstance(body, bytes) else orjson.dumps(body)
            sent["content-type"] = content_type
        response = await self.transport.send(Request(method, path, query, sent, payload))
        data = await read_body(response)
        if response.status >= 400:
            raise error_of(response.status, data)
        return data

    async def get_newer(self, path: str, tag: str, *, accept: str = "application/json") -> tuple[bytes | None, str]:
        """GET a document unless it is still the one that `tag` (an ETag; empty for none) stands for: None then. Also
        the tag of what there is now."""
        sent = {**self._headers, "accept": accept, **({"if-none-match": tag} if tag else {})}
        response = await self.transport.send(Request("GET", path, (), sent))
        data = await read_body(response)
        if response.status == 304:
            return None, tag
        if response.status >= 400:
            raise error_of(response.status, data)
        return data, next((value for name, value in response.headers.items() if name.lower() == "etag"), "")

    async def _object(self, method: str, path: str, **kwargs: Any) -> Obj:
        return cast(Obj, orjson.loads(await self.request(method, path, **kwargs)))

    async def get(self, resource: Resource, name: str, namespace: str = "", subresource: str = "") -> Obj:
        return await self._object("GET", resource.path(namespace, name, subresource))

    async def find(self, resource: Resource, name: str, namespace: str = "") -> Obj | None:
        """Like `get`, but None where the object does not exist."""
        try:
            return await self.get(resource, name, namespace)
        except StatusError as error:
            if error.code == 404:
                return None
            raise

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
    ) -> ListResult:
        """One list request: everything, or with `limit` one chunk of it. Items carry apiVersion and kind."""
        query = _query(
            labelSelector=labels,
            fieldSelector=fields,
            limit=str(limit) if limit else "",
            resourceVersion=resource_version,
        )
        if continue_token:
            query.append(("continue", continue_token))
        answer = await self._object("GET", resource.path(namespace), query=query)
        items: list[Obj] = answer.get("items") or []
        for item in items:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        metadata = answer.get("metadata") or {}
        return ListResult(items, metadata.get("resourceVersion", ""), metadata.get("continue", ""))

    async def create(
        self,
        resource: Resource,
        obj: Obj,
        *,
        namespace: str = "",
        subresource: str = "",
        name: str = "",
        dry_run: bool = False,
        field_manager: str = "",
    ) -> Obj:
        """POST; with `subresource` to that of the object `name` (`pods/binding`)."""
        namespace = namespace or namespace_of(obj)
        path = resource.path(namespace, name if subresource else "", subresource)
        return await self._object("POST", path, query=_write_query(dry_run, field_manager), body=obj)

    async def update(
        self, resource: Resource, obj: Obj, *, subresource: str = "", dry_run: bool = False, field_manager: str = ""
    ) -> Obj:
        path = resource.path(namespace_of(obj), name_of(obj), subresource)
        return await self._object("PUT", path, query=_write_query(dry_run, field_manager), body=obj)

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        patch: Any,
        *,
        kind: PatchKind = PatchKind.MERGE,
        subresource: str = "",
        field_manager: str = "",
        dry_run: bool = False,
    ) -> Obj:
        return await self._object(
            "PATCH",
            resource.path(namespace, name, subresource),
            query=_write_query(dry_run, field_manager),
            body=patch,
            content_type=kind.value,
        )

    async def apply(
        self, resource: Resource, obj: Obj, *, field_manager: str, force: bool = False, subresource: str = ""
    ) -> Obj:
        """Server-side apply of `obj` as `field_manager`."""
        query = _write_query(False, field_manager)
        if force:
            query.append(("force", "true"))
        return await self._object(
            "PATCH",
            resource.path(namespace_of(obj), name_of(obj), subresource),
            query=query,
            body=obj,
            content_type=PatchKind.APPLY.value,
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_s: int | None = None,
        propagation: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Obj:
        """DELETE; the answer is the object where it stays for a while, else a Status."""
        options = _delete_options(grace_s, propagation, uid, resource_version)
        return await self._object("DELETE", resource.path(namespace, name), body=options)

    async def delete_collection(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        grace_s: int | None = None,
        propagation: str | None = None,
    ) -> None:
        query = _query(labelSelector=labels, fieldSelector=fields)
        options = _delete_options(grace_s, propagation, None, None)
        await self.request("DELETE", resource.path(namespace), query=query, body=options)

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        resource_version: str = "",
        bookmarks: bool = False,
        timeout_s: int = 0,
        accept: str = "application/json",
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events after `resource_version` until the server ends the stream. Raises StatusError (410 Expired when the
        version is too old), also when the stream itself carries the error."""
        query = _query(
            labelSelector=labels,
            fieldSelector=fields,
            resourceVersion=resource_version,
            timeoutSeconds=str(timeout_s) if timeout_s else "",
        )
        query.append(("watch", "true"))
        if bookmarks:
            query.append(("allowWatchBookmarks", "true"))
        headers = {**self._headers, "accept": accept}
        request = Request("GET", resource.path(namespace), query, headers)
        response = await self.transport.send(request, stream=True)
        if response.status >= 400:
            raise error_of(response.status, await read_body(response))
        async with aclosing(_lines(response)) as lines:
            async for line in lines:
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    raise StatusError.from_status(event["object"])
                yield WatchEvent(event["type"], event["object"])


async def _lines(response: Response) -> AsyncGenerator[bytes, None]:
    """The stream's complete lines; chunks may split or join them."""
    body = response.body
    if isinstance(body, bytes):
        for line in body.splitlines():
            yield line
        return
    rest: list[bytes] = []
    try:
        async for chunk in body:
            *ended, begun = chunk.split(b"\n")
            for part in ended:
                line = b"".join([*rest, part]) if rest else part
                rest.clear()
                if line:
                    yield line
            if begun:
                rest.append(begun)
    finally:
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()


async def read_body(response: Response) -> bytes:
    """The whole body, gathered if it is a stream."""
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([chunk async for chunk in response.body])


def error_of(status: int, data: bytes) -> StatusError:
    """The StatusError behind an answer of 400 or above, whatever its body is."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict) and body.get("kind") == "Status":
        error = StatusError.from_status(body)
        error.code = error.code or status
        return error
    return StatusError(status, "", data.decode(errors="replace").strip() or f"the server answered {status}")


def _query(**values: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in values.items() if value]


def _write_query(dry_run: bool, field_manager: str) -> list[tuple[str, str]]:
    return _query(dryRun="All" if dry_run else "", fieldManager=field_manager)


def _delete_options(
    grace_s: int | None, propagation: str | None, uid: str | None, resource_version: str | None
) -> Obj | None:
    options: Obj = {}
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    if propagation:
        options["propagationPolicy"] = propagation
    preconditions = {
        key: value for key, value in (("uid", uid), ("resourceVersion", resource_version)) if value is not None
    }
    if preconditions:
        options["preconditions"] = preconditions
    return {"kind": "DeleteOptions", "apiVersion": "v1", **options} if options else None
