"""What an API server is told, whoever tells it: `navarch up` by a cluster's configuration, others by kube-apiserver's
flags. Files are named here and read where they are needed, most of them at first use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from navarch.api.version import DEFAULT_VERSION
from navarch.apiserver.audit.log import LogSettings
from navarch.apiserver.auth.jwt_issuers import Issuer
from navarch.apiserver.auth.proxy_headers import ProxyHeaders
from navarch.apiserver.flowcontrol.control import READING, WRITING
from navarch.apiserver.user import User
from navarch.cluster.config import ClusterConfig
from navarch.cluster.identities import FRONT_PROXY_CA, FRONT_PROXY_CLIENT, FRONT_PROXY_NAME
from navarch.records import frozen

_KEYS: Final = "/openid/v1/jwks"


@frozen
class KubeletAccess:
    """How the API server speaks to kubelets: the CA that signed their certificates, and its own."""

    ca: Path
    certificate: Path
    key: Path


@frozen
class FrontProxy:
    """As whom the API server speaks for others to those behind it."""

    certificate: Path
    key: Path


@frozen
class FrontProxies:
    """Who may speak for others, to this server and to those behind it: whom this CA has signed, in these headers."""

    ca: Path
    headers: ProxyHeaders


@frozen
class TokenWebhookSettings:
    """A kubeconfig that says where token reviews are sent, in which version, and how long answers are good."""

    kubeconfig: Path
    version: str = "v1"
    ttl_s: float = 120.0


@frozen
class AccessWebhookFile:
    """A kubeconfig that says where access reviews are sent, in which version, and how long answers are good."""

    kubeconfig: Path
    version: str
    authorized_s: float
    unauthorized_s: float


@frozen
class AuditWebhookFile:
    """A kubeconfig that says where events are sent, and how many at a time."""

    kubeconfig: Path
    buffer: int
    most: int
    wait_s: float
    backoff_s: float


@frozen
class AuditSettings:
    """Which requests are logged, and where: in a file, by a server that a kubeconfig names, or both."""

    policy: Path
    log: LogSettings | None = None
    webhook: AuditWebhookFile | None = None


@frozen
class ServerSettings:
    """`issuers`' first is whom tokens are from; `token_keys` are public keys that are believed beside that of
    `signing_key`; `authorization_modes` are asked in their order; `enabled_plugins` are admission plugins that do not
    run by default."""

    serving_certificate: Path
    serving_key: Path
    signing_key: Path
    issuers: tuple[str, ...]
    api_audiences: tuple[str, ...]
    advertise_address: str
    port: int
    service_cidr: str
    client_ca: Path | None = None
    token_keys: tuple[Path, ...] = ()
    jwks_uri: str = ""
    kubelets: KubeletAccess | None = None
    front_proxy: FrontProxy | None = None
    front_proxies: FrontProxies | None = None
    static_tokens: Mapping[str, User] = field(default_factory=dict)
    anonymous: bool = True
    # Issuers of tokens, and where anonymous requests may go.
    authentication: Path | None = None
    issuers_of_flags: tuple[Issuer, ...] = ()
    bootstrap_tokens: bool = False
    token_webhook: TokenWebhookSettings | None = None
    authorization_modes: tuple[str, ...] = ("Node", "RBAC")
    # The authorizers in their order, instead of the modes; and the webhook among the modes.
    authorization: Path | None = None
    access_webhook: AccessWebhookFile | None = None
    enabled_plugins: frozenset[str] = frozenset()
    disabled_plugins: frozenset[str] = frozenset()
    # Settings of admission plugins.
    admission: Path | None = None
    node_ports: range = range(30000, 32768)
    cluster_dns: str = ""
    event_ttl_s: float = 3600.0
    # How many requests run at a time that read, and that write; shared out by priority levels.
    reading_in_flight: int = READING
    writing_in_flight: int = WRITING
    fairness: bool = True
    # Whether HTTP/2 is offered, how many requests at a time a connection may have (0: as many as usual), and how likely
    # each is its last.
    http2: bool = True
    http2_streams: int = 0
    goaway_chance: float = 0.0
    audit: AuditSettings | None = None
    # Which resources are encrypted at rest, and how.
    encryption: Path | None = None
    encryption_reloads: bool = False
    kubernetes_version: str = DEFAULT_VERSION
    # Which versions of groups are on or off beyond the defaults: `group/version=true`, by commas.
    runtime_config: str = ""
    # Whether what nodes and pods use is collected and served (metrics.k8s.io).
    resource_metrics: bool = False
    # How long to go on serving, and to say that it is no longer to be relied on, before watches and connections end.
    shutdown_delay_s: float = 0.0
    # `name=true`, `name=false`.
    feature_gates: tuple[str, ...] = ()

    @property
    def service_address(self) -> str:
        """The cluster IP of the Service `kubernetes`."""
        return str(ip_network(self.service_cidr.split(",")[0].strip())[1])


def issuer_of(config: ClusterConfig) -> str:
    return f"https://kubernetes.default.svc.{config.cluster_domain}"


def jwks_uri(host: str, port: int) -> str:
    """Where those who check tokens find the keys, unless they are told another place."""
    return f"https://[{host}]:{port}{_KEYS}" if ":" in host else f"https://{host}:{port}{_KEYS}"


def settings_of(config: ClusterConfig) -> ServerSettings:
    first, last = (int(part) for part in config.node_port_range.split("-"))
    issuer, pki = issuer_of(config), config.pki
    return ServerSettings(
        serving_certificate=pki / "apiserver.crt",
        serving_key=pki / "apiserver.key",
        signing_key=pki / "sa.key",
        issuers=(issuer,),
        api_audiences=(issuer,),
        advertise_address=config.advertise_address,
        port=config.port,
        service_cidr=config.service_cidr,
        client_ca=pki / "ca.crt",
        kubelets=KubeletAccess(
            pki / "ca.crt", pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key"
        ),
        front_proxy=FrontProxy(pki / f"{FRONT_PROXY_CLIENT}.crt", pki / f"{FRONT_PROXY_CLIENT}.key"),
        front_proxies=FrontProxies(pki / f"{FRONT_PROXY_CA}.crt", ProxyHeaders(allowed=(FRONT_PROXY_NAME,))),
        node_ports=range(first, last + 1),
        cluster_dns=config.cluster_dns,
        bootstrap_tokens=True,
        event_ttl_s=config.event_ttl_s,
        kubernetes_version=config.kubernetes_version,
        jwks_uri=jwks_uri(config.advertise_address, config.port),
        runtime_config=config.runtime_config,
        # Where there are no nodes, nothing is used.
        resource_metrics=config.runtime == "containerd" or config.nodes > 0,
    )
