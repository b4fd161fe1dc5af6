"""An API server put together: store, authentication, authorization, admission. The process of `navarch up` and the
cluster inside a test are both assembled here."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from navarch.api import schema
from navarch.api.features import ACTING, FeatureError, Features, number_of
from navarch.api.features import parse as parse_features
from navarch.api.meta import Obj
from navarch.apiserver.admission import configuration
from navarch.apiserver.admission.base import Reader
from navarch.apiserver.admission.chain import AdmissionConfig, default_chain
from navarch.apiserver.admission.configuration import PodSecurityConfig
from navarch.apiserver.admission.policies import Policies
from navarch.apiserver.admission.versions import Versions
from navarch.apiserver.admission.webhooks import Webhooks
from navarch.apiserver.aggregation.aggregator import Aggregator
from navarch.apiserver.allocation.services import AllocationConfig
from navarch.apiserver.audit import policy
from navarch.apiserver.audit.log import AuditLog
from navarch.apiserver.audit.trail import Auditing, Sink, Sinks
from navarch.apiserver.audit.webhook import AuditWebhook, WebhookSettings
from navarch.apiserver.auth import authentication_config, authorization_config
from navarch.apiserver.auth.access_webhook import AccessWebhook, AccessWebhookSettings, InOrder, Plain, Step
from navarch.apiserver.auth.authentication_config import (
    AnonymousAccess,
    AuthenticationConfiguration,
    AuthenticationError,
)
from navarch.apiserver.auth.authenticator import ClusterAuthenticator, TokenSource
from navarch.apiserver.auth.authorizer import DEFAULT_MODES, ClusterAuthorizer
from navarch.apiserver.auth.base import Decision
from navarch.apiserver.auth.bootstrap_tokens import BootstrapTokens
from navarch.apiserver.auth.jwt_issuers import JWTIssuers
from navarch.apiserver.auth.legacy_tokens import LastUse
from navarch.apiserver.auth.node import NodeAuthorizer
from navarch.apiserver.auth.node_graph import NodeGraph
from navarch.apiserver.auth.proxy_headers import ProxyHeaders
from navarch.apiserver.auth.rbac import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, RBACAuthorizer
from navarch.apiserver.auth.token_webhook import TokenWebhook
from navarch.apiserver.auth.tokens import ServiceAccountTokens
from navarch.apiserver.bootstrap import BootstrapConfig
from navarch.apiserver.changes import Change
from navarch.apiserver.core import Core
from navarch.apiserver.housekeeping import Chore
from navarch.apiserver.policies.params import Params
from navarch.apiserver.policies.requests import Requests
from navarch.apiserver.policies.typechecking import SWEEP_EVERY_S, TypeChecking
from navarch.apiserver.server import ApiServer
from navarch.apiserver.usage.api import ResourceMetrics
from navarch.apiserver.usage.collector import Collector
from navarch.apiserver.usage.figures import Figures
from navarch.apiserver.user import LOOPBACK
from navarch.client import config as client_config
from navarch.client.base import Client
from navarch.client.config import Target, load_target
from navarch.client.local import LocalTransport
from navarch.client.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS
from navarch.cluster.config import ClusterConfig, ConfigError
from navarch.cluster.flags.apiserver_settings import changed, cluster_flags
from navarch.cluster.flags.pflag import FlagError
from navarch.cluster.reloading import ConfigFile
from navarch.cluster.settings import AuditSettings, KubeletAccess, ServerSettings, settings_of
from navarch.kinds import enablement
from navarch.kinds.registry import Registry, builtin
from navarch.sim.usage import usage_of
from navarch.store.base import Store
from navarch.store.encryption.config import Encryption, EncryptionError
from navarch.store.encryption.config import read as read_encryption
from navarch.store.encryption.store import EncryptedStore
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)

# What a configuration that is read again cannot begin or end.
_BUILT_IN: Final = frozenset({"Node", "RBAC"})
_GATED_PLUGINS: Final = {
    "DRAResourceClaimGranularStatusAuthorization": "DRAResourceClaimGranularStatusAuthorization",
    "MutatingAdmissionPolicy": "MutatingAdmissionPolicy",
    "NodeDeclaredFeatures": "NodeDeclaredFeatureValidator",
    "PodTopologyLabelsAdmission": "PodTopologyLabels",
}
# The first version that holds resizes against nodes.
_RESIZES_LOOKED_AT: Final = (1, 36)
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


def make_tokens(
    settings: ServerSettings, reader: Reader, world: World, last_use: LastUse | None = None
) -> ServiceAccountTokens:
    return ServiceAccountTokens(
        settings.signing_key,
        issuers=settings.issuers,
        api_audiences=settings.api_audiences,
        reader=reader,
        world=world,
        more_keys=settings.token_keys,
        public_url=settings.jwks_uri,
        last_use=last_use,
    )


class _NothingStored:
    """A reader for signing without an API server at hand."""

    def get(self, resource: object, namespace: str, name: str) -> Obj | None:
        return None

    def list(self, resource: object, namespace: str = "") -> Iterable[Obj]:
        return ()


def offline_tokens(config: ClusterConfig) -> ServiceAccountTokens:
    """For signing tokens that are bound to nothing but their account."""
    return make_tokens(settings_of(config), _NothingStored(), RealWorld())


def flags_of(settings: ServerSettings) -> dict[str, str]:
    """The settings by the names that kube-apiserver's flags have."""
    return {
        "advertise-address": settings.advertise_address,
        "api-audiences": ",".join(settings.api_audiences),
        "authorization-mode": ",".join(settings.authorization_modes),
        "client-ca-file": str(settings.client_ca or ""),
        "event-ttl": f"{settings.event_ttl_s:g}s",
        "feature-gates": ",".join(settings.feature_gates),
        "runtime-config": settings.runtime_config,
        "secure-port": str(settings.port),
        "service-account-issuer": ",".join(settings.issuers),
        "service-cluster-ip-range": settings.service_cidr,
        "service-node-port-range": f"{settings.node_ports.start}-{settings.node_ports.stop - 1}",
        "tls-cert-file": str(settings.serving_certificate),
        "tls-private-key-file": str(settings.serving_key),
    }


