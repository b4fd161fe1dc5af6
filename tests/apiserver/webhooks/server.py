"""Real HTTPS servers on this machine, for webhooks and aggregated API servers: kind ones and hostile ones."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from navarch.api.meta import Obj

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Authority:
    """A certificate authority of the test's own; `bundle` is what a `caBundle` says of it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "webhooks")])
        builder = self._builder(self._name, self._key.public_key(), timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(Encoding.PEM)
        self.bundle = base64.b64encode(self.pem).decode()

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + life)
        )

    def pair(self, names: Iterable[str], life: timedelta = timedelta(days=1)) -> tuple[bytes, bytes]:
        """Certificate and key of a server of these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [_alternative(name) for name in names]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        builder = self._builder(subject, key.public_key(), life)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), secret

    def serving(self, names: Iterable[str], life: timedelta = timedelta(days=1)) -> ssl.SSLContext:
        """What such a server uses."""
        certificate, key = self.pair(names, life)
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder) / "tls.crt", Path(folder) / "tls.key"
            files[0].write_bytes(certificate)
            files[1].write_bytes(key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*files)
        return context


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Asked:
    """One request as the server got it."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body

    @property
    def request(self) -> Obj:
        """What a review asks."""
        found: Obj = orjson.loads(self.body)["request"]
        return found


async def read_request(reader: asyncio.StreamReader) -> Asked | None:
    """None where the client has gone."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = first.split(" ")
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, target, headers, body)


def http(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class HTTPSServer:
    """Serves while it is entered. `talk` has each connection, of which `connections` counts."""

    def __init__(self, tls: ssl.SSLContext | None, talk: Talk, host: str = "127.0.0.1") -> None:
        self._tls, self._talk, self._host = tls, talk, host
        self.connections = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> HTTPSServer:
        self._server = await asyncio.start_server(self._connected, self._host, 0, ssl=self._tls, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await self._talk(reader, writer)
        finally:
            writer.transport.abort()


class Webhook:
    """Answers reviews with what `answer` makes of them: an object (the `response`), or bytes to send as they are."""

    def __init__(
        self, authority: Authority, answer: Callable[[Obj], Any], names: Iterable[str] = ("127.0.0.1",)
    ) -> None:
        self.authority = authority
        self.answer = answer
        self.asked: list[Asked] = []
        self.server = HTTPSServer(authority.serving(names), self._talk)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (asked := await read_request(reader)) is not None:
            self.asked.append(asked)
            said = self.answer(asked.request)
            if asyncio.iscoroutine(said):
                said = await said
            if isinstance(said, bytes):
                writer.write(said)
            else:
                review = orjson.loads(asked.body)
                response = {"uid": review["request"]["uid"], **said}
                body = {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
                writer.write(http(200, orjson.dumps(body)))
            await writer.drain()

    async def __aenter__(self) -> Webhook:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.server.__aexit__(*error)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}/hook"

    def config(self, **stated: Any) -> Obj:
        """A webhook of a configuration that leads here."""
        return {
            "name": "w.example.com",
            "clientConfig": {"url": self.url, "caBundle": self.authority.bundle},
            "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **stated,
        }


def patch(*operations: Obj) -> Obj:
    """A response that allows what these make of the object."""
    return {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(orjson.dumps(list(operations))).decode(),
    }
