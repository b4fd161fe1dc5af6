"""The cluster's keys: one CA, a serving certificate, an identity per component, the key that signs tokens.

Everything is P-256 and lies in the cluster's `pki` folder, readable by its owner alone. What exists and is still good
is kept, so that running it again changes nothing; certificates are renewed with less than a third of their year left,
at each start and while the cluster runs (`renewal.py`).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from navarch.cluster import ranges, workers
from navarch.cluster.config import ClusterConfig, host_address, host_name, is_address
from navarch.cluster.identities import FRONT_PROXY_CA, FRONT_PROXY_CLIENT, FRONT_PROXY_NAME, NODE_COMPONENTS
from navarch.records import frozen

_CA_LIFE = timedelta(days=3650)
_LIFE = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=120)
# By how much clocks may differ.
_BACKDATED = timedelta(minutes=5)
_SHORT = timedelta(hours=8)


@frozen
class Identity:
    """A component's certificate: its user name and groups."""

    component: str
    user: str
    groups: tuple[str, ...] = ()


def identities(config: ClusterConfig) -> list[Identity]:
    """Who talks to the API server in this cluster, each with no more rights than its role gives."""
    found = [
        Identity("admin", "kubernetes-admin", ("system:masters",)),
        Identity("controller-manager", "system:kube-controller-manager"),
        Identity("scheduler", "system:kube-scheduler"),
        *(Identity(component, user) for component, user in NODE_COMPONENTS.items()),
        Identity("simulated-nodes", "navarch:simulated-nodes"),
        # The API server as a client of kubelets.
        Identity("apiserver-kubelet-client", "system:apiserver"),
    ]
    if config.node_name:
        found.append(Identity("kubelet", f"system:node:{config.node_name}", ("system:nodes",)))
    return found


def ensure(config: ClusterConfig) -> None:
    """Make what is missing or about to expire, and a kubeconfig for each identity. A node of a cluster elsewhere asks
    there for what it needs."""
    if config.is_agent:
        return
    folder = config.pki
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca = _Authority.load_or_create(folder)
    _ensure_processes(ca, config, identities(config))
    if config.node_name:
        ca.ensure_serving_of_node(folder, config.node_name, config.node_ip)
    for worker in workers.names(config):
        _ensure_worker(ca, config, worker)
    token_key = folder / "sa.key"
    if not token_key.exists():
        _write(token_key, _pem_key(ec.generate_private_key(ec.SECP256R1())), durable=True)


def renew(config: ClusterConfig) -> None:
    """Make what is about to expire anew while the cluster runs. Nodes look after their own, which they have in use."""
    of_nodes = {"kubelet", *NODE_COMPONENTS}
    mine = [identity for identity in identities(config) if identity.component not in of_nodes]
    _ensure_processes(_Authority.load_or_create(config.pki), config, mine)


def _ensure_processes(ca: _Authority, config: ClusterConfig, wanted: Sequence[Identity]) -> None:
    """What the API server, the controllers and these identities show."""
    folder = config.pki
    names, addresses = _serving_names(config)
    ca.ensure_serving(folder / "apiserver", "kube-apiserver", names, addresses)
    if config.nodes:
        ca.ensure_serving(folder / "simulated-kubelet", "navarch:simulated-nodes", {"localhost"}, {"127.0.0.1"})
    # An authority of its own: who has a certificate of the cluster's is not therefore believed to speak for others.
    front_proxy = _Authority.load_or_create(folder, FRONT_PROXY_CA)
    front_proxy.ensure_client(folder / FRONT_PROXY_CLIENT, Identity(FRONT_PROXY_CLIENT, FRONT_PROXY_NAME))
    for identity in wanted:
        ca.ensure_client(folder / identity.component, identity)
        kubeconfig = config.component_kubeconfig(identity.component)
        text = kubeconfig_text(config, identity.component).encode()
        if not kubeconfig.exists() or kubeconfig.read_bytes() != text:
            _write(kubeconfig, text)