def bootstrap_config(settings: ServerSettings) -> BootstrapConfig:
    proxies = settings.front_proxies
    return BootstrapConfig(
        advertise_address=settings.advertise_address,
        port=settings.port,
        service_address=settings.service_address,
        service_cidr=settings.service_cidr,
        client_ca=settings.client_ca.read_text() if settings.client_ca is not None else "",
        front_proxy_ca=proxies.ca.read_text() if proxies is not None else "",
        front_proxy_headers=proxies.headers if proxies is not None else ProxyHeaders(),
    )


def _kubelet_tls(kubelets: KubeletAccess) -> ssl.SSLContext:
    """How the API server speaks to kubelets: it shows its certificate and checks theirs against their CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(kubelets.ca)
    context.load_cert_chain(kubelets.certificate, kubelets.key)
    return context


def make_server(config: ClusterConfig, *, store: Store | None = None, world: World | None = None) -> ApiServer:
    """A cluster's server that is not started yet; call `attach` after its start."""
    world = world or RealWorld(config.seed)
    return assemble(server_settings(config), store or make_store(config, world), world)


def server_settings(config: ClusterConfig) -> ServerSettings:
    """A cluster's, with what its configuration says by kube-apiserver's flags.  Raises ConfigError."""
    try:
        return changed(settings_of(config), cluster_flags(config.apiserver_flags))
    except FlagError as error:
        raise ConfigError(str(error)) from None


def _registry(settings: ServerSettings, features: Features) -> Registry:
    try:
        wanted = enablement.parse([settings.runtime_config])
        return builtin(schema.load(settings.kubernetes_version), wanted, features)
    except ValueError as error:
        raise ConfigError(f"--runtime-config: {error}") from None


