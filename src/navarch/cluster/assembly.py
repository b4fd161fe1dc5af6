"""An API server put together: store, authentication, authorization, admission. The process of `navarch up` and the
cluster inside a test are both assembled here."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from hashlib import sha256
from ipaddress import ip_network

from navarch.api import schema
from navarch.api.meta import Obj
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.admission.chain import AdmissionConfig, default_chain
from navarch.apiserver.admission.webhooks import Webhooks
from navarch.apiserver.aggregation.aggregator import Aggregator
from navarch.apiserver.allocation.services import AllocationConfig
from navarch.apiserver.auth.authenticator import ClusterAuthenticator
from navarch.apiserver.auth.authorizer import ClusterAuthorizer
from navarch.apiserver.auth.node import NodeAuthorizer
from navarch.apiserver.auth.node_graph import NodeGraph
from navarch.apiserver.auth.rbac import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, RBACAuthorizer
from navarch.apiserver.auth.tokens import ServiceAccountTokens
from navarch.apiserver.bootstrap import BootstrapConfig
from navarch.apiserver.changes import Change
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS
from navarch.cluster.config import ClusterConfig
from navarch.cluster.pki import FRONT_PROXY_CA, FRONT_PROXY_CLIENT, FRONT_PROXY_NAME
from navarch.kinds.registry import builtin
from navarch.store.base import Store
from navarch.world import RealWorld, World

_FORGETTING = (SERVICE_ACCOUNTS, PODS, SECRETS, NODES)


def make_store(config: ClusterConfig, world: World) -> Store:
    """The backend that the configuration names."""
    if config.store == "memory":
        from navarch.store.memory import MemoryStore

        return MemoryStore(clock=world)
    if config.store.startswith("etcd:"):
        from navarch.store.etcd.store import EtcdStore
        from navarch.store.etcd.target import parse

        return EtcdStore(parse(config.store), owner=_owner(config), record=config.store_record, clock=world)
    from navarch.store.sqlite import SQLiteStore

    return SQLiteStore(config.database, record=config.store_record, clock=world)


def _owner(config: ClusterConfig) -> str:
    """What marks the objects of this cluster as its own: all its API servers have the same authority."""
    return f"{config.name} {sha256((config.pki / 'ca.crt').read_bytes()).hexdigest()[:32]}"


def issuer_of(config: ClusterConfig) -> str:
    return f"https://kubernetes.default.svc.{config.cluster_domain}"


def make_tokens(config: ClusterConfig, reader: Reader, world: World) -> ServiceAccountTokens:
    issuer = issuer_of(config)
    return ServiceAccountTokens(
        config.pki / "sa.key", issuer=issuer, api_audiences=[issuer], reader=reader, world=world
    )


class _NothingStored:
    """A reader for signing without an API server at hand."""

    def get(self, resource: object, namespace: str, name: str) -> Obj | None:
        return None

    def list(self, resource: object, namespace: str = "") -> Iterable[Obj]:
        return ()


def offline_tokens(config: ClusterConfig) -> ServiceAccountTokens:
    """For signing tokens that are bound to nothing but their account."""
    return make_tokens(config, _NothingStored(), RealWorld())


def allocation_config(config: ClusterConfig) -> AllocationConfig:
    first, last = (int(part) for part in config.node_port_range.split("-"))
    return AllocationConfig(
        service_cidr=config.service_cidr,
        node_ports=range(first, last + 1),
        cluster_dns=config.cluster_dns,
    )


def bootstrap_config(config: ClusterConfig) -> BootstrapConfig:
    return BootstrapConfig(
        advertise_address=config.advertise_address,
        port=config.port,
        service_address=first_service_address(config),
        service_cidr=config.service_cidr,
        client_ca=(config.pki / "ca.crt").read_text(),
        front_proxy_ca=(config.pki / f"{FRONT_PROXY_CA}.crt").read_text(),
        front_proxy_names=(FRONT_PROXY_NAME,),
    )


def _kubelet_tls(config: ClusterConfig) -> ssl.SSLContext:
    """How the API server speaks to kubelets: it shows its certificate and checks theirs against the cluster's CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(config.pki / "ca.crt")
    context.load_cert_chain(config.pki / "apiserver-kubelet-client.crt", config.pki / "apiserver-kubelet-client.key")
    return context


def make_server(
    config: ClusterConfig,
    *,
    store: Store | None = None,
    world: World | None = None,
    static_tokens: Mapping[str, User] | None = None,
) -> ApiServer:
    """A server that is not started yet; call `attach` after its start."""
    world = world or RealWorld(config.seed)
    version = config.kubernetes_version
    server = ApiServer(
        store or make_store(config, world),
        registry=builtin(schema.load(version)),
        kubernetes_version=version,
        world=world,
        event_ttl_s=config.event_ttl_s,
    )
    tokens = make_tokens(config, server.reader, world)
    core = server.core
    webhooks = Webhooks(core.caches, core.encodings, core.schemas, core.webhooks, world)
    core.metrics.parts.append(webhooks.metrics.lines)
    front_proxy = (config.pki / f"{FRONT_PROXY_CLIENT}.crt", config.pki / f"{FRONT_PROXY_CLIENT}.key")
    server.use(
        delegate=Aggregator(core, server.reader, server.writer, front_proxy),
        kubelet_tls=_kubelet_tls(config),
        allocation=allocation_config(config),
        authenticator=ClusterAuthenticator(tokens, static_tokens=static_tokens, clock=world),
        token_issuer=tokens,
        admission=default_chain(
            server.reader,
            server.writer,
            AdmissionConfig(),
            world,
            # Asked for at each call: the authorizer is attached after the start.
            authorize=lambda user, asked: server.core.authorizer.authorize(user, asked),
            rules=lambda user, namespace: server.core.authorizer.rules(user, namespace),
            webhooks=webhooks,
        ),
    )
    return server


def attach(server: ApiServer) -> None:
    """Authorization, which follows what the started server has in its caches."""
    reader = server.reader
    rbac = RBACAuthorizer(reader)
    server.use(authorizer=ClusterAuthorizer(rbac, NodeAuthorizer(NodeGraph(server.core.caches))))
    caches = server.core.caches
    for resource in (ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS):
        caches.of(resource).listeners.append(lambda _change: rbac.invalidate())
    authenticator = server.core.authenticator
    if isinstance(authenticator, ClusterAuthenticator):
        for resource in _FORGETTING:
            caches.of(resource).listeners.append(lambda change: _forget(authenticator, change))


def _forget(authenticator: ClusterAuthenticator, change: Change) -> None:
    if change.new is None:
        authenticator.forget()


def first_service_address(config: ClusterConfig) -> str:
    """The cluster IP of the Service `kubernetes`."""
    return str(ip_network(config.service_cidr.split(",")[0].strip())[1])
