"""A small API server in memory for kubelet tests: objects by path, watch, patch, graceful deletion. No validation."""

from __future__ import annotations

import asyncio
import copy
import itertools
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import orjson

from navarch.api.time import SystemClock, format_time
from navarch.client.base import Client
from navarch.client.transport import Request, Response

Obj = dict[str, Any]
_PATH = re.compile(
    r"^/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[a-z]+))?)?$"
)


class FakeAPI:
    """`objects[plural][(namespace, name)]`; `client()` talks to it. `down` makes every request fail."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[tuple[str, str], Obj]] = {}
        self.watchers: dict[str, list[asyncio.Queue[tuple[str, Obj]]]] = {}
        self.log: dict[str, list[tuple[int, str, Obj]]] = {}
        self.revision = itertools.count(1)
        self.clock = SystemClock()
        self.down = False

    def client(self) -> Client:
        return Client(self)

    async def close(self) -> None:
        """Nothing is held."""

    # What tests do.

    def put(self, plural: str, obj: Obj) -> Obj:
        metadata = obj["metadata"]
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", format_time(self.clock.now()))
        metadata["resourceVersion"] = str(next(self.revision))
        key = (metadata.get("namespace", ""), metadata["name"])
        known = key in self.objects.setdefault(plural, {})
        self.objects[plural][key] = obj
        self._tell(plural, "MODIFIED" if known else "ADDED", obj)
        return obj

    def get(self, plural: str, namespace: str, name: str) -> Obj | None:
        return self.objects.get(plural, {}).get((namespace, name))

    def events(self) -> list[Obj]:
        return list(self.objects.get("events", {}).values())

    def remove(self, plural: str, namespace: str, name: str) -> None:
        obj = copy.deepcopy(self.objects[plural].pop((namespace, name)))
        obj["metadata"]["resourceVersion"] = str(next(self.revision))
        self._tell(plural, "DELETED", obj)

    def delete_gracefully(self, namespace: str, name: str, grace_s: int | None = None) -> None:
        pod = copy.deepcopy(self.objects["pods"][namespace, name])
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
        pod["metadata"]["deletionTimestamp"] = format_time(self.clock.now())
        pod["metadata"]["deletionGracePeriodSeconds"] = grace
        self.put("pods", pod)

    def _tell(self, plural: str, kind: str, obj: Obj) -> None:
        self.log.setdefault(plural, []).append((int(obj["metadata"]["resourceVersion"]), kind, obj))
        for queue in self.watchers.get(plural, []):
            queue.put_nowait((kind, obj))

    # The transport.

    async def send(self, request: Request, *, stream: bool = False) -> Response:
        if self.down:
            raise ConnectionError("down")
        match = _PATH.match(request.path)
        assert match, request.path
        plural, namespace, name, sub = match["plural"], match["ns"] or "", match["name"], match["sub"]
        if plural == "namespaces" or (namespace and not plural):
            namespace = ""
        body = orjson.loads(request.body) if request.body else None
        if request.arg("watch"):
            return Response(200, self._watch(plural, int(request.arg("resourceVersion") or 0)))
        if request.method == "GET" and not name:
            items = [o for (ns, _), o in self.objects.get(plural, {}).items() if namespace in ("", ns)]
            return _json({"metadata": {"resourceVersion": str(next(self.revision))}, "items": items})
        if request.method == "POST":
            if sub == "token":
                expiration = format_time(self.clock.now().replace(year=2099))
                return _json({"status": {"token": f"token-{uuid.uuid4()}", "expirationTimestamp": expiration}}, 201)
            body["metadata"].setdefault("namespace", namespace)
            return _json(self.put(plural, body), 201)
        found = self.get(plural, namespace, name)
        if found is None:
            return _json(
                {"kind": "Status", "code": 404, "reason": "NotFound", "message": f'{plural} "{name}" not found'}, 404
            )
        if request.method == "GET":
            return _json(found)
        if request.method == "PUT":
            return _json(self.put(plural, body))
        if request.method == "PATCH":
            merged = _merge(copy.deepcopy(found), body)
            return _json(found if merged == found else self.put(plural, merged))
        if request.method == "DELETE":
            if body and body.get("preconditions", {}).get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
                return _json({"kind": "Status", "code": 409, "reason": "Conflict", "message": "uid"}, 409)
            self.remove(plural, namespace, name)
            return _json({"kind": "Status", "status": "Success"})
        raise AssertionError(request.method)

    async def _watch(self, plural: str, since: int) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[tuple[str, Obj]] = asyncio.Queue()
        self.watchers.setdefault(plural, []).append(queue)
        try:
            for revision, kind, obj in list(self.log.get(plural, [])):
                if revision > since:
                    yield orjson.dumps({"type": kind, "object": obj}) + b"\n"
            while True:
                kind, obj = await queue.get()
                yield orjson.dumps({"type": kind, "object": obj}) + b"\n"
        finally:
            self.watchers[plural].remove(queue)


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, orjson.dumps(value))


def _merge(target: Any, patch: Any) -> Any:
    """Strategic enough for statuses: conditions by type, addresses by ip."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif key == "conditions" and isinstance(target.get(key), list):
            by_type = {one["type"]: one for one in target[key]}
            for one in value:
                by_type[one["type"]] = _merge(by_type.get(one["type"], {}), one)
            target[key] = list(by_type.values())
        elif isinstance(value, list):
            target[key] = [one for one in value if not (isinstance(one, dict) and "$patch" in one)]
        elif isinstance(value, dict):
            target[key] = _merge(target.get(key) or {}, value)
        else:
            target[key] = value
    return target