def _ensure_worker(ca: _Authority, config: ClusterConfig, name: str) -> None:
    """A further node of this machine is given what one elsewhere asks for; it renews it itself."""
    own = workers.config_of(config, name)
    own.pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(own.pki / "ca.crt", ca.certificate.public_bytes(Encoding.PEM), mode=0o644)
    ca.ensure_serving_of_node(own.pki, name, own.node_ip)
    ca.ensure_client(own.pki / "kubelet", Identity("kubelet", f"system:node:{name}", ("system:nodes",)))
    for component, user in NODE_COMPONENTS.items():
        ca.ensure_client(own.pki / component, Identity(component, user))


def kubeconfig_text(config: ClusterConfig, component: str) -> str:
    """A self-contained kubeconfig for one identity."""
    name = config.context
    ca, certificate, key = (
        base64.b64encode((config.pki / file).read_bytes()).decode()
        for file in ("ca.crt", f"{component}.crt", f"{component}.key")
    )
    return f"""\
apiVersion: v1
kind: Config
current-context: {name}
clusters:
- name: {name}
  cluster:
    server: {config.server_url}
    certificate-authority-data: {ca}
contexts:
- name: {name}
  context:
    cluster: {name}
    user: {name}
users:
- name: {name}
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"""


def sign_request(
    folder: Path, request_pem: bytes, *, usages: Iterable[str], lifetime: timedelta | None = None
) -> bytes:
    """Sign a PEM certificate request with the cluster's CA for the given Kubernetes key usages; PEM of the result.

    Raises ValueError for a request that cannot be read or whose signature is wrong.
    """
    request = x509.load_pem_x509_csr(request_pem)
    if not request.is_signature_valid:
        raise ValueError("the signature of the certificate request is not valid")
    ca = _Authority.load_or_create(folder)
    wanted = set(usages)
    extended = [
        oid
        for usage, oid in (
            ("client auth", ExtendedKeyUsageOID.CLIENT_AUTH),
            ("server auth", ExtendedKeyUsageOID.SERVER_AUTH),
        )
        if usage in wanted
    ]
    life = lifetime or _LIFE
    # Counted from when it begins, which lies back a little; a short one from now.
    builder = ca.builder(request.subject, life if life < _SHORT else life - _BACKDATED).public_key(request.public_key())
    builder = _with_usages(builder, extended, key_encipherment="key encipherment" in wanted)
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = builder.add_extension(names.value, critical=names.critical)
    except x509.ExtensionNotFound:
        pass
    return builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def self_signed(certificate_file: Path, key_file: Path, common_name: str, names: set[str], addresses: set[str]) -> None:
    """A serving certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _own_builder(subject, key, _LIFE)
    builder = builder.add_extension(_alternatives(names, addresses), critical=False)
    builder = _with_usages(builder, [ExtendedKeyUsageOID.SERVER_AUTH])
    for path in (certificate_file, key_file):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write(key_file, _pem_key(key))
    _write(certificate_file, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), mode=0o644)


def _own_builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta) -> x509.CertificateBuilder:
    """Of a certificate that is its own issuer's."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
    )


