"""Requests for pods' certificates, and bundles of authorities: what proves a key, what may be issued and trusted."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from navarch.api.meta import Obj
from navarch.kinds.registry import builtin
from navarch.kinds.resources import CLUSTER_TRUST_BUNDLES, POD_CERTIFICATE_REQUESTS
from navarch.kinds.strategies import lookup

builtin()
_REQUESTS = lookup(POD_CERTIFICATE_REQUESTS.group, POD_CERTIFICATE_REQUESTS.kind)
_BUNDLES = lookup(CLUSTER_TRUST_BUNDLES.group, CLUSTER_TRUST_BUNDLES.kind)
_KEY = ec.generate_private_key(ec.SECP256R1())
_BEGINS = datetime(2026, 1, 1, tzinfo=UTC)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def request(**spec: Any) -> Obj:
    public = _KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {
            "signerName": "example.com/signer",
            "podName": "p",
            "podUID": "pod-uid",
            "serviceAccountName": "default",
            "serviceAccountUID": "account-uid",
            "nodeName": "n1",
            "nodeUID": "node-uid",
            "maxExpirationSeconds": 3600,
            "pkixPublicKey": _text(public),
            "proofOfPossession": _text(_KEY.sign(b"pod-uid", ec.ECDSA(hashes.SHA256()))),
            **spec,
        },
    }


def certificate(key: ec.EllipticCurvePrivateKey, *, is_authority: bool = False) -> str:
    name = x509.Name([])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(_BEGINS)
        .not_valid_after(_BEGINS + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(Encoding.PEM).decode()


def issued(**status: Any) -> Obj:
    condition = {
        "type": "Issued",
        "status": "True",
        "reason": "Signed",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    answer = {
        "conditions": [condition],
        "certificateChain": certificate(_KEY),
        "notBefore": "2026-01-01T00:00:00Z",
        "notAfter": "2026-01-01T01:00:00Z",
        "beginRefreshAt": "2026-01-01T00:30:00Z",
        **status,
    }
    return {**request(), "status": answer}


def refused(obj: Obj) -> list[str]:
    return [str(error) for error in _REQUESTS.validate(obj, None)]


def refused_status(obj: Obj, old: Obj | None = None) -> list[str]:
    return [str(error) for error in _REQUESTS.validate_status(obj, old or request())]


def refused_bundle(text: str) -> list[str]:
    return [str(e) for e in _BUNDLES.validate({"metadata": {"name": "b"}, "spec": {"trustBundle": text}}, None)]


def test_who_asks_proves_to_have_the_key() -> None:
    assert refused(request()) == []
    assert refused(request(podUID="other")) == [
        "spec.proofOfPossession: Invalid value: could not verify proof-of-possession signature"
    ]
    small = ec.generate_private_key(ec.SECP192R1()).public_key()
    text = _text(small.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    assert "must use curve P256 or P384" in refused(request(pkixPublicKey=text))[0]


def test_a_request_that_is_signed_with_the_key_is_proof_enough() -> None:
    stub = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(_KEY, hashes.SHA256())
    asked = request(stubPKCS10Request=_text(stub.public_bytes(Encoding.DER)))
    assert len(refused(asked)) == 1

    del asked["spec"]["pkixPublicKey"], asked["spec"]["proofOfPossession"]

    assert refused(asked) == []


@pytest.mark.parametrize(("signer", "longest_s"), [("example.com/s", 91 * 86400), ("kubernetes.io/s", 86400)])
def test_kubernetes_own_signers_sign_for_a_day(signer: str, longest_s: int) -> None:
    assert refused(request(signerName=signer, maxExpirationSeconds=longest_s)) == []
    assert refused(request(signerName=signer, maxExpirationSeconds=longest_s + 1)) == [
        f"spec.maxExpirationSeconds: Invalid value: {longest_s + 1}: must be in the range [3600, {longest_s}]"
    ]


def test_what_is_issued_is_for_the_key_and_says_its_times() -> None:
    assert refused_status(issued()) == []
    foreign = issued(certificateChain=certificate(ec.generate_private_key(ec.SECP256R1())))
    assert "leaf certificate was not issued to the requested public key" in refused_status(foreign)[0]
    late = issued(notAfter="2026-01-01T02:00:00Z")
    assert "must be set to the NotAfter time encoded in the leaf certificate" in refused_status(late)[0]
    (told,) = refused_status(issued(beginRefreshAt="2026-01-01T00:55:00Z"))
    assert told.endswith('"2026-01-01T00:55:00Z": must be at least 10 minutes before status.notAfter')


def test_an_answer_is_final() -> None:
    assert refused_status(issued(beginRefreshAt="2026-01-01T00:40:00Z"), issued()) == [
        "status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed"
    ]


def test_a_bundle_is_of_authorities_each_of_them_once() -> None:
    good = certificate(_KEY, is_authority=True)
    assert refused_bundle("some words\n" + good) == []
    (told,) = refused_bundle(certificate(_KEY))
    assert told == 'spec.trustBundle: Invalid value: "<value omitted>": entry 0 does not have the CA bit set'
    (told,) = refused_bundle(good + good)
    assert told.endswith("duplicate trust anchor (indices [0 1])")
    (told,) = refused_bundle(good.replace("CERTIFICATE", "THING"))
    assert told.endswith("entry 0 has bad block type: THING")
    (told,) = refused_bundle("")
    assert told.endswith("at least one trust anchor must be provided")
