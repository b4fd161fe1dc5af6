"""Over TLS: what both ends agree on, with clients that are not ours (httpx, kubectl)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest

from navarch.apiserver.http import HTTPFront
from navarch.apiserver.http2 import connection as http2
from navarch.cli.kubectl import find_kubectl
from navarch.testing.embedded import EmbeddedCluster
from navarch.tls import HTTP1_ONLY, tls_context
from tests.apiserver.conftest import CONFIG_MAPS, config_map

MANIFEST = b"""
apiVersion: v1
kind: ConfigMap
metadata: {name: applied, namespace: default}
data: {k: v}
"""


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[http2.Connection]:
    """The connections on which HTTP/2 was spoken."""
    found: list[http2.Connection] = []
    made = http2.Connection.connection_made

    def connection_made(self: http2.Connection, transport: asyncio.BaseTransport) -> None:
        found.append(self)
        made(self, transport)

    monkeypatch.setattr(http2.Connection, "connection_made", connection_made)
    return found


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(controllers=False) as cluster:
        await cluster.serve()
        yield cluster


def client(cluster: EmbeddedCluster, port: int | None = None, *, http2: bool = True) -> httpx.AsyncClient:
    pki = cluster.config.pki
    tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    url = f"https://127.0.0.1:{port or cluster.config.port}"
    return httpx.AsyncClient(base_url=url, verify=tls, http2=http2, timeout=30)


async def test_who_offers_http2_gets_it(cluster: EmbeddedCluster) -> None:
    async with client(cluster) as asking:
        created = await asking.post(CONFIG_MAPS, json=config_map("a", k="v"))
        read = await asking.get(f"{CONFIG_MAPS}/a")

    assert (created.status_code, created.http_version) == (201, "HTTP/2")
    assert (read.json()["data"], read.http_version) == ({"k": "v"}, "HTTP/2")


@pytest.mark.parametrize("http2", [True, False], ids=["HTTP/2", "HTTP/1.1"])
async def test_the_keys_of_tokens_may_be_kept_for_an_hour(cluster: EmbeddedCluster, http2: bool) -> None:
    async with client(cluster, http2=http2) as asking:
        known, keys, other = [
            (await asking.get(path)).headers.get_list("cache-control")
            for path in ("/.well-known/openid-configuration", "/openid/v1/jwks", "/version")
        ]

    assert (known, keys, other) == (["public, max-age=3600"], ["public, max-age=3600"], ["no-cache, private"])


async def test_a_client_is_known_by_its_certificate_and_shares_one_connection(
    cluster: EmbeddedCluster, spoken: list[http2.Connection]
) -> None:
    async with client(cluster) as asking:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answers = await asyncio.gather(*(asking.post(path, json=review) for _ in range(60)))

    assert {answer.json()["status"]["userInfo"]["username"] for answer in answers} == {"kubernetes-admin"}
    assert len(spoken) == 1


async def test_a_watch_over_tls(cluster: EmbeddedCluster) -> None:
    async with (
        client(cluster) as asking,
        asyncio.timeout(30),
        asking.stream("GET", CONFIG_MAPS, params={"watch": "true"}) as watch,
    ):
        await asking.post(CONFIG_MAPS, json=config_map("seen"))
        seen = None
        async for line in watch.aiter_lines():
            event = orjson.loads(line)
            if event["object"]["metadata"]["name"] == "seen":
                seen = event["type"]
                break

    assert seen == "ADDED"


async def test_the_server_stops_while_clients_are_connected(spoken: list[http2.Connection]) -> None:
    async with EmbeddedCluster(controllers=False) as cluster:
        await cluster.serve()
        asking = client(cluster)
        assert (await asking.get("/version")).status_code == 200
        watch = asyncio.create_task(asking.get(f"{CONFIG_MAPS}?watch=true"))
        async with asyncio.timeout(20):
            while not cluster.server.core.metrics.watches:
                await asyncio.sleep(0.005)

    assert not spoken[0]._serving.connections
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    await asking.aclose()


async def test_a_server_may_offer_http1_alone(cluster: EmbeddedCluster) -> None:
    pki = cluster.config.pki
    front = HTTPFront(cluster.server)
    tls = tls_context(pki / "apiserver.crt", pki / "apiserver.key", pki / "ca.crt", HTTP1_ONLY)
    port = await front.start("127.0.0.1", 0, tls)
    async with client(cluster, port) as asking:
        answer = await asking.get("/version")
    await front.stop()

    assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")


async def test_kubectl_speaks_http2(cluster: EmbeddedCluster, spoken: list[http2.Connection], tmp_path: Path) -> None:
    (tmp_path / "manifest.yaml").write_bytes(MANIFEST)

    async def kubectl(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            find_kubectl(),
            "--kubeconfig",
            str(cluster.config.admin_kubeconfig),
            "--cache-dir",
            str(tmp_path / "cache"),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        return said.decode()

    async with asyncio.timeout(60):
        await kubectl("apply", "-f", str(tmp_path / "manifest.yaml"))
        assert await kubectl("get", "configmap", "applied", "-o", "jsonpath={.data.k}") == "v"
        await kubectl("wait", "configmap", "applied", "--for=jsonpath={.data.k}=v", "--timeout=30s")
        await kubectl("delete", "configmap", "applied")

    assert len(spoken) >= 4
