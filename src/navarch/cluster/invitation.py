"""What a cluster tells machines that may join it: how to know it, what its nodes have in common, and tokens.

`cluster-info` is for anybody, signed with each token by a controller (`controllers/bootstrap_signer.py`); the nodes'
settings are for who has a token. A token is a Secret, so that it ends, and can be taken back, like any object.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.apiserver.auth.bootstrap import CLUSTER_INFO, KUBEADM_TOKENS, NODE_SETTINGS
from navarch.cluster import kubeadm
from navarch.cluster.config import ClusterConfig, host_address
from navarch.world import MACHINE

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
TOKEN_TYPE: Final = "bootstrap.kubernetes.io/token"
# By the names that they have in a cluster's configuration.
SHARED: Final = (
    *("pod_cidr", "service_cidr", "cluster_dns", "cluster_domain", "kubernetes_version"),
    *("pod_network", "disable"),
)


def told_to_nodes(config: ClusterConfig) -> tuple[Obj, ...]:
    """The ConfigMaps."""
    ca = base64.b64encode((config.pki / "ca.crt").read_bytes()).decode()
    url = join_url(config) or config.server_url
    cluster = {"name": "", "cluster": {"certificate-authority-data": ca, "server": url}}
    kubeconfig = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [], "users": []}
    info = {"kubeconfig": json.dumps(kubeconfig, indent=2) + "\n"}
    settings = {"settings": json.dumps({name: getattr(config, name) for name in SHARED}, indent=2) + "\n"}
    return (
        {"metadata": {"name": CLUSTER_INFO, "namespace": "kube-public"}, "data": info},
        {"metadata": {"name": NODE_SETTINGS, "namespace": "kube-system"}, "data": settings},
        *kubeadm.config_maps(config, url),
    )


def join_url(config: ClusterConfig) -> str:
    """Where other machines reach the API server; empty where they do not."""
    address = config.bind_address
    if config.listens_everywhere:
        address = config.advertise_address if not config.on_pod_network else host_address()
    if not address or ip_address(address).is_loopback:
        return ""
    return f"https://[{address}]:{config.port}" if ":" in address else f"https://{address}:{config.port}"


def certificates_of(bundle_pem: bytes) -> list[bytes]:
    """Each certificate of a PEM bundle, in PEM.  Raises ValueError where there is none."""
    return [each.public_bytes(Encoding.PEM) for each in x509.load_pem_x509_certificates(bundle_pem)]


def ca_hash(certificate_pem: bytes) -> str:
    """What a CA is pinned by, as kubeadm has it: `sha256:` and the hash of its public key."""
    key = x509.load_pem_x509_certificate(certificate_pem).public_key()
    return f"sha256:{sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()}"


def new_token() -> str:
    """Like `abcdef.0123456789abcdef`."""
    source = MACHINE.unpredictable()
    return ".".join("".join(source.choice(_LETTERS) for _ in range(length)) for length in (6, 16))


def token_secret(token: str, *, now: datetime, ttl_s: float, description: str = "") -> Obj:
    """The Secret that makes a token good, for ever with a `ttl_s` of 0."""
    token_id, secret = token.split(".")
    data: dict[str, Any] = {
        "token-id": token_id,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        # As kubeadm's: who looks for those that may join finds them by it.
        "auth-extra-groups": KUBEADM_TOKENS,
    }
    if ttl_s:
        data["expiration"] = format_time(now + timedelta(seconds=ttl_s))
    if description:
        data["description"] = description
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": TOKEN_TYPE,
        "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": "kube-system"},
        "stringData": data,
    }
