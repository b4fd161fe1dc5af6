"""CertificateSigningRequest and who may write what of it."""

from __future__ import annotations

import base64
import copy
import datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kinds.writing import created, refused, row, updated

GROUP, KIND = "certificates.k8s.io", "CertificateSigningRequest"
APPROVED = {"type": "Approved", "status": "True", "reason": "ok"}


@cache
def request() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


@cache
def certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(days=1))
    return base64.b64encode(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()


def csr(**spec: Any) -> Any:
    stated = {"request": request(), "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    return {"spec": {**stated, **spec}}


def test_who_asks_is_not_for_the_client_to_say() -> None:
    obj, errors = created(GROUP, KIND, csr(username="root", groups=["system:masters"]))
    assert errors == []
    assert not {"username", "groups"} & obj["spec"].keys()


def test_what_is_refused() -> None:
    assert 'spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST' in refused(
        GROUP, KIND, csr(request="eA==")
    )
    assert "spec.signerName: Required value" in refused(GROUP, KIND, csr(signerName=""))
    assert any(
        error.startswith('spec.usages[0]: Unsupported value: "fly"')
        for error in refused(GROUP, KIND, csr(usages=["fly"]))
    )
    assert any("less than 600 seconds" in error for error in refused(GROUP, KIND, csr(expirationSeconds=1)))


def test_the_spec_never_changes() -> None:
    old = created(GROUP, KIND, csr())[0]
    assert updated(GROUP, KIND, old, {**old, "spec": {**old["spec"], "signerName": "a.b/c"}})[0]["spec"] == old["spec"]


def test_approval_writes_conditions_and_nothing_else() -> None:
    old = created(GROUP, KIND, csr())[0]
    new = {**copy.deepcopy(old), "status": {"conditions": [APPROVED], "certificate": "eA=="}}
    after, errors = updated(GROUP, KIND, old, new, "approval")
    assert errors == []
    assert after["status"] == {"conditions": [APPROVED]}
    assert updated(GROUP, KIND, after, {**after, "status": {}}, "approval")[1] == [
        'status.conditions: Forbidden: updates may not remove a condition of type "Approved"'
    ]


def test_approved_and_denied_exclude_each_other() -> None:
    old = created(GROUP, KIND, csr())[0]
    new = {**old, "status": {"conditions": [APPROVED, {"type": "Denied", "status": "True"}]}}
    (error,) = updated(GROUP, KIND, old, new, "approval")[1]
    assert error.endswith("Approved and Denied conditions are mutually exclusive")


def test_a_signer_issues_but_does_not_approve() -> None:
    old = created(GROUP, KIND, csr())[0]
    old["status"] = {"conditions": [APPROVED]}
    other = {**APPROVED, "reason": "Other"}
    new = {**copy.deepcopy(old), "status": {"certificate": certificate(), "conditions": [other]}}
    after, errors = updated(GROUP, KIND, old, new, "status")
    assert errors == []
    assert after["status"] == {"certificate": certificate(), "conditions": [APPROVED]}

    _, errors = updated(GROUP, KIND, old, {**old, "status": {"conditions": [{**other, "type": "Denied"}]}}, "status")
    assert errors == [
        'status.conditions: Forbidden: updates may not remove a condition of type "Approved"',
        'status.conditions: Forbidden: updates may not add a condition of type "Denied"',
    ]


def test_what_is_issued_is_a_certificate() -> None:
    old = created(GROUP, KIND, csr())[0]
    _, (error,) = updated(GROUP, KIND, old, {**old, "status": {"certificate": "eA=="}}, "status")
    assert error.startswith("status.certificate: Invalid value")


def test_the_table() -> None:
    obj = created(GROUP, KIND, csr(expirationSeconds=3600))[0]
    obj["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    obj["spec"]["username"] = "ann"
    assert row(GROUP, KIND, obj) == ["web", "24h", "kubernetes.io/kube-apiserver-client", "ann", "60m", "Pending"]
    obj["status"] = {"conditions": [APPROVED], "certificate": "eA=="}
    assert row(GROUP, KIND, obj)[-1] == "Approved,Issued"


def test_a_decision_says_whether_it_holds() -> None:
    old, _ = created(GROUP, KIND, csr())
    decided = {**copy.deepcopy(old), "status": {"conditions": [{"type": "Approved", "reason": "ok"}]}}

    assert updated(GROUP, KIND, old, decided, "approval")[1] == ["status.conditions[0].status: Required value"]
