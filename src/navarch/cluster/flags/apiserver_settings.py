"""kube-apiserver's flags as the settings of a server.

In: what a command line says.  Out: `ServerSettings`, where objects are kept and where to listen.  What cannot be
started is said in kube-apiserver's words, all of it at once.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

from navarch.apiserver.audit.log import LogSettings
from navarch.apiserver.auth.jwt_issuers import From, Issuer
from navarch.apiserver.auth.outbound import trusting
from navarch.apiserver.auth.proxy_headers import ProxyHeaders
from navarch.apiserver.user import User
from navarch.cluster.config import host_address
from navarch.cluster.flags.apiserver_flags import FLAGS
from navarch.cluster.flags.pflag import FlagError, Flags, parse
from navarch.cluster.settings import (
    AccessWebhookFile,
    AuditSettings,
    AuditWebhookFile,
    FrontProxies,
    FrontProxy,
    KubeletAccess,
    ServerSettings,
    TokenWebhookSettings,
    jwks_uri,
)
from navarch.records import frozen

_MODES: Final = ("ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook")
_PORT: Final = 6443
_CHANCE_MAX: Final = 0.02
_SERVICES: Final = "10.0.0.0/24"
_WEBHOOK_TTL_S: Final = 120.0
# Kubernetes' own, whether they run by default or are here at all.
_PLUGIN_NAMES: Final = """
    AlwaysAdmit AlwaysDeny AlwaysPullImages CertificateApproval CertificateSigning CertificateSubjectRestriction
    ClusterTrustBundleAttest DefaultIngressClass DefaultStorageClass DefaultTolerationSeconds
    DenyServiceExternalIPs EventRateLimit ExtendedResourceToleration ImagePolicyWebhook
    LimitPodHardAntiAffinityTopology LimitRanger MutatingAdmissionPolicy MutatingAdmissionWebhook
    NamespaceAutoProvision NamespaceExists NamespaceLifecycle NodeDeclaredFeatureValidator NodeRestriction
    OwnerReferencesPermissionEnforcement PersistentVolumeClaimResize PodNodeSelector PodResizeValidator PodSecurity
    PodTolerationRestriction PodTopologyLabels Priority ResourceQuota RuntimeClass ServiceAccount
    StorageObjectInUseProtection TaintNodesByCondition ValidatingAdmissionPolicy ValidatingAdmissionWebhook
