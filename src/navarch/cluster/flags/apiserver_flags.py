"""kube-apiserver's flags, as v1.37 has them, and which of them change anything here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from navarch.cluster.flags.pflag import DURATION, LIST, NUMBER, SWITCH, TEXT, Flag

ABOUT: Final = "The Kubernetes API server validates and configures data for the api objects, and serves them."

_EFFECTIVE: Final[Mapping[str, str]] = {
    SWITCH: """
        anonymous-auth audit-log-compress disable-http2-serving enable-bootstrap-token-auth
        enable-priority-and-fairness encryption-provider-config-automatic-reload
    """,
    TEXT: """
        admission-control-config-file advertise-address audit-log-format audit-log-path audit-policy-file
        audit-webhook-config-file authentication-config authorization-config authorization-webhook-config-file
        authorization-webhook-version authentication-token-webhook-config-file
        authentication-token-webhook-version bind-address cert-dir client-ca-file oidc-ca-file oidc-client-id
        oidc-groups-claim oidc-groups-prefix oidc-issuer-url oidc-username-claim oidc-username-prefix
        proxy-client-cert-file proxy-client-key-file requestheader-client-ca-file encryption-provider-config
        etcd-cafile etcd-certfile etcd-keyfile etcd-prefix goaway-chance kubelet-certificate-authority
        kubelet-client-certificate kubelet-client-key service-account-jwks-uri service-account-signing-key-file
        service-cluster-ip-range service-node-port-range tls-cert-file tls-private-key-file token-auth-file
    """,
    NUMBER: """
        audit-log-maxage audit-log-maxbackup audit-log-maxsize audit-webhook-batch-buffer-size
        audit-webhook-batch-max-size http2-max-streams-per-connection max-mutating-requests-inflight
        max-requests-inflight secure-port
    """,
    DURATION: """
        audit-webhook-batch-max-wait audit-webhook-initial-backoff authentication-token-webhook-cache-ttl
        authorization-webhook-cache-authorized-ttl authorization-webhook-cache-unauthorized-ttl event-ttl
        shutdown-delay-duration
    """,
    LIST: """
        api-audiences authorization-mode disable-admission-plugins enable-admission-plugins etcd-servers feature-gates
        oidc-required-claim oidc-signing-algs requestheader-allowed-names requestheader-extra-headers-prefix
        requestheader-group-headers requestheader-uid-headers requestheader-username-headers runtime-config
        service-account-issuer service-account-key-file
    """,
}
_IDLE: Final[Mapping[str, str]] = {
    SWITCH: """
        aggregator-reject-forwarding-redirects allow-privileged audit-log-batch-throttle-enable
        audit-log-truncate-enabled audit-webhook-batch-throttle-enable audit-webhook-truncate-enabled
        contention-profiling emulation-forward-compatible enable-aggregator-routing
        enable-garbage-collector
        log-json-split-stream log-text-split-stream permit-address-sharing permit-port-sharing profiling
        runtime-config-emulation-forward-compatible service-account-extend-token-expiration
        service-account-lookup shutdown-send-retry-after watch-cache
    """,
    TEXT: """
        allow-metric-labels-manifest audit-log-batch-throttle-qps audit-log-mode audit-log-version
        audit-webhook-batch-throttle-qps audit-webhook-mode audit-webhook-version authorization-policy-file
        debug-socket-path egress-selector-config-file endpoint-reconciler-type external-hostname
        log-json-info-buffer-size log-text-info-buffer-size logging-format peer-advertise-ip peer-advertise-port
        peer-ca-file show-hidden-metrics-for-version storage-backend storage-media-type tls-min-version
        tracing-config-file vmodule
    """,
    NUMBER: """
        audit-log-batch-buffer-size audit-log-batch-max-size audit-log-batch-throttle-burst
        audit-log-truncate-max-batch-size audit-log-truncate-max-event-size audit-webhook-batch-throttle-burst
        audit-webhook-truncate-max-batch-size audit-webhook-truncate-max-event-size delete-collection-workers
        kubernetes-service-node-port lease-reuse-duration-seconds
        max-connection-bytes-per-sec min-request-timeout
    """,
    DURATION: """
        audit-log-batch-max-wait coordinated-leadership-lease-duration
        coordinated-leadership-lease-renew-deadline coordinated-leadership-lease-retry-period
        etcd-compaction-interval etcd-count-metric-poll-period etcd-db-metric-poll-interval
        etcd-healthcheck-timeout etcd-readycheck-timeout kubelet-timeout livez-grace-period log-flush-frequency
        request-timeout service-account-max-token-expiration
        shutdown-watch-termination-grace-period
    """,
    LIST: """
        admission-control allow-metric-labels cors-allowed-origins disabled-metrics emulated-version
        etcd-servers-overrides kubelet-preferred-address-types min-compatibility-version
        strict-transport-security-directives tls-cipher-suites
        tls-curve-preferences tls-sni-cert-key watch-cache-sizes
    """,
}


def _table() -> dict[str, Flag]:
    table = {
        "help": Flag("help", SWITCH, effective=True, short="h"),
        "version": Flag("version", SWITCH, effective=True),
        "v": Flag("v", NUMBER, short="v"),
    }
    for effective, groups in ((True, _EFFECTIVE), (False, _IDLE)):
        for type_, names in groups.items():
            table.update({name: Flag(name, type_, effective) for name in names.split()})
    return table


FLAGS: Final[Mapping[str, Flag]] = MappingProxyType(_table())
