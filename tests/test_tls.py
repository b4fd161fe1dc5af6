"""Clients with certificates of every kind at the API server: who is known is let in, all the others are answered."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from navarch.apiserver.http import HTTPFront
from navarch.client.resources import NAMESPACES
from navarch.cluster import pki
from navarch.cluster.config import ClusterConfig
from navarch.testing.embedded import EmbeddedCluster
from navarch.tls import tls_context

UNAUTHORIZED = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Failure",
    "message": "Unauthorized",
    "reason": "Unauthorized",
    "code": 401,
}
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> Any:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


class Server:
    """An API server with TLS, and clients that come with one certificate or another."""

    def __init__(self, folder: Path) -> None:
        self.config = ClusterConfig("own", str(folder / "own"))
        self.foreign = ClusterConfig("foreign", str(folder / "foreign"))
        for each in (self.config, self.foreign):
            pki.ensure(each)
        self.other = self.foreign
        self.folder = folder
        self.port = 0

    def made(self, name: str, *, begins: timedelta, ends: timedelta, usage: Any = ExtendedKeyUsageOID.CLIENT_AUTH,
             signer: ClusterConfig | None = None) -> tuple[Path, Path]:  # fmt: skip
        """A certificate for an administrator, valid between two moments from now."""
        folder = (signer or self.config).pki
        authority = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        authority_key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        names = [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
            x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes-admin"),
        ]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        files = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files

    def client(self, files: tuple[Path, Path] | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.config.pki / "ca.crt"))
        if files is not None:
            context.load_cert_chain(*files)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    async def get(
        self,
        context: ssl.SSLContext,
        *,
        token: str = "",
        path: str = "/api/v1/nodes",
        more: str = "",
        body: bytes = b"",
    ) -> tuple[int, Any]:
        """Status and body of a request on a connection of its own, with `more` header lines; a POST with a body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        if body:
            more += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        start = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\n"
        writer.write(f"{start}{authorization}{more}\r\n".encode() + body)
        try:
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split()[0])
                return int(head.split()[1]), json.loads(await reader.readexactly(length))
        finally:
            writer.close()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """The keys of two clusters, made once."""
    return Server(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def server(known: Server, tmp_path: Path) -> AsyncIterator[Server]:
    made = copy(known)
    made.folder = tmp_path
    async with EmbeddedCluster(controllers=False) as cluster:
        front = HTTPFront(cluster.server)
        folder = made.config.pki
        # Two authorities of clients, as while one takes the other's place.
        other = ClusterConfig("other", str(tmp_path / "other"))
        pki.ensure(other)
        bundle = tmp_path / "bundle.crt"
        bundle.write_bytes((other.pki / "ca.crt").read_bytes() + (folder / "ca.crt").read_bytes())
        proxies = folder / "front-proxy-ca.crt"
        context = tls_context(folder / "apiserver.crt", folder / "apiserver.key", bundle, front_proxy_ca=proxies)
        made.other = other
        made.port = await front.start("127.0.0.1", 0, context)
        await cluster.client.get(NAMESPACES, "default")
        yield made
        await front.stop()


@pytest.mark.parametrize("version", VERSIONS)
async def test_who_has_a_good_certificate_is_known(server: Server, version: ssl.TLSVersion) -> None:
    files = server.config.pki / "admin.crt", server.config.pki / "admin.key"

    status, body = await server.get(server.client(files, version))

    assert (status, body["kind"]) == (200, "NodeList")


async def test_each_authority_of_the_bundle_has_clients(server: Server) -> None:
    files = server.other.pki / "admin.crt", server.other.pki / "admin.key"

    assert (await server.get(server.client(files)))[0] == 200


REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
SPOKEN_FOR = (
    "X-Remote-User: jane\r\nX-Remote-Group: a,b\r\nX-Remote-Group: c\r\nX-Remote-Extra-Acme%2eorg%2Fteam: x\r\n"
)


def front_proxy(server: Server) -> tuple[Path, Path]:
    return server.config.pki / "front-proxy-client.crt", server.config.pki / "front-proxy-client.key"


async def who(server: Server, files: tuple[Path, Path], version: ssl.TLSVersion, more: str) -> Any:
    """Status, and as whom the server takes the client."""
    status, review = await server.get(server.client(files, version), path=REVIEW, more=more, body=b"{}")
    return status, review["status"]["userInfo"] if status == 201 else {}


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_front_proxy_speaks_for_others(server: Server, version: ssl.TLSVersion) -> None:
    status, user = await who(server, front_proxy(server), version, SPOKEN_FOR)

    assert status == 201
    assert user == {
        "username": "jane",
        "groups": ["a,b", "c", "system:authenticated"],
        "extra": {"acme.org/team": ["x"]},
    }


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_front_proxy_is_nobody_itself(server: Server, version: ssl.TLSVersion) -> None:
    for more in ("", "X-Remote-Group: system:masters\r\n", "X-Remote-User: \r\n"):
        assert (await who(server, front_proxy(server), version, more))[0] == 401


async def test_only_names_that_are_allowed_speak_for_others(server: Server) -> None:
    """The authority of front proxies has signed it, under another name."""
    proxies = replace(server.config, data_dir=str(server.folder / "proxies"))
    proxies.pki.mkdir(parents=True)
    for kind in ("crt", "key"):
        (proxies.pki / f"ca.{kind}").write_bytes((server.config.pki / f"front-proxy-ca.{kind}").read_bytes())
    day = timedelta(days=1)
    files = server.made("other", begins=-day, ends=day, signer=proxies)

    assert (await who(server, files, ssl.TLSVersion.TLSv1_3, SPOKEN_FOR))[0] == 401


@pytest.mark.parametrize("version", VERSIONS)
async def test_clients_cannot_speak_for_others(server: Server, version: ssl.TLSVersion) -> None:
    files = server.config.pki / "admin.crt", server.config.pki / "admin.key"

    status, user = await who(server, files, version, "X-Remote-User: jane\r\n")

    assert (status, user["username"]) == (201, "kubernetes-admin")
    assert (await server.get(server.client(None), more="X-Remote-User: kubernetes-admin\r\n"))[0] == 403


@pytest.mark.parametrize("version", VERSIONS)
async def test_who_has_none_is_anonymous(server: Server, version: ssl.TLSVersion) -> None:
    status, body = await server.get(server.client(None, version))

    assert status == 403
    assert 'User "system:anonymous" cannot list resource "nodes"' in body["message"]
    assert (await server.get(server.client(None, version), path="/version"))[0] == 200


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["expired", "not yet valid", "foreign", "self-signed", "namesake"])
async def test_a_certificate_that_is_no_good_is_answered_with_401(
    server: Server, kind: str, version: ssl.TLSVersion
) -> None:
    day = timedelta(days=1)
    if kind == "expired":
        files = server.made(kind, begins=-2 * day, ends=-day)
    elif kind == "not yet valid":
        files = server.made(kind, begins=day, ends=2 * day)
    elif kind == "foreign":
        files = server.made(kind, begins=-day, ends=day, signer=server.foreign)
    elif kind == "self-signed":
        files = server.foreign.pki / "ca.crt", server.foreign.pki / "ca.key"
    else:
        files = of_a_namesake(server)
        files[0].write_bytes(files[0].read_bytes() + (server.folder / "impostor/pki/ca.crt").read_bytes())

    for path in ("/api/v1/nodes", "/version", "/api/v1/namespaces/default/pods"):
        assert await server.get(server.client(files, version), path=path) == (401, UNAUTHORIZED), path


