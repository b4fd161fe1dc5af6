"""Ingresses as the real HAProxy serves them: against a real API server in this process, with real requests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from navarch.api.meta import Obj, annotations_of
from navarch.apiserver.user import User
from navarch.client.base import Client, PatchKind
from navarch.client.resources import (
    ENDPOINT_SLICES,
    EVENTS,
    INGRESS_CLASSES,
    INGRESSES,
    NODES,
    SECRETS,
    SERVICES,
)
from navarch.cluster.config import host_address
from navarch.kinds.networking.ingress_classes import CONTROLLER, SERVES
from navarch.node.ingress import IngressConfig, IngressController, purge
from navarch.node.ingress.haproxy import ProxyError, find_binary
from navarch.node.ingress.rendering import Listening
from navarch.testing.embedded import EmbeddedCluster

from ...ports import free_port

HOST = "127.0.0.1"
# No endpoint may be on loopback, as the API server sees to.
MACHINE_ADDRESS = host_address()
INGRESS = User("navarch:ingress", ("system:authenticated",))
NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))

try:
    find_binary()
except ProxyError as error:
    pytestmark = pytest.mark.skip(reason=str(error))
if MACHINE_ADDRESS.startswith("127."):
    pytestmark = pytest.mark.skip(reason="this machine has no address but loopback")


@contextlib.asynccontextmanager
async def answering(name: str) -> AsyncIterator[int]:
    """A server behind a Service; its answers say its name, and what it was asked for."""

    async def answer(request: web.Request) -> web.Response:
        told = {name: request.headers.get(name, "") for name in ("X-Forwarded-For", "X-Forwarded-Proto")}
        return web.json_response({"name": name, "path": request.raw_path, **told})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, MACHINE_ADDRESS, 0)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


class Stage:
    """A cluster without controllers, whose endpoints a test writes, and one node's Ingress controller."""

    def __init__(self, cluster: EmbeddedCluster, folder: Path) -> None:
        self.client: Client = cluster.client
        self.http, self.https = free_port(), free_port()
        listening = Listening((HOST,), self.http, self.https)
        self.config = IngressConfig("n1", folder, listening)
        self._identities = cluster.client_as(INGRESS), cluster.client_as(NODE)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        controller = IngressController(*self._identities, self.config)
        self._running = asyncio.create_task(controller.run())

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    async def service(self, name: str, *ports: int, port_name: str = "") -> None:
        """A Service whose endpoints are at these ports of this machine."""
        named = {"name": port_name} if port_name else {}
        made = {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80, **named}]}}
        await self.client.create(SERVICES, made)
        for number in ports:
            await self.client.create(ENDPOINT_SLICES, self.slice_of(name, number, port_name))

    def slice_of(self, service: str, port: int, port_name: str = "") -> Obj:
        metadata = {"name": f"{service}-{port}", "namespace": "default",
                    "labels": {"kubernetes.io/service-name": service}}  # fmt: skip
        return {"metadata": metadata, "addressType": "IPv4", "ports": [{"name": port_name, "port": port}],
                "endpoints": [{"addresses": [MACHINE_ADDRESS], "conditions": {"ready": True}}]}  # fmt: skip

    async def ingress(self, name: str, *rules: Obj, **spec: Any) -> None:
        body = {"ingressClassName": "navarch", **({"rules": list(rules)} if rules else {}), **spec}
        await self.client.create(INGRESSES, {"metadata": {"name": name, "namespace": "default"}, "spec": body})

    async def ask(self, host: str, path: str = "/", **more: Any) -> tuple[int, Obj]:
        async with aiohttp.ClientSession() as session:
            url = f"http://{HOST}:{self.http}{path}"
            async with session.get(url, headers={"Host": host, **more}) as answer:
                return answer.status, await answer.json() if answer.status == 200 else {}

    async def until(self, check: Callable[[], Any], what: str) -> Any:
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    if found := await check():
                        return found
                await asyncio.sleep(0.02)

    async def until_answers(self, name: str, host: str, path: str = "/") -> Obj:
        async def check() -> Obj | None:
            _, answer = await self.ask(host, path)
            return answer if answer.get("name") == name else None

        found: Obj = await self.until(check, f"{host}{path} is not answered by {name}")
        return found