def _alternatives(names: set[str], addresses: set[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = [x509.DNSName(name) for name in sorted(names)]
    found += [x509.IPAddress(ip_address(address)) for address in sorted(addresses)]
    return x509.SubjectAlternativeName(found)


def _serving_names(config: ClusterConfig) -> tuple[set[str], set[str]]:
    domain = config.cluster_domain
    names = {"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
    names.add(f"kubernetes.default.svc.{domain}")
    addresses = {"127.0.0.1", *config.listen_addresses} - {"0.0.0.0", "::"}
    if config.bind_address:
        # Reachable from elsewhere, by whatever name this machine has there.
        names.add(host_name())
        addresses |= {host_address(), config.advertise_address}
    if config.listens_everywhere:
        addresses.add("::1")
    for further in filter(None, config.tls_san.split(",")):
        (addresses if is_address(further) else names).add(further)
    # The virtual IP of the service `kubernetes`.
    addresses.add(str(ranges.first(config.service_cidr)[1]))
    return names, addresses


class _Authority:
    """The CA: its certificate and key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @classmethod
    def load_or_create(cls, folder: Path, name: str = "ca") -> _Authority:
        certificate_file, key_file = folder / f"{name}.crt", folder / f"{name}.key"
        if certificate_file.exists() and key_file.exists():
            key = load_pem_private_key(key_file.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{key_file} holds no elliptic-curve key")
            return cls(x509.load_pem_x509_certificate(certificate_file.read_bytes()), key)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"navarch-{name}-{os.urandom(4).hex()}")])
        certificate = (
            _own_builder(subject, key, _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        # The key first: a certificate without key would be taken for complete after a crash in between.
        _write(key_file, _pem_key(key), durable=True)
        _write(certificate_file, certificate.public_bytes(Encoding.PEM), mode=0o644, durable=True)
        return cls(certificate, key)

    def builder(self, subject: x509.Name, life: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(min(now + life, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )

    def ensure_client(self, base: Path, identity: Identity) -> None:
        subject = _subject(identity.user, identity.groups)
        if _is_good(base, subject, set()):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self.builder(subject, _LIFE).public_key(key.public_key())
        builder = _with_usages(builder, [ExtendedKeyUsageOID.CLIENT_AUTH])
        self._sign_and_write(base, builder, key)

    def ensure_serving(
        self, base: Path, common_name: str, names: set[str], addresses: set[str], groups: Sequence[str] = ()
    ) -> None:
        subject = _subject(common_name, groups)
        if _is_good(base, subject, names | addresses):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self.builder(subject, _LIFE).public_key(key.public_key())
        builder = builder.add_extension(_alternatives(names, addresses), critical=False)
        builder = _with_usages(builder, [ExtendedKeyUsageOID.SERVER_AUTH])
        self._sign_and_write(base, builder, key)

    def ensure_serving_of_node(self, folder: Path, name: str, address: str) -> None:
        names, addresses = {name}, {"127.0.0.1", address}
        self.ensure_serving(folder / "kubelet-serving", f"system:node:{name}", names, addresses, ("system:nodes",))

    def _sign_and_write(self, base: Path, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> None:
        certificate = builder.sign(self.key, hashes.SHA256())
        base.with_suffix(".crt").unlink(missing_ok=True)
        _write(base.with_suffix(".key"), _pem_key(key))
        _write(base.with_suffix(".crt"), certificate.public_bytes(Encoding.PEM), mode=0o644)


def _subject(common_name: str, groups: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _is_good(base: Path, subject: x509.Name, alternatives: set[str]) -> bool:
    certificate_file = base.with_suffix(".crt")
    if not certificate_file.exists() or not base.with_suffix(".key").exists():
        return False
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except ValueError:
        # Cut short by a crash while it was made.
        return False
    if certificate.subject != subject or datetime.now(UTC) > certificate.not_valid_after_utc - _RENEW_BEFORE:
        return False
    if not alternatives:
        return True
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    present = set(named.get_values_for_type(x509.DNSName))
    present |= {str(address) for address in named.get_values_for_type(x509.IPAddress)}
    return alternatives <= present


def _key_usage(*, sign_certificates: bool = False, key_encipherment: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=key_encipherment,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _with_usages(
    builder: x509.CertificateBuilder, extended: list[x509.ObjectIdentifier], *, key_encipherment: bool = False
) -> x509.CertificateBuilder:
    builder = builder.add_extension(_key_usage(key_encipherment=key_encipherment), critical=True)
    return builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False) if extended else builder


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Atomic, and never readable by others for a moment; `durable` for what cannot be made again from the rest."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    partial.replace(path)