"""
_PLUGINS: Final = frozenset(_PLUGIN_NAMES.split())
_LOG_FORMS: Final = ("legacy", "json")
_CERT_DIR: Final = "/var/run/kubernetes"


@frozen
class KubeApiServer:
    """`etcd` are the URLs of `--etcd-servers`, `etcd_files` its CA, certificate and key, empty where there are none."""

    server: ServerSettings
    bind_address: str
    cert_dir: Path
    etcd: tuple[str, ...]
    etcd_prefix: str
    etcd_files: Mapping[str, str]


def from_flags(flags: Flags) -> KubeApiServer:
    """Raises FlagError."""
    if flags.arguments:
        shown = " ".join(f'"{argument}"' for argument in flags.arguments)
        raise FlagError(f"kube-apiserver does not take any arguments, got [{shown}]")
    if problems := list(_problems(flags)):
        raise FlagError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    bind = flags.text("bind-address", "0.0.0.0")
    cert_dir = Path(flags.text("cert-dir", _CERT_DIR))
    return KubeApiServer(
        server=_server(flags, bind, cert_dir),
        bind_address=bind,
        cert_dir=cert_dir,
        etcd=flags.texts("etcd-servers"),
        etcd_prefix=flags.text("etcd-prefix", "/registry"),
        etcd_files={
            option: flags.text(name)
            for option, name in (("ca", "etcd-cafile"), ("cert", "etcd-certfile"), ("key", "etcd-keyfile"))
            if flags.text(name)
        },
    )


def _problems(flags: Flags) -> Iterable[str]:
    if not flags.texts("etcd-servers"):
        yield "--etcd-servers must be specified"
    port = flags.number("secure-port", _PORT)
    if not 1 <= port <= 65535:
        yield f"--secure-port {port} must be between 1 and 65535, inclusive. It cannot be turned off with 0"
    if not flags.texts("service-account-issuer"):
        yield "service-account-issuer is a required flag"
    if not flags.texts("service-account-issuer") or not flags.text("service-account-signing-key-file"):
        yield "--service-account-signing-key-file and --service-account-issuer are required flags"
    try:
        _chance(flags, "goaway-chance")
    except FlagError as error:
        yield str(error)
    yield from _plugin_problems(flags)
    if "Webhook" in flags.texts("authorization-mode") and not flags.text("authorization-webhook-config-file"):
        yield "authorization-mode Webhook's authorization config file not passed"
    yield from _conflicts(flags)
    for mode in flags.texts("authorization-mode"):
        if mode not in _MODES:
            yield f'authorization-mode "{mode}" is not a valid mode'
    try:
        for part in flags.text("service-cluster-ip-range", _SERVICES).split(","):
            ip_network(part.strip())
    except ValueError:
        yield "--service-cluster-ip-range must be a valid cidr"
    if _ports(flags) is None:
        stated = flags.text("service-node-port-range")
        yield f'--service-node-port-range "{stated}" is not a valid port range'


def _conflicts(flags: Flags) -> Iterable[str]:
    """What a file says, flags cannot say too."""
    if flags.text("authentication-config") and any(name.startswith("oidc-") for name in flags.values):
        yield "authentication-config file and oidc-* flags are mutually exclusive"
    if flags.text("authorization-config"):
        for name in flags.values:
            if name == "authorization-mode" or name.startswith("authorization-webhook-"):
                yield f"--authorization-config can not be specified when --{name} is defined"
    elif flags.text("authorization-webhook-config-file") and "Webhook" not in flags.texts("authorization-mode"):
        yield "cannot specify --authorization-webhook-config-file without mode Webhook"
    if flags.switch("encryption-provider-config-automatic-reload") and not flags.text("encryption-provider-config"):
        yield "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"


def _plugin_problems(flags: Flags) -> Iterable[str]:
    enabled, disabled = flags.texts("enable-admission-plugins"), flags.texts("disable-admission-plugins")
    for name, stated in (("enable-admission-plugins", enabled), ("disable-admission-plugins", disabled)):
        for plugin in stated:
            if plugin not in _PLUGINS:
                yield f'{name} plugin "{plugin}" is unknown'
    if both := [plugin for plugin in enabled if plugin in disabled]:
        yield f"[{' '.join(both)}] in enable-admission-plugins and disable-admission-plugins overlapped"


def _ports(flags: Flags) -> range | None:
    first, dash, last = flags.text("service-node-port-range", "30000-32767").partition("-")
    plus = first.partition("+")
    try:
        if plus[1]:
            return range(int(plus[0]), int(plus[0]) + int(plus[2]) + 1)
        found = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        return None
    return found if found.start > 0 and found.stop <= 65536 and len(found) else None


def _server(flags: Flags, bind: str, cert_dir: Path) -> ServerSettings:
    issuers = flags.texts("service-account-issuer")
    host, port = flags.text("advertise-address") or _advertised(bind), flags.number("secure-port", _PORT)
    given = ServerSettings(
        serving_certificate=cert_dir / "apiserver.crt",
        serving_key=cert_dir / "apiserver.key",
        signing_key=Path(flags.text("service-account-signing-key-file")),
        issuers=issuers,
        api_audiences=issuers[:1],
        advertise_address=host,
        port=port,
        jwks_uri=jwks_uri(host, port),
        service_cidr=flags.text("service-cluster-ip-range", _SERVICES),
        authorization_modes=("AlwaysAllow",),
    )
    return changed(given, flags)


def changed(settings: ServerSettings, flags: Flags) -> ServerSettings:
    """Settings, with what flags say otherwise.  Raises FlagError."""
    stated = flags.values.keys()
    changes: dict[str, Any] = {}
    for name, (setting, convert) in _CHANGES.items():
        if name in stated:
            changes[setting] = convert(flags, name)
    if (kubelets := _kubelets(flags)) is not None:
        changes["kubelets"] = kubelets
    if flags.text("oidc-issuer-url"):
        changes["issuers_of_flags"] = (_oidc(flags),)
    if flags.text("authentication-token-webhook-config-file"):
        changes["token_webhook"] = TokenWebhookSettings(
            Path(flags.text("authentication-token-webhook-config-file")),
            flags.text("authentication-token-webhook-version", "v1beta1"),
            flags.seconds("authentication-token-webhook-cache-ttl", _WEBHOOK_TTL_S),
        )
    if flags.text("authorization-webhook-config-file"):
        changes["access_webhook"] = AccessWebhookFile(
            Path(flags.text("authorization-webhook-config-file")),
            flags.text("authorization-webhook-version", "v1beta1"),
            flags.seconds("authorization-webhook-cache-authorized-ttl", 300.0),
            flags.seconds("authorization-webhook-cache-unauthorized-ttl", 30.0),
        )
    if flags.text("proxy-client-cert-file"):
        files = Path(flags.text("proxy-client-cert-file")), Path(flags.text("proxy-client-key-file"))
        changes["front_proxy"] = FrontProxy(*files)
    if flags.text("requestheader-client-ca-file"):
        headers = ProxyHeaders(
            allowed=flags.texts("requestheader-allowed-names"),
            username=flags.texts("requestheader-username-headers"),
            group=flags.texts("requestheader-group-headers"),
            extra_prefix=flags.texts("requestheader-extra-headers-prefix"),
            uid=flags.texts("requestheader-uid-headers"),
        )
        changes["front_proxies"] = FrontProxies(Path(flags.text("requestheader-client-ca-file")), headers)
    if flags.text("audit-policy-file"):
        changes["audit"] = _audit(flags)
    return replace(settings, **changes)


def _oidc(flags: Flags) -> Issuer:
    """One issuer, as the older flags say it.  Raises FlagError."""
    url, client = flags.text("oidc-issuer-url"), flags.text("oidc-client-id")
    if not client:
        raise FlagError("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set")
    claim = flags.text("oidc-username-claim", "sub")
    prefix = flags.text("oidc-username-prefix") or ("" if claim == "email" else f"{url}#")
    bundle = Path(flags.text("oidc-ca-file")).read_text() if flags.text("oidc-ca-file") else ""
    required = dict(pair.split("=", 1) for pair in flags.texts("oidc-required-claim") if "=" in pair)
    return Issuer(
        url,
        (client,),
        From(claim, "" if prefix == "-" else prefix),
        context=trusting(bundle),
        algorithms=flags.texts("oidc-signing-algs") or ("RS256",),
        groups=From(flags.text("oidc-groups-claim"), flags.text("oidc-groups-prefix")),
        required=required,
    )


def _path(flags: Flags, name: str) -> Path | None:
    return Path(flags.text(name)) if flags.text(name) else None


def _node_ports(flags: Flags, name: str) -> range:
    ports = _ports(flags)
    if ports is None:
        raise FlagError(f'--{name} "{flags.text(name)}" is not a valid port range')
    return ports


def _chance(flags: Flags, name: str) -> float:
    """Raises FlagError."""
    stated = flags.text(name, "0")
    try:
        chance = float(stated)
    except ValueError:
        why = f'strconv.ParseFloat: parsing "{stated}": invalid syntax'
        raise FlagError(f'invalid argument "{stated}" for "--{name}" flag: {why}') from None
    if not 0 <= chance <= _CHANCE_MAX:
        raise FlagError(f"--{name} can not be less than 0 or greater than {_CHANCE_MAX}")
    return chance


# The setting that a flag changes, and how.
_CHANGES: Final[Mapping[str, tuple[str, Callable[[Flags, str], Any]]]] = {
    "admission-control-config-file": ("admission", _path),
    "anonymous-auth": ("anonymous", lambda flags, name: flags.switch(name, default=True)),
    "api-audiences": ("api_audiences", Flags.texts),
    "authentication-config": ("authentication", _path),
    "authorization-config": ("authorization", _path),
    "authorization-mode": ("authorization_modes", Flags.texts),
    "client-ca-file": ("client_ca", _path),
    "disable-admission-plugins": ("disabled_plugins", lambda flags, name: frozenset(flags.texts(name))),
    "disable-http2-serving": ("http2", lambda flags, name: not flags.switch(name)),
    "enable-admission-plugins": ("enabled_plugins", lambda flags, name: frozenset(flags.texts(name))),
    "enable-bootstrap-token-auth": ("bootstrap_tokens", Flags.switch),
    "encryption-provider-config": ("encryption", _path),
    "encryption-provider-config-automatic-reload": ("encryption_reloads", Flags.switch),
    "enable-priority-and-fairness": ("fairness", Flags.switch),
    "event-ttl": ("event_ttl_s", Flags.seconds),
    "feature-gates": ("feature_gates", Flags.texts),
    "goaway-chance": ("goaway_chance", _chance),
    "http2-max-streams-per-connection": ("http2_streams", Flags.number),
    "max-mutating-requests-inflight": ("writing_in_flight", Flags.number),
    "max-requests-inflight": ("reading_in_flight", Flags.number),
    "runtime-config": ("runtime_config", lambda flags, name: ",".join(flags.texts(name))),
    "shutdown-delay-duration": ("shutdown_delay_s", Flags.seconds),
    "service-account-jwks-uri": ("jwks_uri", Flags.text),
    "service-account-key-file": ("token_keys", lambda flags, name: tuple(map(Path, flags.texts(name)))),
    "service-node-port-range": ("node_ports", _node_ports),
    "tls-cert-file": ("serving_certificate", _path),
    "tls-private-key-file": ("serving_key", _path),
    "token-auth-file": ("static_tokens", lambda flags, name: static_tokens(Path(flags.text(name)))),
}


# What the API server of a cluster can be told beyond what the cluster itself settles.
_FOR_CLUSTERS: Final = """
    admission-control-config-file
    anonymous-auth api-audiences authentication-config authorization-config authorization-mode disable-admission-plugins
    disable-http2-serving enable-admission-plugins enable-bootstrap-token-auth enable-priority-and-fairness
    encryption-provider-config encryption-provider-config-automatic-reload feature-gates goaway-chance
    http2-max-streams-per-connection max-mutating-requests-inflight max-requests-inflight service-account-jwks-uri
    service-account-key-file token-auth-file