def assemble(settings: ServerSettings, store: Store, world: World) -> ApiServer:
    """A server that is not started yet; call `attach` after its start.  Raises ConfigError where the runtime
    configuration names versions that there are not."""
    version = settings.kubernetes_version
    features = _features(settings)
    kept = _encrypted(store, settings.encryption)
    server = ApiServer(
        kept,
        registry=_registry(settings, features),
        kubernetes_version=version,
        world=world,
        event_ttl_s=settings.event_ttl_s,
        in_flight=(settings.reading_in_flight, settings.writing_in_flight),
        fairness=settings.fairness,
    )
    server.show_flags(flags_of(settings))
    server.core.features = features
    server.core.metrics.parts.append(features.lines)
    tokens = make_tokens(settings, server.reader, world, LastUse(server.writer, world))
    core, proxy = server.core, settings.front_proxy

    nodes = core.caches.of(NODES)
    versions = Versions(core.encodings, core.schemas)
    types = TypeChecking(lambda: core.served, Client(LocalTransport(server.as_user(LOOPBACK))))
    requests = Requests(server.reader, versions, core.decide_at_once, core.decide, world)
    policies = Policies(core.caches, versions, requests, Params(lambda: core.served, core.encodings), types)
    spares_reviews = features.on("ExcludeAdmissionWebhookVirtualResources")
    webhooks = Webhooks(core.caches, versions, requests, core.webhooks, world, spares_reviews=spares_reviews)
    front_proxy = (proxy.certificate, proxy.key) if proxy is not None else None
    embedded = [_resource_metrics(core, world)] if settings.resource_metrics else []
    aggregator = Aggregator(core, server.reader, server.writer, front_proxy, embedded)
    core.metrics.parts += (webhooks.metrics.lines, policies.metrics.lines, aggregator.lines)
    auditing = _auditing(settings.audit, world) if settings.audit is not None else None
    if auditing is not None:
        core.metrics.parts.append(auditing.lines)
    server.use(
        delegate=aggregator,
        auditing=auditing,
        kubelet_tls=_kubelet_tls(settings.kubelets) if settings.kubelets is not None else None,
        allocation=AllocationConfig(settings.service_cidr, settings.node_ports, settings.cluster_dns),
        authenticator=_authenticator(settings, features, tokens, server.reader, world),
        token_issuer=tokens,
        admission=default_chain(
            server.reader,
            server.writer,
            _admission(settings, features),
            world,
            authorize=core.decide,
            rules=lambda user, namespace: server.core.authorizer.rules(user, namespace),
            policies=policies,
            webhooks=webhooks,
            labels_of_node=lambda name: nodes.labels_of(name),
        ),
    )
    server.chores.append(Chore("types of policies", SWEEP_EVERY_S, types.sweep))
    if isinstance(kept, EncryptedStore):
        _watch_encryption(server, kept, settings)
    if (file := settings.authentication) is not None:

        async def reauthenticate() -> None:
            server.use(authenticator=_authenticator(settings, features, tokens, server.reader, world))

        _follow(server, ConfigFile("authentication", file, reauthenticate, world))
    return server


def _follow(server: ApiServer, file: ConfigFile) -> None:
    server.chores.append(file.chore)
    server.core.metrics.parts.append(file.lines)


def _watch_encryption(server: ApiServer, store: EncryptedStore, settings: ServerSettings) -> None:
    """Its key management services among the health checks, and its file read again if that is wanted."""
    file, caches = settings.encryption, server.core.caches
    assert file is not None
    store.readable_again = caches.read_again

    async def problems() -> str:
        return "; ".join(f"{kms.name}: {kms.problem}" for kms in store.services if kms.problem)

    async def problem(number: int) -> str:
        return store.services[number].problem

    if settings.encryption_reloads:

        async def use() -> None:
            await store.use(_encryption(file))

        _follow(server, ConfigFile("encryption", file, use, server.core.world))
        server.add_check("kms-providers", problems)
        return
    for number in range(len(store.services)):
        server.add_check(f"kms-provider-{number}", partial(problem, number))


