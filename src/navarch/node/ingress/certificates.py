"""TLS Secrets as HAProxy wants them: one PEM of certificates and key, read and written anew. Pure, but for `stand_in`.

What is not a certificate, or not the key of the certificate, does not get near the proxy: one bad file would keep all
others from being served.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from navarch.api.meta import Obj
from navarch.world import MACHINE

_LIFE = timedelta(days=3650)


class BadCertificate(Exception):
    """The Secret has no certificate that can be served; the message says why."""


@dataclass(frozen=True, slots=True)
class Pem:
    """`name` follows from the content, so that another certificate is another file."""

    name: str
    data: bytes


def read(secret: Obj | None) -> Pem:
    """Raises BadCertificate."""
    if secret is None:
        raise BadCertificate("does not exist")
    data = secret.get("data") or {}
    try:
        chain = x509.load_pem_x509_certificates(base64.b64decode(data.get("tls.crt") or ""))
        key = load_pem_private_key(base64.b64decode(data.get("tls.key") or ""), None)
    except (ValueError, TypeError, binascii.Error) as error:
        raise BadCertificate("holds no readable certificate and key in tls.crt and tls.key") from error
    except Exception as error:
        # The library has further kinds of errors for keys of kinds that it does not know.
        raise BadCertificate(f"holds a key that cannot be used: {type(error).__name__}") from error
    if _public(key.public_key()) != _public(chain[0].public_key()):
        raise BadCertificate("holds a key that is not that of its certificate")
    parts = [each.public_bytes(Encoding.PEM) for each in chain]
    return _pem(b"".join([*parts, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())]))


def _public(key: object) -> bytes:
    # Every public key of the library can be written in this way.
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


def stand_in() -> Pem:
    """A certificate that nobody vouches for, shown where no other is meant, so that a browser can say so."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Navarch Ingress, no certificate for this name")])
    now = MACHINE.now()
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(minutes=5))
    certificate = builder.not_valid_after(now + _LIFE).sign(key, hashes.SHA256())
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _pem(certificate.public_bytes(Encoding.PEM) + written)


def _pem(data: bytes) -> Pem:
    return Pem(hashlib.sha256(data).hexdigest()[:32], data)