def rule(host: str, *paths: tuple[str, str, str]) -> Obj:
    def entry(path: str, kind: str, service: str) -> Obj:
        return {"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}}

    made: Obj = {"http": {"paths": [entry(*path) for path in paths]}}
    return {**made, "host": host} if host else made


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with EmbeddedCluster(controllers=False) as cluster:
        await cluster.client.create(NODES, {"metadata": {"name": "n1"}})
        await cluster.client.create(
            INGRESS_CLASSES, {"metadata": {"name": "navarch"}, "spec": {"controller": CONTROLLER}}
        )
        made = Stage(cluster, tmp_path / "proxy")
        await made.start()
        try:
            yield made
        finally:
            await made.stop()
            purge(made.config.folder)
            assert not made.config.folder.exists()


async def test_hosts_and_paths_lead_to_services(stage: Stage) -> None:
    async with answering("web") as web_port, answering("api") as api_port, answering("rest") as rest_port:
        await stage.service("web", web_port)
        await stage.service("api", api_port)
        await stage.service("rest", rest_port)
        paths = (("/", "Prefix", "web"), ("/api", "Prefix", "api"), ("/api/only", "Exact", "rest"))
        await stage.ingress("site", rule("site.example.com", *paths), rule("*.example.com", ("/", "Prefix", "api")))
        await stage.ingress("rest", defaultBackend={"service": {"name": "rest", "port": {"number": 80}}})
        await stage.until_answers("rest", "elsewhere.example.org")

        asked = [("site.example.com", "/"), ("site.example.com", "/apis"), ("site.example.com", "/api"),
                 ("site.example.com", "/api/v1?x=1"), ("site.example.com", "/api/only"),
                 ("site.example.com", "/api/only/more"), ("SITE.example.com:80", "/%61pi"), ("other.example.com", "/x"),
                 ("a.other.example.com", "/"), ("example.com", "/")]  # fmt: skip
        answers = [(await stage.ask(host, path))[1] for host, path in asked]

    assert [answer["name"] for answer in answers] == [
        "web", "web", "api", "api", "rest", "api", "api", "api", "rest", "rest",
    ]  # fmt: skip
    assert answers[3]["path"] == "/api/v1?x=1"


async def test_who_asks_is_said_by_the_proxy_and_not_by_who_asks(stage: Stage) -> None:
    async with answering("web") as port:
        await stage.service("web", port)
        await stage.ingress("site", rule("", ("/", "Prefix", "web")))
        await stage.until_answers("web", "any.example.com")

        _, answer = await stage.ask("any.example.com", **{"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"})

    assert (answer["X-Forwarded-For"], answer["X-Forwarded-Proto"]) == (HOST, "http")


async def test_the_node_says_where_it_serves_and_an_unknown_host_is_not_found(stage: Stage) -> None:
    async with answering("web") as port:
        await stage.service("web", port, port_name="http")
        named = {"service": {"name": "web", "port": {"name": "http"}}}
        await stage.ingress("site", {"host": "a.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": named}]}})  # fmt: skip
        await stage.until_answers("web", "a.example.com")

        assert (await stage.ask("b.example.com"))[0] == 404

    async def said() -> bool:
        return annotations_of(await stage.client.get(NODES, "n1")).get(SERVES) == HOST

    await stage.until(said, "the node says nothing")


async def test_what_cannot_be_served_is_told_and_the_rest_is_served(stage: Stage) -> None:
    async with answering("web") as port:
        await stage.service("web", port)
        await stage.ingress("bad", rule("b.example.com", ("/", "Prefix", "nobody")),
                            tls=[{"hosts": ["b.example.com"], "secretName": "nothing"}])  # fmt: skip
        await stage.ingress("good", rule("a.example.com", ("/", "Prefix", "web")))
        await stage.until_answers("web", "a.example.com")

        assert (await stage.ask("b.example.com"))[0] == 503

    async def told() -> bool:
        events = (await stage.client.list(EVENTS, "default")).items
        return {e["reason"] for e in events if e["involvedObject"]["name"] == "bad"} >= {
            "ServiceNotFound", "BadCertificate",
        }  # fmt: skip

    await stage.until(told, "no events")


# TLS


def tls_secret(name: str, host: str) -> Obj:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=5))
    builder = builder.not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    data = {"tls.crt": base64.b64encode(certificate).decode(), "tls.key": base64.b64encode(pem).decode()}
    return {"metadata": {"name": name, "namespace": "default"}, "type": "kubernetes.io/tls", "data": data}