def _resource_metrics(core: Core, world: World) -> ResourceMetrics:
    # In a world of its own time there are no sockets, nor nodes that could be asked by them.
    collector = Collector(core) if isinstance(world, RealWorld) else None
    return ResourceMetrics(core, Figures(core, collector, usage_of), collector)


def _features(settings: ServerSettings) -> Features:
    """Raises ConfigError."""
    try:
        features = parse_features(settings.feature_gates, settings.kubernetes_version)
    except FeatureError as error:
        stated = ",".join(settings.feature_gates)
        raise ConfigError(f'invalid argument "{stated}" for "--feature-gates" flag: {error}') from None
    for name in sorted(features.changed.keys() - ACTING):
        log.info("the feature gate %s changes nothing here", name)
    return features


def _encrypted(store: Store, configuration: Path | None) -> Store:
    """Raises ConfigError."""
    if configuration is None:
        return store
    return EncryptedStore(store, _encryption(configuration))


def _encryption(file: Path) -> Encryption:
    """Raises ConfigError."""
    try:
        return read_encryption(file)
    except EncryptionError as error:
        raise ConfigError(f"error while parsing encryption configuration: {error}") from None


def _authenticator(
    settings: ServerSettings, features: Features, tokens: ServiceAccountTokens, reader: Reader, world: World
) -> ClusterAuthenticator:
    """Raises ConfigError."""
    sources: list[TokenSource] = []
    if settings.bootstrap_tokens:
        sources.append(BootstrapTokens(reader, world))
    try:
        file = settings.authentication
        own = settings.issuers
        configured = authentication_config.read(file, own) if file is not None else AuthenticationConfiguration()
    except AuthenticationError as error:
        raise ConfigError(str(error)) from None
    if issuers := (*settings.issuers_of_flags, *configured.issuers):
        sources.append(JWTIssuers(issuers, world))
    if (webhook := settings.token_webhook) is not None:
        target = _target(webhook.kubeconfig, "authentication-token-webhook-config-file")
        sources.append(TokenWebhook(target, webhook.version, webhook.ttl_s, world))
    anonymous = configured.anonymous or AnonymousAccess(settings.anonymous)
    return ClusterAuthenticator(
        tokens,
        static_tokens=settings.static_tokens,
        anonymous=anonymous.enabled,
        anonymous_paths=anonymous.paths,
        sources=sources,
        clock=world,
        certificate_uids=features.on("AllowParsingUserUIDFromCertAuth"),
        proxies=settings.front_proxies.headers if settings.front_proxies is not None else None,
    )


def _admission(settings: ServerSettings, features: Features) -> AdmissionConfig:
    """Raises ConfigError."""
    file = settings.admission
    try:
        pods = configuration.read(file) if file is not None else PodSecurityConfig()
    except configuration.AdmissionConfigError as error:
        raise ConfigError(f"failed to read plugin config: {error}") from None
    off = {plugin for gate, plugin in _GATED_PLUGINS.items() if not features.on(gate)}
    if number_of(settings.kubernetes_version) < _RESIZES_LOOKED_AT:
        off.add("PodResizeValidator")
    audiences = features.on("ServiceAccountNodeAudienceRestriction")
    return AdmissionConfig(settings.disabled_plugins | off, settings.enabled_plugins, pods, node_audiences=audiences)


def _auditing(settings: AuditSettings, world: World) -> Auditing | None:
    """None where nobody is told.  Raises ConfigError for a policy that is none."""
    try:
        rules = policy.read(settings.policy)
    except policy.PolicyError as error:
        raise ConfigError(f"loading audit policy file: {error}") from None
    sinks: list[Sink] = []
    if settings.log is not None:
        sinks.append(AuditLog(settings.log, world))
    if (file := settings.webhook) is not None:
        target = _target(file.kubeconfig, "audit-webhook-config-file")
        sinks.append(AuditWebhook(WebhookSettings(target, file.buffer, file.most, file.wait_s, file.backoff_s)))
    return Auditing(rules, Sinks(sinks), world) if sinks else None


