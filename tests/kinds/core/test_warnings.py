"""What Kubernetes warns of in volumes, claims, nodes, secrets and service accounts, in its words."""

from __future__ import annotations

import base64
import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from navarch.api.meta import Obj
from navarch.kinds.registry import builtin
from navarch.kinds.strategies import lookup

builtin()

CLASS = "volume.beta.kubernetes.io/storage-class"
OPTIONS = "volume.beta.kubernetes.io/mount-options"
ENFORCE = "kubernetes.io/enforce-mountable-secrets"
BETA_ZONE = {"matchExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone", "operator": "Exists"}]}
HALF_A_BYTE = {"requests": {"storage": "1500m"}}


def warnings(kind: str, obj: Obj, old: Obj | None = None) -> list[str]:
    full: Obj = {"metadata": {"name": "x", "namespace": "default", "uid": "u"}, "spec": {}, **obj}
    return list(lookup("", kind).warnings(full, old))


@pytest.mark.parametrize(
    ("kind", "obj", "said"),
    [
        (
            "PersistentVolume",
            {"metadata": {"annotations": {CLASS: "a", OPTIONS: "ro"}}},
            [
                f'metadata.annotations[{CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead',
                f'metadata.annotations[{OPTIONS}]: deprecated since v1.31; use "mountOptions" attribute instead',
            ],
        ),
        (
            "PersistentVolume",
            {"spec": {"persistentVolumeReclaimPolicy": "Recycle", "storageos": {}}},
            [
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. "
                "Instead, the recommended approach is to use dynamic provisioning.",
                "spec.storageOS: deprecated in v1.22, non-functional in v1.25+",
            ],
        ),
        (
            "PersistentVolume",
            {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [BETA_ZONE]}}, "nfs": {}}},
            [
                "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: "
                "failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; "
                'use "topology.kubernetes.io/zone" instead'
            ],
        ),
        (
            "PersistentVolumeClaim",
            {"metadata": {"annotations": {CLASS: "a"}}, "spec": {"resources": HALF_A_BYTE}},
            [
                f'metadata.annotations[{CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead',
                'spec.resources.requests[storage]: fractional byte value "1500m" is invalid, must be an integer',
            ],
        ),
        (
            "Pod",
            {
                "spec": {
                    "volumes": [
                        {"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": HALF_A_BYTE}}}},
                        {"name": "w", "projected": {"sources": [{}]}},
                    ]
                }
            },
            [
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: "
                'fractional byte value "1500m" is invalid, must be an integer',
                'volume "w" (Projected) has no sources provided',
            ],
        ),
        (
            "Node",
            {"spec": {"externalID": "x", "podCIDRs": ["10.0.0.1/24"]}},
            [
                "spec.externalID: this field is deprecated, and is unused by Kubernetes",
                'spec.podCIDRs[0]: CIDR value "10.0.0.1/24" is ambiguous in this context '
                '(should be "10.0.0.0/24" or "10.0.0.1/32"?)',
            ],
        ),
        (
            "Pod",
            {"metadata": {"name": "web.1"}},
            [
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; "
                "a DNS label is recommended: [must not contain dots]"
            ],
        ),
        (
            "ReplicationController",
            {"metadata": {"name": "web.1"}},
            [
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "
                "a DNS label is recommended: [must not contain dots]"
            ],
        ),
        (
            "ServiceAccount",
            {"metadata": {"annotations": {ENFORCE: "true"}}},
            [
                f"metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access "
                "to mounted secrets"
            ],
        ),
    ],
)
def test_what_is_on_its_way_out_is_warned_of(kind: str, obj: Obj, said: list[str]) -> None:
    assert warnings(kind, obj) == said


def test_a_write_to_a_pod_that_exists_is_not_warned_of() -> None:
    pod = {"metadata": {"name": "web.1"}}

    assert warnings("Pod", pod, pod) == []


def test_an_annotation_that_an_account_had_is_not_warned_of_again() -> None:
    account = {"metadata": {"annotations": {ENFORCE: "true"}}}

    assert warnings("ServiceAccount", account, account) == []


def test_of_an_accounts_secrets_the_names_are_kept() -> None:
    account: Any = {"metadata": {}, "secrets": [{"name": "a", "kind": "Secret", "namespace": "else"}]}

    lookup("", "ServiceAccount").prepare_create(account)

    assert account["secrets"] == [{"name": "a"}]


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _certificate(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web")])
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _said_of_pair(certificate: bytes, key: bytes) -> list[str]:
    data = {"tls.crt": base64.b64encode(certificate).decode(), "tls.key": base64.b64encode(key).decode()}
    return warnings("Secret", {"type": "kubernetes.io/tls", "data": data})


def test_a_certificate_with_its_own_key_says_nothing() -> None:
    key = _key()

    assert _said_of_pair(b"a comment before\n" + _certificate(key), _pem(key)) == []


def test_a_secret_whose_key_and_certificate_do_not_belong_together_is_warned_of() -> None:
    key, other = _key(), _key()
    certificate, text = _certificate(key), _pem(key)
    nothing = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    no_key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"

    assert _said_of_pair(b"x", b"y") == ["tls: failed to find any PEM data in certificate input"]
    assert _said_of_pair(certificate, b"y") == ["tls: failed to find any PEM data in key input"]
    assert _said_of_pair(text, certificate) == [
        "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may "
        "have been switched"
    ]
    assert _said_of_pair(certificate, certificate) == [
        "tls: found a certificate rather than a key in the PEM for the private key"
    ]
    assert _said_of_pair(certificate, _pem(other)) == ["tls: private key does not match public key"]
    assert _said_of_pair(nothing, text) == ["x509: malformed certificate"]
    assert _said_of_pair(certificate, no_key) == ["tls: failed to parse private key"]