"""
CLUSTER_FLAGS: Final = frozenset(
    (
        *_FOR_CLUSTERS.split(),
        *(
            name
            for name in FLAGS
            if name.startswith(("audit-", "oidc-", "authentication-token-webhook-", "authorization-webhook-"))
            and FLAGS[name].effective
        ),
    )
)


def cluster_flags(stated: Mapping[str, str]) -> Flags:
    """What a cluster's configuration says by kube-apiserver's names.  Raises FlagError."""
    if unknown := sorted(name for name in stated if name not in CLUSTER_FLAGS):
        raise FlagError(f"--{unknown[0]} is no flag that can be set here; these are {', '.join(sorted(CLUSTER_FLAGS))}")
    flags = parse(FLAGS, [f"--{name}={value}" for name, value in stated.items()])
    if problems := list(_conflicts(flags)):
        raise FlagError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return flags


def _audit(flags: Flags) -> AuditSettings:
    form = flags.text("audit-log-format", "json")
    if form not in _LOG_FORMS:
        raise FlagError(f"invalid audit log format {form}, allowed formats are {','.join(_LOG_FORMS)!r}")
    log = webhook = None
    if path := flags.text("audit-log-path"):
        log = LogSettings(
            path,
            form,
            flags.number("audit-log-maxage"),
            flags.number("audit-log-maxbackup"),
            flags.number("audit-log-maxsize"),
            flags.switch("audit-log-compress"),
        )
    if kubeconfig := flags.text("audit-webhook-config-file"):
        webhook = AuditWebhookFile(
            Path(kubeconfig),
            flags.number("audit-webhook-batch-buffer-size", 10_000),
            flags.number("audit-webhook-batch-max-size", 400),
            flags.seconds("audit-webhook-batch-max-wait", 30.0),
            flags.seconds("audit-webhook-initial-backoff", 10.0),
        )
    return AuditSettings(Path(flags.text("audit-policy-file")), log, webhook)


def _kubelets(flags: Flags) -> KubeletAccess | None:
    names = ("kubelet-certificate-authority", "kubelet-client-certificate", "kubelet-client-key")
    stated = [Path(flags.text(name)) for name in names if flags.text(name)]
    return KubeletAccess(*stated) if len(stated) == len(names) else None


def _advertised(bind: str) -> str:
    return host_address() if ip_address(bind).is_unspecified else bind


def static_tokens(path: Path) -> dict[str, User]:
    """The users of a token file: `token,user,uid,"group1,group2"` a line.  Raises FlagError."""
    users: dict[str, User] = {}
    try:
        with path.open(newline="") as file:
            for record in csv.reader(file, skipinitialspace=True):
                if not record:
                    continue
                if len(record) < 3:
                    raise FlagError(
                        f"token file '{os.fspath(path)}' must have at least 3 columns (token, user name, user uid), "
                        f"found {len(record)}"
                    )
                token, name, uid, *groups = record
                named = tuple(group for group in (groups[0] if groups else "").split(",") if group)
                if token and token not in users:
                    users[token] = User(name, named, uid)
    except OSError as error:
        raise FlagError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    return users