def _target(kubeconfig: Path, flag: str) -> Target:
    """Raises ConfigError."""
    try:
        return load_target(kubeconfig)
    except client_config.ConfigError as error:
        raise ConfigError(f"--{flag}: {error}") from None


def attach(server: ApiServer, settings: ServerSettings | None = None) -> None:
    """Authorization, which follows what the started server has in its caches.  Raises ConfigError."""
    order: list[authorization_config.Authorizer] = [*(settings.authorization_modes if settings else DEFAULT_MODES)]
    if settings is not None and settings.authorization is not None:
        order = _authorizers(settings.authorization)
    rbac = RBACAuthorizer(server.reader)
    nodes = NodeAuthorizer(NodeGraph(server.core.caches)) if "Node" in order else None
    _authorize(server, order, settings, nodes, rbac)
    if settings is not None and settings.authorization is not None:
        file, first = settings.authorization, _BUILT_IN & {each for each in order if isinstance(each, str)}

        async def reauthorize() -> None:
            changed = _authorizers(file)
            if _BUILT_IN & {each for each in changed if isinstance(each, str)} != first:
                raise ConfigError("authorizers of the types Node and RBAC can be reordered, but not added or removed")
            _authorize(server, changed, settings, nodes, rbac)

        followed = ConfigFile("authorization", file, reauthorize, server.core.world)
        server.keep(followed.chore)
        server.core.metrics.parts.append(followed.lines)
    caches = server.core.caches
    for resource in (ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS):
        caches.of(resource).listeners.append(lambda _change: rbac.invalidate())
    authenticator = server.core.authenticator
    if isinstance(authenticator, ClusterAuthenticator):
        for resource in _FORGETTING:
            caches.of(resource).listeners.append(lambda change: _forget(authenticator, change))


def _authorizers(file: Path) -> list[authorization_config.Authorizer]:
    """Raises ConfigError."""
    try:
        return authorization_config.read(file)
    except authorization_config.AuthorizationError as error:
        raise ConfigError(str(error)) from None


def _authorize(
    server: ApiServer,
    order: Sequence[authorization_config.Authorizer],
    settings: ServerSettings | None,
    nodes: NodeAuthorizer | None,
    rbac: RBACAuthorizer,
) -> None:
    """Have these decide from now on.  Raises ConfigError."""
    modes = [each for each in order if isinstance(each, str)]
    deciding = None
    if (settings is not None and len(modes) < len(order)) or "Webhook" in modes:
        assert settings is not None
        deciding = _in_order(order, settings, server.core.world, nodes, rbac)
    server.use(authorizer=ClusterAuthorizer(rbac, nodes, modes))
    server.core.deciding = deciding


def _in_order(
    order: Sequence[authorization_config.Authorizer],
    settings: ServerSettings,
    world: World,
    nodes: NodeAuthorizer | None,
    rbac: RBACAuthorizer,
) -> InOrder:
    """Raises ConfigError."""
    steps: list[Step] = []
    for each in order:
        if isinstance(each, AccessWebhookSettings):
            steps.append(AccessWebhook(each, world))
        elif each == "Webhook" and (file := settings.access_webhook) is not None:
            target = _target(file.kubeconfig, "authorization-webhook-config-file")
            stated = AccessWebhookSettings("default", target, file.version, file.authorized_s, file.unauthorized_s)
            steps.append(AccessWebhook(stated, world))
        elif each == "Node" and nodes is not None:
            steps.append(Plain(lambda user, asked: nodes.authorize(user, asked) if asked.resource else Decision(False)))
        elif each == "RBAC":
            steps.append(Plain(rbac.authorize))
        elif each == "AlwaysAllow":
            steps.append(Plain(lambda user, asked: Decision(True)))
    return InOrder(steps)


def _forget(authenticator: ClusterAuthenticator, change: Change) -> None:
    if change.new is None:
        authenticator.forget()
