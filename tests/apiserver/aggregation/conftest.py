"""A cluster, and an API server behind it that serves `flunders` in `wardle.example.com/v1alpha1`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from navarch.api.meta import Obj
from navarch.apiserver.webhooks import client
from navarch.client.resources import SERVICE_ACCOUNTS
from navarch.testing.embedded import ADMIN, EmbeddedCluster
from tests.apiserver.conftest import Api
from tests.apiserver.webhooks.server import Asked, Authority, HTTPSServer, http, read_request

GROUP, VERSION = "wardle.example.com", "v1alpha1"
ROOT = f"/apis/{GROUP}/{VERSION}"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = f"{VERSION}.{GROUP}"
RESOURCE = {
    "resource": "flunders",
    "responseKind": {"group": GROUP, "version": VERSION, "kind": "Flunder"},
    "scope": "Namespaced",
    "singularResource": "flunder",
    "verbs": ["get", "list"],
}
SWAGGER = {
    "swagger": "2.0",
    "paths": {f"{ROOT}/flunders": {"get": {"operationId": "listFlunders"}}, "/apis/other/v1/things": {}},
    "definitions": {
        "com.example.Flunder": {"properties": {"metadata": {"$ref": "#/definitions/io.k8s.Meta"}}},
        "io.k8s.Meta": {"type": "object"},
    },
}


class Extension:
    """`asked` are the requests that it got, without those by which it is looked at."""

    def __init__(self, tls: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        self.asked: list[Asked] = []
        self.looked: list[Asked] = []
        self.more: dict[str, Callable[[Asked], bytes]] = {}
        self.stream: Callable[[Asked, asyncio.StreamWriter], Any] | None = None
        self.status = 200
        self.server = HTTPSServer(tls, self._talk, host)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (asked := await read_request(reader)) is not None:
            if asked.headers.get("x-remote-user") == "system:kube-aggregator":
                self.looked.append(asked)
            else:
                self.asked.append(asked)
            path = asked.target.partition("?")[0]
            if self.stream is not None and (path.endswith("/watched") or "upgrade" in asked.headers):
                await self.stream(asked, writer)
                return
            writer.write(self.more[path](asked) if path in self.more else self._answer(path))
            await writer.drain()

    def _answer(self, path: str) -> bytes:
        if self.status != 200:
            return http(self.status, b"{}")
        found: Any = {
            "/apis": {
                "kind": "APIGroupDiscoveryList",
                "items": [
                    {"metadata": {"name": GROUP}, "versions": [{"version": VERSION, "resources": [RESOURCE]}]},
                ],
            },
            ROOT: {"kind": "APIResourceList", "resources": [{"name": "flunders", "kind": "Flunder"}]},
            "/openapi/v3": {"paths": {ROOT[1:]: {"serverRelativeURL": f"/openapi/v3{ROOT}?hash=1"}}},
            f"/openapi/v3{ROOT}": {"openapi": "3.0.0", "here": True},
            "/openapi/v2": SWAGGER,
        }.get(path)
        return http(404, b"{}") if found is None else http(200, orjson.dumps(found))


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "pki"


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def cluster(keys: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EmbeddedCluster]:
    # What is behind the services of these tests is on this machine.
    monkeypatch.setattr(client, "is_allowed", lambda address, here: True)
    async with EmbeddedCluster(nodes=0, controllers=False, keys=keys) as cluster:
        await cluster.client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
        yield cluster


@pytest.fixture
def api(cluster: EmbeddedCluster) -> Api:
    return Api(cluster.server, ADMIN)


@pytest.fixture
async def extension(cluster: EmbeddedCluster, authority: Authority) -> AsyncIterator[Extension]:
    tls = authority.serving(["wardle.default.svc"])
    # Who shows no certificate of the front proxy's authority is not listened to.
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cluster.config.pki / "front-proxy-ca.crt")
    extension = Extension(tls)
    async with extension.server:
        yield extension


async def settled(api: Api, reason: str, name: str = NAME) -> Obj:
    """The APIService, once its condition gives this reason."""
    async with asyncio.timeout(30):
        while True:
            obj: Obj
            code, obj = await api("GET", f"{API_SERVICES}/{name}")
            conditions = (obj.get("status") or {}).get("conditions") if code == 200 else None
            if conditions and conditions[0].get("reason") == reason:
                return obj
            await asyncio.sleep(0.01)


def api_service(authority: Authority, port: int, **spec: Any) -> Obj:
    return {
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 2000,
            "versionPriority": 15,
            "service": {"namespace": "default", "name": "wardle", "port": port},
            "caBundle": authority.bundle,
            **spec,
        },
    }


async def registered(api: Api, extension: Extension, authority: Authority, **spec: Any) -> None:
    """The extension behind a service of this machine, found to be available."""
    service = {"type": "ExternalName", "externalName": "localhost"}
    await api.ok("POST", "/api/v1/namespaces/default/services", {"metadata": {"name": "wardle"}, "spec": service})
    await api.ok("POST", API_SERVICES, api_service(authority, extension.server.port, **spec))
    await settled(api, "Passed")
