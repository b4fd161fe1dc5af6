"""The cluster's keys: verifiable, private, made once."""

from __future__ import annotations

import ssl
import stat
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from navarch.client.config import load_kubeconfig
from navarch.cluster import pki
from navarch.cluster.config import ClusterConfig, ConfigError, further_names


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ClusterConfig:
    folder = tmp_path_factory.mktemp("cluster")
    config = ClusterConfig("test", str(folder), node_name="node-a")
    pki.ensure(config)
    return config


def test_every_identity_verifies_against_the_ca_with_its_names(config: ClusterConfig) -> None:
    ca = x509.load_pem_x509_certificate((config.pki / "ca.crt").read_bytes())
    identities = list(pki.identities(config))
    assert {"admin", "kubelet", "scheduler"} <= {identity.component for identity in identities}
    for identity in identities:
        certificate = x509.load_pem_x509_certificate((config.pki / f"{identity.component}.crt").read_bytes())
        certificate.verify_directly_issued_by(ca)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        groups = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        assert names[0].value == identity.user
        assert tuple(group.value for group in groups) == identity.groups


def test_keys_are_readable_by_their_owner_alone(config: ClusterConfig) -> None:
    for file in [*config.pki.glob("*.key"), *config.pki.glob("*.kubeconfig")]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(config.pki.stat().st_mode) == 0o700


def test_a_second_run_changes_nothing(config: ClusterConfig) -> None:
    before = {file.name: file.read_bytes() for file in config.pki.iterdir()}

    pki.ensure(config)

    assert {file.name: file.read_bytes() for file in config.pki.iterdir()} == before


def test_a_certificate_cut_short_by_a_crash_is_made_again(config: ClusterConfig) -> None:
    file = config.pki / "scheduler.crt"
    file.write_bytes(b"")

    pki.ensure(config)

    assert x509.load_pem_x509_certificate(file.read_bytes())


def test_the_kubeconfig_gives_a_transport_to_the_cluster(config: ClusterConfig) -> None:
    transport = load_kubeconfig(config.admin_kubeconfig)

    assert transport.base_url == "https://127.0.0.1:6443"


def test_the_serving_certificate_is_good_for_the_names_that_clients_use(config: ClusterConfig) -> None:
    certificate = x509.load_pem_x509_certificate((config.pki / "apiserver.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert {"localhost", "kubernetes.default.svc"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "10.43.0.1"} <= {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    ssl.create_default_context(cafile=str(config.pki / "ca.crt"))


def test_further_names_come_into_the_certificate_when_the_cluster_is_told_of_them(config: ClusterConfig) -> None:
    said = further_names(["K8s.Example.com,203.0.113.7", " 2001:db8:0::7 "])
    pki.ensure(replace(config, tls_san=said))

    certificate = x509.load_pem_x509_certificate((config.pki / "apiserver.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "k8s.example.com" in names.get_values_for_type(x509.DNSName)
    assert {"203.0.113.7", "2001:db8::7", "127.0.0.1"} <= {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}


@pytest.mark.parametrize("text", ["https://k8s.example.com", "a b", "10.0.0.256/8", "-x"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--tls-san"):
        further_names([text])


def test_requests_are_signed_with_their_usages(config: ClusterConfig) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())

    pem = pki.sign_request(config.pki, request.public_bytes(Encoding.PEM), usages=["client auth"],
                           lifetime=timedelta(hours=1))  # fmt: skip

    certificate = x509.load_pem_x509_certificate(pem)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [oid._name for oid in usage] == ["clientAuth"]
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(hours=1, minutes=6)
