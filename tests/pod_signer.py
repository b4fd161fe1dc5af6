"""Who signs the certificates of pods: what a signer writes into the status of a PodCertificateRequest."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from navarch.api.meta import Obj
from navarch.api.time import format_time


def condition(kind: str, at: datetime, reason: str, message: str = "") -> Obj:
    """How a request ends: Issued, Denied or Failed."""
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": format_time(at),
    }


def issued(request: Obj, begins: datetime) -> Obj:
    """The status with a certificate for a day, from whole second to whole second."""
    begins = begins.replace(microsecond=0)
    ends = begins + timedelta(hours=24)
    stub = x509.load_der_x509_csr(base64.b64decode(request["spec"]["stubPKCS10Request"]))
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")]))
        .public_key(stub.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return {
        "conditions": [condition("Issued", begins, "Signed")],
        "certificateChain": leaf.public_bytes(Encoding.PEM).decode(),
        "notBefore": format_time(begins),
        "notAfter": format_time(ends),
        "beginRefreshAt": format_time(begins + timedelta(hours=20)),
    }
