"""A node's certificates: asked for with a certificate request, kept in files, and renewed before they end.

In: a client of the API server, as whoever may ask, and what the certificate is to say. Out: `<name>.crt` and
`<name>.key` in the node's folder, written at once or not at all, and word to whoever uses them (`on_new`).
Invariant: a key never leaves the machine, and the old pair stays in use until the new one is whole.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from navarch.api.errors import StatusError
from navarch.client.base import Client
from navarch.client.resources import CERTIFICATE_SIGNING_REQUESTS
from navarch.world import MACHINE, World

log = logging.getLogger(__name__)

KUBELET_CLIENT: Final = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING: Final = "kubernetes.io/kubelet-serving"
API_CLIENT: Final = "kubernetes.io/kube-apiserver-client"
_CLIENT_USAGES: Final = ("digital signature", "client auth")
_SERVING_USAGES: Final = ("digital signature", "server auth")
# As kubelets do: somewhere between these parts of its life, so that a cluster's nodes do not all come at once.
_RENEW_FROM: Final = 0.7
_RENEW_WITHIN: Final = 0.2
_FIRST_LOOK_S: Final = 0.05
_LAST_LOOK_S: Final = 2.0
_ANSWER_S: Final = 15 * 60.0
_RETRY_S: Final = 5.0
_LONGEST_RETRY_S: Final = 300.0
# Clocks are set, machines sleep: the time that is left is looked at again.
_LONGEST_WAIT_S: Final = 3600.0


class CertificateRefused(Exception):
    """The request was denied, or cannot be signed; the message says why."""


@dataclass(frozen=True, slots=True)
class CertificateSpec:
    """What a certificate is to say, and who is to sign it."""

    signer: str
    user: str
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def usages(self) -> Sequence[str]:
        return _SERVING_USAGES if self.signer == KUBELET_SERVING else _CLIENT_USAGES

    def request(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        """The certificate request in PEM."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(self._subject())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in self.names]
        alternatives += [x509.IPAddress(ip_address(address)) for address in self.addresses]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _subject(self) -> x509.Name:
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in self.groups]
        return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, self.user)])

    def is_met_by(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate says this; it may say more."""
        if certificate.subject != self._subject():
            return False
        if not self.names and not self.addresses:
            return True
        try:
            said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return False
        addresses = {str(address) for address in said.get_values_for_type(x509.IPAddress)}
        return set(self.names) <= set(said.get_values_for_type(x509.DNSName)) and set(self.addresses) <= addresses


def client_of_node(node_name: str) -> CertificateSpec:
    """The kubelet's own."""
    return CertificateSpec(KUBELET_CLIENT, f"system:node:{node_name}", ("system:nodes",))


def serving_of_node(node_name: str, addresses: Sequence[str]) -> CertificateSpec:
    """With which the kubelet answers the API server."""
    return CertificateSpec(
        KUBELET_SERVING, f"system:node:{node_name}", ("system:nodes",), (node_name,), tuple(sorted(set(addresses)))
    )


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The two files of a certificate."""

    folder: Path
    name: str

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        return self.folder / f"{self.name}.key"

    def read(self) -> x509.Certificate | None:
        """The certificate; None where the pair is not there or not whole."""
        try:
            text = self.certificate.read_bytes()
            if not self.key.exists():
                return None
            return x509.load_pem_x509_certificate(text)
        except (OSError, ValueError):
            return None

    def write(self, certificate: bytes, key: bytes) -> None:
        """A crash in between leaves a certificate without its key, which `read` takes for none. Where there is no room
        for the new pair, the old one stays.  Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = _written(self.certificate, certificate, 0o644), _written(self.key, key, 0o600)
        self.key.unlink(missing_ok=True)
        fresh[0].replace(self.certificate)
        fresh[1].replace(self.key)


def _written(path: Path, data: bytes, mode: int) -> Path:
    """A file beside `path` that has `data` for good, to be put in its place.  Raises OSError."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return partial


def stopgap(pair: KeyPair, node_name: str) -> None:
    """A certificate that nobody vouches for, so that a server can listen until it has been given its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{node_name}, not signed yet")])
    now = MACHINE.now()
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=5))
    builder = builder.not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    pair.write(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), _pem(key))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def obtain(client: Client, spec: CertificateSpec, pair: KeyPair) -> None:
    """Ask for a certificate, wait until it is signed, and write it.

    Raises CertificateRefused, StatusError, OSError, and TimeoutError where nobody approves."""
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": base64.b64encode(spec.request(key)).decode(),
            "signerName": spec.signer,
            "usages": list(spec.usages),
        },
    }
    made = await client.create(CERTIFICATE_SIGNING_REQUESTS, wanted)
    async with asyncio.timeout(_ANSWER_S):
        certificate = await _answer(client, made["metadata"]["name"])
    await MACHINE.in_thread(pair.write, certificate, _pem(key))


