"""An API server over a memory store, with the namespace `default`, and a way to talk to it as a client would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from navarch.api.meta import Obj
from navarch.apiserver.pieces import Pieces
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import LOOPBACK, User
from navarch.client.transport import Request, Response
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld


class Api:
    """Requests as a user writes them; answers as (status, object)."""

    def __init__(self, server: ApiServer, user: User = LOOPBACK) -> None:
        self.server = server
        self.user = user
        self.headers: dict[str, str] = {}

    async def send(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", accept: str = ""
    ) -> Response:
        path, _, text = path.partition("?")
        query = [(name, value) for name, _, value in (pair.partition("=") for pair in text.split("&") if pair)]
        headers = {"content-type": content_type, "user-agent": "test/1.0", **self.headers}
        if accept:
            headers["accept"] = accept
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        return await self.server.handle(Request(method, path, query, headers, data), self.user)

    async def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        response = await self.send(method, path, body, **options)
        body = await response.body.joined() if isinstance(response.body, Pieces) else response.body
        assert isinstance(body, bytes)
        # The index of OpenAPI is JSON, but does not say so.
        if response.content_type.startswith("text/") and path != "/openapi/v3":
            return response.status, body.decode()
        return response.status, orjson.loads(body) if body else None

    async def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        status, answer = await self(method, path, body, **options)
        assert status < 300, answer
        return answer

    async def patch(self, path: str, patch: Any, kind: str = "merge") -> tuple[int, Any]:
        types = {
            "merge": "application/merge-patch+json",
            "json": "application/json-patch+json",
            "strategic": "application/strategic-merge-patch+json",
            "apply": "application/apply-patch+yaml",
        }
        return await self("PATCH", path, patch, content_type=types[kind])


CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def config_map(name: str, **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, node: str = "", **labels: str) -> Obj:
    spec: Obj = {"containers": [{"name": "c", "image": "busybox"}]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def deployment(name: str, replicas: int = 1) -> Obj:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    made = ApiServer(MemoryStore(), world=RealWorld(1))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def api(server: ApiServer) -> Api:
    api = Api(server)
    await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    return api