async def shown(stage: Stage, host: str) -> str:
    """The name in the certificate that is shown to who asks for the host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(HOST, stage.https, ssl=context, server_hostname=host)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value)


async def test_each_host_is_shown_its_certificate_and_a_new_one_when_it_changes(stage: Stage) -> None:
    async with answering("web") as port:
        await stage.service("web", port)
        secrets = [tls_secret("a", "a.example.com"), tls_secret("wild", "*.b.example.com")]
        for secret in secrets:
            await stage.client.create(SECRETS, secret)
        tls = [{"hosts": ["a.example.com"], "secretName": "a"}, {"hosts": ["*.b.example.com"], "secretName": "wild"}]
        await stage.ingress("site", rule("a.example.com", ("/", "Prefix", "web")), tls=tls)
        await stage.until_answers("web", "a.example.com")

        assert await shown(stage, "a.example.com") == "a.example.com"
        assert await shown(stage, "x.b.example.com") == "*.b.example.com"
        assert "no certificate for this name" in await shown(stage, "c.example.com")

        # Whom a client trusts that knows this certificate alone.
        data = base64.b64decode(secrets[0]["data"]["tls.crt"]).decode()
        context = ssl.create_default_context(cadata=data)
        connector = aiohttp.TCPConnector(resolver=_Here(), ssl=context)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"https://a.example.com:{stage.https}/x") as answer,
        ):
            assert (await answer.json())["X-Forwarded-Proto"] == "https"

        renewed = tls_secret("a", "renewed.example.com")
        patch = {"data": renewed["data"]}
        await stage.client.patch(SECRETS, "a", "default", patch, kind=PatchKind.MERGE)

        async def is_new() -> bool:
            return await shown(stage, "a.example.com") == "renewed.example.com"

        await stage.until(is_new, "the old certificate is still shown")


class _Here(aiohttp.abc.AbstractResolver):
    """Every name is this machine."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[Any]:
        return [{"hostname": host, "host": HOST, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        """Nothing is held."""


# Changes


async def test_changes_and_restarts_lose_no_request(stage: Stage) -> None:
    failed: list[object] = []
    done = 0

    async def load(session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        nonlocal done
        while not stop.is_set():
            try:
                url = f"http://{HOST}:{stage.http}/x"
                async with session.get(url, headers={"Host": "a.example.com"}) as answer:
                    told = await answer.json()
                    if answer.status != 200 or told["name"] not in ("one", "two"):
                        failed.append((answer.status, told))
            except (aiohttp.ClientError, OSError) as error:
                failed.append(error)
            done += 1

    async with answering("one") as one, answering("two") as two:
        await stage.service("web", one)
        await stage.ingress("site", rule("a.example.com", ("/", "Prefix", "web")))
        await stage.until_answers("one", "a.example.com")
        stop = asyncio.Event()
        kept = aiohttp.TCPConnector(limit=0)
        anew = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=kept) as keeping, aiohttp.ClientSession(connector=anew) as renewing:
            clients = [asyncio.create_task(load(each, stop)) for each in (keeping, keeping, renewing, renewing)]
            # Other configurations, one after another.
            for number in range(5):
                await stage.ingress(f"more-{number}", rule(f"m{number}.example.com", ("/", "Prefix", "web")))
                await stage.until_answers("one", f"m{number}.example.com")
            # Other endpoints.
            await stage.client.create(ENDPOINT_SLICES, stage.slice_of("web", two))
            await stage.until_answers("two", "a.example.com")
            await stage.client.delete(ENDPOINT_SLICES, f"web-{one}", "default")
            for _ in range(3):
                await stage.until_answers("two", "a.example.com")
            # Another agent, which finds the proxy that its predecessor left.
            await stage.stop()
            await stage.start()
            await stage.ingress("last", rule("last.example.com", ("/", "Prefix", "web")))
            await stage.until_answers("two", "last.example.com")
            stop.set()
            await asyncio.gather(*clients)

    assert failed == []
    assert done > 20


async def test_a_proxy_that_is_killed_comes_back(stage: Stage) -> None:
    async with answering("web") as port:
        await stage.service("web", port)
        await stage.ingress("site", rule("a.example.com", ("/", "Prefix", "web")))
        await stage.until_answers("web", "a.example.com")
        pid = int((stage.config.folder / "haproxy.pid").read_text())

        os.kill(pid, signal.SIGKILL)

        async def another() -> bool:
            text = (stage.config.folder / "haproxy.pid").read_text().strip()
            return bool(text) and int(text) != pid

        await stage.until(another, "nobody started it again")
        await stage.until_answers("web", "a.example.com")
