"""`PodCertificates`: the keys and certificates that pods' projected volumes ask for (`podCertificate`).

In: a projection, and what the signer answers. Out: a key that never leaves the node and the certificate chain for it; a
PodCertificateRequest per issuance, the next one when the signer says that it is time. Until a new certificate is there
the old one serves. A request that was denied, or that failed, is not made again: that is for whoever wrote the pod.
"""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from navarch.api.errors import StatusError
from navarch.api.meta import Obj, Resource, name_of, namespace_of, uid_of
from navarch.api.time import parse_time
from navarch.client.base import Client
from navarch.client.events import EventRecorder
from navarch.client.resources import NODES, POD_CERTIFICATE_REQUESTS, SERVICE_ACCOUNTS
from navarch.client.served import served_as
from navarch.kinds.certificates import pem
from navarch.node.volumes.base import VolumeError, VolumePending
from navarch.world import World

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

# How long a signer's answer is waited for before the next look.
_WAIT_S: Final = 0.5
_MOST_JITTER_S: Final = 300.0
_OVERDUE_AFTER: Final = timedelta(minutes=10)
_RSA_BITS: Final = {"RSA3072": 3072, "RSA4096": 4096}


class Credential(NamedTuple):
    """PEM texts."""

    key: str
    chain: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, and the key that it is for."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class _Held:
    """How far one projection is: what it has, what it has asked for, or why it will get nothing."""

    credential: Credential | None = None
    refresh_at: datetime | None = None
    ends: datetime | None = None
    asked: _Asked | None = None
    refused: str = ""
    told: frozenset[str] = frozenset()


class PodCertificates:
    def __init__(self, client: Client, recorder: EventRecorder, world: World, node_name: str) -> None:
        self._client = client
        self._recorder = recorder
        self._world = world
        self._node_name = node_name
        self._random = world.random("pod certificates", node_name)
        self._held: dict[tuple[str, str, int], _Held] = {}
        self._requests: Resource | None = None

    async def credential(self, pod: Obj, volume: str, index: int, stated: Obj) -> Credential:
        """The newest there is for the source at `index` of a volume.  Raises VolumePending until there is one, and
        VolumeError where there will be none."""
        at = (uid_of(pod), volume, index)
        held = self._held.get(at) or _Held()
        if not held.refused and held.asked is None and self._is_due(held):
            held = self._held[at] = replace(held, asked=await self._ask(pod, stated))
        if held.asked is not None:
            held = self._held[at] = await self._answered(pod, held, held.asked)
        if held.refused:
            raise VolumeError(held.refused)
        if held.credential is None:
            raise VolumePending("the pod's certificate has not been issued yet", wait_s=_WAIT_S)
        self._held[at] = self._tell_age(pod, held)
        return held.credential

    def forget(self, uid: str) -> None:
        """The pod has gone, and its keys with it."""
        for at in [at for at in self._held if at[0] == uid]:
            del self._held[at]

    def _is_due(self, held: _Held) -> bool:
        return held.refresh_at is None or self._world.now() >= held.refresh_at

    async def _answered(self, pod: Obj, held: _Held, asked: _Asked) -> _Held:
        """What has come of a request."""
        request = await self._client.find(await self._served(), asked.name, namespace_of(pod))
        if request is None:
            # Somebody deleted it; the next look asks anew.
            return replace(held, asked=None)
        status = request.get("status") or {}
        for condition in status.get("conditions") or ():
            kind, reason, message = (str(condition.get(name) or "") for name in ("type", "reason", "message"))
            if kind == "Issued":
                jitter = timedelta(seconds=self._random.random() * _MOST_JITTER_S)
                chain = _cleaned(status.get("certificateChain") or "")
                return _Held(
                    Credential(asked.key, chain),
                    refresh_at=parse_time(status["beginRefreshAt"]) + jitter,
                    ends=parse_time(status["notAfter"]),
                )
            if kind in ("Denied", "Failed"):
                how = "was denied" if kind == "Denied" else "failed"
                words = f'PodCertificateRequest {namespace_of(pod)}/{asked.name} {how}, reason="{reason}", '
                self._recorder.event(pod, "Warning", kind, f'{words}message="{message}"')
                how = "permanently denied" if kind == "Denied" else "permanently failed"
                return _Held(refused=f'PodCertificateRequest was {how}: reason="{reason}" message="{message}"')
        return held

    def _tell_age(self, pod: Obj, held: _Held) -> _Held:
        """Say once of a certificate that it should have been renewed, and that it has ended."""
        if held.refresh_at is None or held.ends is None:
            return held
        now = self._world.now()
        found = {
            "CertificateOverdueForRefresh": ("PodCertificate refresh overdue", now > held.refresh_at + _OVERDUE_AFTER),
            "CertificateExpired": ("PodCertificate expired", now > held.ends),
        }
        for reason, (message, is_so) in found.items():
            if is_so and reason not in held.told:
                self._recorder.event(pod, "Warning", reason, message)
                held = replace(held, told=held.told | {reason})
        return held

    # Asking.

    async def _served(self) -> Resource:
        """Requests in the version that the API server has."""
        if self._requests is None:
            self._requests = await served_as(self._client, POD_CERTIFICATE_REQUESTS)
        if self._requests is None:
            raise VolumeError("certificates of pods are not served by this cluster")
        return self._requests

    async def _ask(self, pod: Obj, stated: Obj) -> _Asked:
        namespace, account_name = namespace_of(pod), pod["spec"].get("serviceAccountName") or "default"
        try:
            account = await self._client.get(SERVICE_ACCOUNTS, account_name, namespace)
            node = await self._client.get(NODES, self._node_name)
            # An RSA key takes a while.
            key, stub, older = await self._world.in_thread(_prepared, stated["keyType"], uid_of(pod).encode())
            spec: Obj = {
                "signerName": stated["signerName"],
                "podName": name_of(pod),
                "podUID": uid_of(pod),
                "serviceAccountName": account_name,
                "serviceAccountUID": uid_of(account),
                "nodeName": self._node_name,
                "nodeUID": uid_of(node),
            }
            if stated.get("maxExpirationSeconds") is not None:
                spec["maxExpirationSeconds"] = stated["maxExpirationSeconds"]
            if stated.get("userAnnotations"):
                spec["unverifiedUserAnnotations"] = stated["userAnnotations"]
            made = await self._create(pod, spec, stub, older)
        except (StatusError, OSError) as error:
            raise VolumeError(f"while creating PodCertificateRequest: {error}") from error
        return _Asked(name_of(made), key)

    async def _create(self, pod: Obj, spec: Obj, stub: Obj, older: Obj) -> Obj:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": uid_of(pod)}
        requests = await self._served()
        request: Obj = {
            "apiVersion": requests.api_version,
            "kind": "PodCertificateRequest",
            "metadata": {"generateName": "req-", "namespace": namespace_of(pod), "ownerReferences": [owner]},
        }
        try:
            return await self._client.create(requests, {**request, "spec": {**spec, **stub}})
        except StatusError as error:
            if error.code != 422:
                raise
        # An API server older than 1.37 does not know the field, and drops it.
        return await self._client.create(requests, {**request, "spec": {**spec, **older}})