async def _answer(client: Client, name: str) -> bytes:
    look_s = _FIRST_LOOK_S
    while True:
        status = (await client.get(CERTIFICATE_SIGNING_REQUESTS, name)).get("status") or {}
        if status.get("certificate"):
            return base64.b64decode(status["certificate"])
        for condition in status.get("conditions") or ():
            if condition.get("type") in ("Denied", "Failed"):
                why = condition.get("message") or condition.get("reason") or "no reason is given"
                raise CertificateRefused(f"the certificate request {name} was {condition['type'].lower()}: {why}")
        await asyncio.sleep(look_s)
        look_s = min(look_s * 1.5, _LAST_LOOK_S)


def renewal_of(certificate: x509.Certificate, source: random.Random) -> datetime:
    """When to ask for the next one."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life * (_RENEW_FROM + _RENEW_WITHIN * source.random())


class Renewer:
    """Keeps one pair good for ever. `spec` gives what it is to say now, None while that is not known; `on_new` is
    called after a new pair was written."""

    def __init__(
        self,
        client: Client,
        pair: KeyPair,
        spec: Callable[[], CertificateSpec | None],
        world: World,
        on_new: Callable[[], None],
    ) -> None:
        self._client = client
        self._pair = pair
        self._spec = spec
        self._world = world
        self._random = world.random("certificates", pair.name)
        self._on_new = on_new
        self._look = asyncio.Event()
        self._drawn: tuple[int, datetime] | None = None

    def look_again(self) -> None:
        """What it is to say may have changed."""
        self._look.set()

    async def run(self) -> None:
        """Until cancelled."""
        retry_s = _RETRY_S
        while True:
            spec = self._spec()
            wait_s = _LONGEST_WAIT_S
            if spec is not None:
                wait_s = (self._due(spec) - self._world.now()).total_seconds()
            if spec is not None and wait_s <= 0:
                try:
                    await obtain(self._client, spec, self._pair)
                except (CertificateRefused, StatusError, OSError, TimeoutError) as error:
                    log.warning("the certificate %s could not be renewed: %s", self._pair.name, error or "no answer")
                    wait_s, retry_s = retry_s, min(retry_s * 2, _LONGEST_RETRY_S)
                else:
                    log.info("the certificate %s is new", self._pair.name)
                    retry_s = _RETRY_S
                    self._on_new()
                    continue
            try:
                async with asyncio.timeout(min(wait_s, _LONGEST_WAIT_S)):
                    await self._look.wait()
            except TimeoutError:
                continue
            self._look.clear()

    def _due(self, spec: CertificateSpec) -> datetime:
        certificate = self._pair.read()
        if certificate is None or not spec.is_met_by(certificate):
            return self._world.now()
        if self._drawn is None or self._drawn[0] != certificate.serial_number:
            # Once for each: drawn again at every look, it would come early.
            self._drawn = (certificate.serial_number, renewal_of(certificate, self._random))
        return self._drawn[1]
