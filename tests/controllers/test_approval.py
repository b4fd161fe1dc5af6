"""What signers sign, and what is refused, in Kubernetes' order and words."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from navarch.controllers.approval import API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, problem_of

CLIENT = ["digital signature", "client auth"]
SERVING = ["digital signature", "server auth"]


def request(
    name: str = "system:node:n1", organizations: tuple[str, ...] = ("system:nodes",), *names: x509.GeneralName
) -> x509.CertificateSigningRequest:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


NODES = ("system:nodes",)
DNS, EMAIL = x509.DNSName("n1"), x509.RFC822Name("a@b.c")
URI = x509.UniformResourceIdentifier("https://n1")


@pytest.mark.parametrize(
    ("signer", "asked", "usages", "problem"),
    [
        (KUBELET_CLIENT, request(), CLIENT, ""),
        (KUBELET_CLIENT, request(), [*CLIENT, "key encipherment"], ""),
        (KUBELET_CLIENT, request("x", ("friends",), DNS), SERVING, "subject organization is not system:nodes"),
        (KUBELET_CLIENT, request("x", NODES, EMAIL, DNS), CLIENT, "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, request("x", NODES, URI, EMAIL), CLIENT, "Email subjectAltNames are not allowed"),
        (KUBELET_CLIENT, request("x", NODES, URI), CLIENT, "URI subjectAltNames are not allowed"),
        (KUBELET_CLIENT, request(), SERVING,
         "usages did not match [client auth digital signature key encipherment]"),
        (KUBELET_CLIENT, request("n1"), CLIENT, "subject common name does not begin with system:node:"),
        (KUBELET_SERVING, request("system:node:n1", NODES, DNS), SERVING, ""),
        (KUBELET_SERVING, request(), SERVING, "DNS or IP subjectAltName is required"),
        (KUBELET_SERVING, request("x", NODES, DNS, URI), SERVING, "URI subjectAltNames are not allowed"),
        (KUBELET_SERVING, request("x", NODES, DNS), CLIENT,
         "usages did not match [digital signature key encipherment server auth]"),
        (API_CLIENT, request("jane", ()), ["client auth"], ""),
        (API_CLIENT, request("jane", ()), ["client auth", "code signing"],
         "invalid usage for client certificate: code signing"),
        (API_CLIENT, request("jane", ()), ["digital signature"],
         "missing required usage for client certificate: client auth"),
        (LEGACY, request("jane", ()), ["code signing"], ""),
    ],
)  # fmt: skip
def test_what_a_signer_signs(
    signer: str, asked: x509.CertificateSigningRequest, usages: list[str], problem: str
) -> None:
    assert problem_of(signer, asked, usages) == problem