async def test_a_certificate_that_pretends_to_be_ours_opens_nothing(server: Server) -> None:
    # OpenSSL's client sends the cluster's CA along; that this has not signed it ends the handshake.
    with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
        await server.get(server.client(of_a_namesake(server)))


def of_a_namesake(server: Server) -> tuple[Path, Path]:
    """Names the cluster's CA as its issuer, signed by somebody else's key."""
    own = x509.load_pem_x509_certificate((server.config.pki / "ca.crt").read_bytes())
    impostor = replace(server.foreign, name="impostor", data_dir=str(server.folder / "impostor"))
    impostor.pki.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(own.subject)
        .public_key(key.public_key())
        .serial_number(own.serial_number)
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (impostor.pki / "ca.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (impostor.pki / "ca.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return server.made("namesake", begins=-timedelta(days=1), ends=timedelta(days=1), signer=impostor)


async def test_a_token_counts_beside_a_certificate_that_does_not(server: Server) -> None:
    files = server.made("old", begins=-timedelta(days=2), ends=-timedelta(days=1))

    assert (await server.get(server.client(files), token="not-one"))[0] == 401


async def test_a_certificate_that_expires_on_an_open_connection_is_good_no_longer(server: Server) -> None:
    files = server.made("short", begins=-timedelta(hours=1), ends=timedelta(seconds=3))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=server.client(files), server_hostname="localhost"
    )
    seen = []
    async with asyncio.timeout(20):
        while not seen or seen[-1] == 200:
            writer.write(b"GET /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
            seen.append(int(head.split()[1]))
            await asyncio.sleep(0.1)
    writer.close()

    assert seen[0] == 200
    assert seen[-1] == 401


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stranger_is_no_friend_for_coming_again(server: Server, version: ssl.TLSVersion) -> None:
    stranger = server.made("foreign", begins=-timedelta(days=1), ends=timedelta(days=1), signer=server.foreign)
    friend = server.config.pki / "admin.crt", server.config.pki / "admin.key"

    for files, expected in ((stranger, 401), (friend, 200)):
        answers = await asyncio.to_thread(_resumed, server, server.client(files, version))
        assert [status for status, _ in answers] == [expected] * 3
        if version == ssl.TLSVersion.TLSv1_3:
            assert not any(reused for _, reused in answers), "no tickets are given"


def _resumed(server: Server, context: ssl.SSLContext) -> list[tuple[int, bool]]:
    """Three connections, each of which offers the session of the one before."""
    import socket

    session: ssl.SSLSession | None = None
    answers = []
    for _ in range(3):
        plain = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
            tls.sendall(b"GET /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            data = b""
            while chunk := tls.recv(65536):
                data += chunk
            answers.append((int(data.split()[1]), bool(tls.session_reused)))
            session = tls.session
    return answers


def test_this_python_lets_handshakes_be_looked_at() -> None:
    assert hasattr(ssl.SSLContext.__bases__[0], "_msg_callback")


def test_what_is_no_handshake_is_no_error(tmp_path: Path) -> None:
    """Messages cut short or made up end the connection at most."""
    from navarch import tls

    for data in (b"", b"\x0b", b"\x0b\0\0\x05\xff", b"\x0b\0\0\x08\0\0\0\x04\0\0\xff\0", bytes(40)):
        for version in (0x0303, 0x0304):
            try:
                chain = tls._chain(data, version)
            except IndexError:
                # That of TLS 1.3 begins with a length, which is not there.
                assert (version, len(data) < 5) == (0x0304, True)
                continue
            # Nothing that had not come.
            assert b"".join(chain) in data
