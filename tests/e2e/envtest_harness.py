"""What controller-runtime's envtest does to start and stop a control plane, step by step as its sources have it.

There is no Go here. So the flags, their order, the files and certificates, the questions after flags by `--help`, the
polling of `/health` and `/readyz` every 100 ms and the end by SIGTERM are done again in Python.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..ports import free_port

_POLL_S = 0.1
_START_TIMEOUT_S = 60.0


class StartError(AssertionError):
    """A program did not become healthy."""


class TinyCA:
    """A CA that signs one serving certificate, or users' certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = _name("envtest-environment")
        self._certificate = (
            _certificate(subject, subject, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        return _pem(self._key)

    def serving(self) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")), x509.IPAddress(ip_address("::1"))]
        builder = _certificate(_name("localhost"), self._certificate.subject, key)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return self._signed(builder, key, ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, name: str, groups: tuple[str, ...]) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(_name(name, groups), self._certificate.subject, key)
        return self._signed(builder, key, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _signed(
        self, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, usage: x509.ObjectIdentifier
    ) -> tuple[bytes, bytes]:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), _pem(key)


def _name(common: str, groups: tuple[str, ...] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=7))
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass
class Program:
    """envtest's `process.State`: a program, its folder, and the URL that says when it is up."""

    path: Path
    folder: Path
    scheme: str
    port: int
    health: str
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def has_flag(self, flag: str) -> bool:
        asked = subprocess.run([self.path, "--help"], capture_output=True, check=True)
        return re.search(rf"(?m)^\s*--{flag}\b".encode(), asked.stdout + asked.stderr) is not None

    def start(self, arguments: list[str]) -> None:
        out = (self.folder / f"{self.path.name}.log").open("wb")
        with out:
            self.process = subprocess.Popen(
                [self.path, *arguments], stdout=out, stderr=out, env={**os.environ, **self.environment}
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._healthy():
            if self.process.poll() is not None:
                raise StartError(f"{self.path.name} ended: {self.log()}")
            if time.monotonic() > deadline:
                self.stop()
                raise StartError(f"timeout waiting for process {self.path.name} to start: {self.log()}")
            time.sleep(_POLL_S)

    def log(self) -> str:
        return (self.folder / f"{self.path.name}.log").read_text()

    def _healthy(self) -> bool:
        connection: http.client.HTTPConnection
        if self.scheme == "https":
            unverified = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=unverified)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request("GET", self.health)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=20)