def _cleaned(chain: str) -> str:
    """The certificates alone, without what is written around them."""
    return "".join(ssl.DER_cert_to_PEM_cert(block.der) for block in pem.blocks(chain))


def _prepared(kind: str, uid: bytes) -> tuple[str, Obj, Obj]:
    """A new key as PEM, and the two ways to ask for its certificate: an empty signing request, as is done since 1.37,
    and the public key with a proof."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = _new_key(kind)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    stub = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return (
        text,
        {"stubPKCS10Request": _encoded(stub.public_bytes(Encoding.DER))},
        {"pkixPublicKey": _encoded(public), "proofOfPossession": _encoded(_proof(key, uid))},
    )


def _new_key(kind: str) -> CertificateIssuerPrivateKeyTypes:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if kind in _RSA_BITS:
        return rsa.generate_private_key(65537, _RSA_BITS[kind])
    curves: dict[str, type[ec.EllipticCurve]] = {
        "ECDSAP256": ec.SECP256R1,
        "ECDSAP384": ec.SECP384R1,
        "ECDSAP521": ec.SECP521R1,
    }
    if kind in curves:
        return ec.generate_private_key(curves[kind]())
    if kind == "ED25519":
        return ed25519.Ed25519PrivateKey.generate()
    raise VolumeError(f'unknown key type "{kind}"')


def _proof(key: CertificateIssuerPrivateKeyTypes, signed: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    digest = hashes.SHA256()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(signed, ec.ECDSA(digest))
    most = padding.PSS(padding.MGF1(digest), padding.PSS.MAX_LENGTH)
    return cast(rsa.RSAPrivateKey, key).sign(signed, most, digest)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