class ControlPlane:
    """envtest's, of one folder of executables. `more` are `KubeAPIServerFlags` by name, None takes a default away."""

    def __init__(
        self, assets: Path, more: dict[str, str | None] | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self._folders = [Path(tempfile.mkdtemp(prefix="k8s_test_framework_")) for _ in range(2)]
        self.environment = environment or {}
        self.more = more or {}
        self.etcd = Program(assets / "etcd", self._folders[0], "http", free_port(), "/health", self.environment)
        self.apiserver = Program(
            assets / "kube-apiserver", self._folders[1], "https", free_port(), "/readyz", self.environment
        )
        self.serving, self.users, self.tokens = TinyCA(), TinyCA(), TinyCA()

    def start(self) -> float:
        """The seconds until both are healthy."""
        started = time.monotonic()
        self.start_etcd()
        self.start_apiserver()
        return time.monotonic() - started

    def start_etcd(self) -> None:
        url = f"http://127.0.0.1:{self.etcd.port}"
        arguments = [
            f"--advertise-client-urls={url}",
            f"--data-dir={self._folders[0]}",
            f"--listen-client-urls={url}",
            f"--listen-peer-urls=http://127.0.0.1:{free_port()}",
        ]
        if self.etcd.has_flag("unsafe-no-fsync"):
            arguments.append("--unsafe-no-fsync=true")
        self.etcd.start(arguments)

    def start_apiserver(self) -> None:
        folder, server = self._folders[1], self.apiserver
        if not (folder / "apiserver.crt").exists():
            certificate, key = self.serving.serving()
            (folder / "apiserver.crt").write_bytes(certificate)
            (folder / "apiserver.key").write_bytes(key)
            (folder / "sa-signer.crt").write_bytes(self.tokens.pem())
            (folder / "sa-signer.key").write_bytes(self.tokens.key_pem())
            (folder / "client-cert-auth-ca.crt").write_bytes(self.users.pem())
        assert not server.has_flag("insecure-port")
        flags: dict[str, str | None] = {
            "allow-privileged": "true",
            "authorization-mode": "RBAC",
            "bind-address": "127.0.0.1",
            "cert-dir": str(folder),
            "client-ca-file": str(folder / "client-cert-auth-ca.crt"),
            "disable-admission-plugins": "ServiceAccount",
            "etcd-servers": f"http://127.0.0.1:{self.etcd.port}",
            "secure-port": str(server.port),
            "service-account-issuer": f"https://127.0.0.1:{server.port}/",
            "service-account-key-file": str(folder / "sa-signer.crt"),
            "service-account-signing-key-file": str(folder / "sa-signer.key"),
            "service-cluster-ip-range": "10.0.0.0/24",
            **self.more,
        }
        server.start([f"--{name}={value}" for name, value in flags.items() if value is not None])

    def start_as_java_does(self) -> None:
        """fabric8's kube-api-test: words apart, flags twice, the serving key for tokens, a client's own certificate as
        the authority of clients."""
        folder, data = self._folders[1], self._folders[0]
        certificate, serving_key = self.serving.serving()
        (folder / "apiserver.crt").write_bytes(certificate)
        (folder / "apiserver.key").write_bytes(serving_key)
        (folder / "client.crt").write_bytes(self.users.pem())
        etcd, peer = f"http://0.0.0.0:{self.etcd.port}", f"http://localhost:{free_port()}"
        words = ["-data-dir", data / "data", "-wal-dir", data / "wal", "--listen-client-urls", etcd]
        words += ["--advertise-client-urls", etcd, "--initial-cluster", f"default={peer}"]
        words += ["--initial-advertise-peer-urls", peer, "--listen-peer-urls", peer]
        self.etcd.start([str(word) for word in words])
        tokens = ["--service-account-signing-key-file", folder / "apiserver.key"]
        words = ["--cert-dir", folder, "--secure-port", self.apiserver.port, "--etcd-servers", etcd]
        words += ["--authorization-mode", "RBAC", "--service-account-issuer", "https://localhost", *tokens, *tokens]
        words += ["--service-account-key-file", folder / "apiserver.key"]
        words += ["--service-account-issuer", folder / "apiserver.crt"]
        words += ["--disable-admission-plugins", "ServiceAccount", "--client-ca-file", folder / "client.crt"]
        words += ["--service-cluster-ip-range", "10.0.0.0/24", "--allow-privileged"]
        self.apiserver.start([str(word) for word in words])

    def kubeconfig(self, name: str = "default", groups: tuple[str, ...] = ("system:masters",)) -> Path:
        """As `AddUser(…).KubeConfig()` makes it."""
        folder = self._folders[1]
        certificate, key = self.users.client(name, groups)
        (folder / f"{name}.crt").write_bytes(certificate)
        (folder / f"{name}.key").write_bytes(key)
        (folder / "serving-ca.crt").write_bytes(self.serving.pem())
        path = folder / f"{name}.kubeconfig"
        path.write_text(f"""\
apiVersion: v1
kind: Config
current-context: envtest
clusters:
- name: envtest
  cluster:
    server: https://127.0.0.1:{self.apiserver.port}/
    certificate-authority: {folder / "serving-ca.crt"}
contexts:
- name: envtest
  context:
    cluster: envtest
    user: envtest
users:
- name: envtest
  user:
    client-certificate: {folder / f"{name}.crt"}
    client-key: {folder / f"{name}.key"}
""")
        return path

    def stop(self) -> tuple[int, int]:
        """The exit statuses of API server and etcd, as envtest ends them; their folders go."""
        statuses = []
        for program in (self.apiserver, self.etcd):
            alive = program.process is not None and program.process.poll() is None
            statuses.append(program.stop() if alive else -1)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        return statuses[0], statuses[1]
