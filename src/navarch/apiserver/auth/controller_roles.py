"""The role of each controller (`system:controller:…`): what it reads and writes, and nothing more.

As in Kubernetes each role is bound to a service account of its own in kube-system. Navarch's controllers share one
process and so one identity, `system:kube-controller-manager`, which has what all of them have by a role of Navarch's
own (`controllers_together`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from navarch.api.meta import Obj
from navarch.apiserver.auth.roles import EVENTS, READ, Serves, cluster_role, rule

TOGETHER: Final = "navarch:controllers"
_CERTS = "certificates.k8s.io"
_PODS = rule("create delete list patch watch", "pods")

# controller -> its rules
_ROLES: Final[dict[str, tuple[list[Obj], ...]]] = {
    "attachdetach-controller": (
        rule("list watch", "persistentvolumes persistentvolumeclaims"),
        rule(READ, "nodes"),
        rule("patch update", "nodes/status"),
        rule("list watch", "pods"),
        EVENTS,
        rule("create delete get list watch", "storage:volumeattachments"),
        rule(READ, "storage:csidrivers"),
        rule(READ, "storage:csinodes"),
    ),
    "clusterrole-aggregation-controller": (
        rule("escalate get list patch update watch", "rbac:clusterroles"),
    ),
    "cronjob-controller": (
        rule("get list update watch", "batch:cronjobs"),
        rule("create delete get list patch update watch", "batch:jobs"),
        rule("update", "batch:cronjobs/status"),
        rule("update", "batch:cronjobs/finalizers"),
        rule("delete list watch", "pods"),
        EVENTS,
    ),
    "daemon-set-controller": (
        rule(READ, "apps+extensions:daemonsets"),
        rule("update", "apps+extensions:daemonsets/status"),
        rule("update", "apps+extensions:daemonsets/finalizers"),
        rule("list watch", "nodes"),
        _PODS,
        rule("create", "pods/binding"),
        rule("create delete get list patch update watch", "apps:controllerrevisions"),
        EVENTS,
    ),
    "deployment-controller": (
        rule("get list update watch", "apps+extensions:deployments"),
        rule("update", "apps+extensions:deployments/status"),
        rule("update", "apps+extensions:deployments/finalizers"),
        rule("create delete get list patch update watch", "apps+extensions:replicasets"),
        rule("get list update watch", "pods"),
        EVENTS,
    ),
    "disruption-controller": (
        rule(READ, "apps+extensions:deployments"),
        rule(READ, "apps+extensions:replicasets"),
        rule(READ, "replicationcontrollers"),
        rule(READ, "policy:poddisruptionbudgets"),
        rule(READ, "apps:statefulsets"),
        rule("update", "policy:poddisruptionbudgets/status"),
        rule("patch update", "pods/status"),
        rule("get", "*:*/scale"),
        EVENTS,
    ),
    "endpoint-controller": (
        rule(READ, "pods services"),
        rule("create delete get list update watch", "endpoints"),
        rule("create", "endpoints/restricted"),
        EVENTS,
    ),
    "endpointslice-controller": (
        rule(READ, "nodes pods services"),
        rule("update", "services/finalizers"),
        rule("create delete get list update watch", "disc:endpointslices"),
        rule("create", "disc:endpointslices/restricted"),
        EVENTS,
    ),
    "endpointslicemirroring-controller": (
        rule(READ, "endpoints services"),
        rule("update", "services/finalizers"),
        rule("update", "endpoints/finalizers"),
        rule("create delete get list update watch", "disc:endpointslices"),
        rule("create", "disc:endpointslices/restricted"),
        EVENTS,
    ),
    "ephemeral-volume-controller": (
        rule(READ, "pods"),
        rule("update", "pods/finalizers"),
        rule("create get list watch", "persistentvolumeclaims"),
        EVENTS,
    ),
    "expand-controller": (
        rule("get list patch update watch", "persistentvolumes"),
        rule("patch update", "persistentvolumeclaims/status"),
        rule(READ, "persistentvolumeclaims"),
        EVENTS,
        rule("get", "services"),
    ),
    "generic-garbage-collector": (rule("delete get list patch update watch", "*:*"), EVENTS),
    "horizontal-pod-autoscaler": (
        rule(READ, "autoscaling:horizontalpodautoscalers"),
        rule("update", "autoscaling:horizontalpodautoscalers/status"),
        rule("get update", "*:*/scale"),
        rule("list watch", "pods"),
        rule("list watch", "metrics:pods"),
        rule(READ, "custom:* external:*"),
        EVENTS,
    ),
    "job-controller": (
        rule("get list patch update watch", "batch:jobs"),
        rule("update", "batch:jobs/status"),
        rule("update", "batch:jobs/finalizers"),
        _PODS,
        EVENTS,
    ),
    "legacy-service-account-token-cleaner": (
        rule("get", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
        rule("delete patch", "secrets"),
    ),
    "namespace-controller": (
        rule("delete get list watch", "namespaces"),
        rule("update", "namespaces/finalize namespaces/status"),
        rule("delete deletecollection get list watch", "*:*"),
    ),
    "node-controller": (
        rule("delete get list patch update watch", "nodes"),
        rule("patch update", "nodes/status"),
        rule("patch update", "pods/status"),
        rule("delete get list watch", "pods"),
        EVENTS,
    ),
    "persistent-volume-binder": (
        rule("create delete get list update watch", "persistentvolumes"),
        rule("update", "persistentvolumes/status"),
        rule("get list update watch", "persistentvolumeclaims"),
        rule("update", "persistentvolumeclaims/status"),
        rule("create delete get list watch", "pods"),
        rule(READ, "storage:storageclasses"),
        rule("list watch", "nodes"),
        EVENTS,
        rule("watch", "events"),
        rule("get", "services"),
    ),
    "pod-garbage-collector": (
        rule("delete list watch", "pods"),
        rule(READ, "nodes"),
        rule("patch", "pods/status"),
    ),
    "pv-protection-controller": (rule("get list update watch", "persistentvolumes"), EVENTS),
    "pvc-protection-controller": (
        rule("get list update watch", "persistentvolumeclaims"),
        rule(READ, "pods"),
        EVENTS,
    ),
    "replicaset-controller": (
        rule("get list update watch", "apps+extensions:replicasets"),
        rule("update", "apps+extensions:replicasets/status"),
        rule("update", "apps+extensions:replicasets/finalizers"),
        _PODS,
        EVENTS,
    ),
    "replication-controller": (
        rule("get list update watch", "replicationcontrollers"),
        rule("update", "replicationcontrollers/status"),
        rule("update", "replicationcontrollers/finalizers"),
        _PODS,
        EVENTS,
    ),
    "resourcequota-controller": (rule("list watch", "*:*"), rule("update", "resourcequotas/status"), EVENTS),
    "root-ca-cert-publisher": (rule("create update", "configmaps"), EVENTS),
    "route-controller": (rule("list watch", "nodes"), rule("patch", "nodes/status"), EVENTS),
    "selinux-warning-controller": (
        EVENTS,
        rule(READ, "persistentvolumes"),
        rule(READ, "persistentvolumeclaims"),
        rule(READ, "pods"),
        rule(READ, "storage:csidrivers"),
    ),
    "service-account-controller": (rule("create", "serviceaccounts"), EVENTS),
    "service-controller": (
        rule(READ, "services"),
        rule("patch update", "services/status"),
        rule("list watch", "nodes"),
        EVENTS,
    ),
    "service-cidrs-controller": (
        rule("get list patch update watch", "net:servicecidrs"),
        rule("patch update", "net:servicecidrs/finalizers"),
        rule("patch update", "net:servicecidrs/status"),
        rule(READ, "net:ipaddresses"),
        EVENTS,
    ),
    "statefulset-controller": (
        rule("list watch", "pods"),
        rule(READ, "apps:statefulsets"),
        rule("update", "apps:statefulsets/status"),
        rule("update", "apps:statefulsets/finalizers"),
        rule("create delete get patch update", "pods"),
        rule("create delete get list patch update watch", "apps:controllerrevisions"),
        rule("create get list watch", "persistentvolumeclaims"),
        rule("delete update", "persistentvolumeclaims"),
        rule("update", "pods/finalizers"),
        EVENTS,
    ),
    "ttl-after-finished-controller": (rule("delete get list watch", "batch:jobs"), EVENTS),
    "ttl-controller": (rule("list patch update watch", "nodes"), EVENTS),
    "certificate-controller": (
        rule("delete get list watch", "certs:certificatesigningrequests"),
        rule("update", "certs:certificatesigningrequests/approval certs:certificatesigningrequests/status"),
        rule("approve", "certs:signers", "kubernetes.io/kube-apiserver-client-kubelet"),
        rule("sign", "certs:signers", "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet "
             "kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown"),
        rule("create", "authz:subjectaccessreviews"),
        EVENTS,
    ),
    "validatingadmissionpolicy-status-controller": (
        rule(READ, "admission:validatingadmissionpolicies"),
        rule("get patch update", "admission:validatingadmissionpolicies/status"),
        EVENTS,
    ),
}  # fmt: skip

# Those that are there only with an API, by (group, plural): controller -> its rules
_WITH: Final[dict[tuple[str, str], dict[str, tuple[list[Obj], ...]]]] = {
    ("resource.k8s.io", "resourceclaims"): {
        "resource-claim-controller": (
            rule(READ, "pods"),
            rule("update", "pods/finalizers"),
            rule("create delete get list watch", "res:resourceclaims"),
            rule("patch update", "res:resourceclaims res:resourceclaims/status"),
            rule("patch update", "res:resourceclaims/binding"),
            rule("patch update", "pods/status"),
            EVENTS,
        ),
        "device-taint-eviction-controller": (
            rule("delete get list watch", "pods"),
            rule("patch update", "pods/status"),
            rule(READ, "res:resourceclaims"),
            rule(READ, "res:resourceslices"),
            rule(READ, "res:deviceclasses"),
            EVENTS,
        ),
    },
    ("storage.k8s.io", "volumeattributesclasses"): {
        "volumeattributesclass-protection-controller": (
            rule(READ, "persistentvolumeclaims"),
            rule(READ, "persistentvolumes"),
            rule("get list update watch", "storage:volumeattributesclasses"),
            EVENTS,
        ),
    },
    (_CERTS, "podcertificaterequests"): {
        "podcertificaterequestcleaner": (rule("delete get list watch", "certs:podcertificaterequests"),),
    },
    (_CERTS, "clustertrustbundles"): {
        "kube-apiserver-serving-clustertrustbundle-publisher": (
            rule("attest", "certs:signers", "kubernetes.io/kube-apiserver-serving"),
            rule("create delete list update watch", "certs:clustertrustbundles"),
            EVENTS,
        ),
    },
    ("internal.apiserver.k8s.io", "storageversions"): {
        "storage-version-garbage-collector": (
            rule(READ, "coord:leases"),
            rule("delete get list patch update watch", "internal:storageversions"),
            rule("get patch update", "internal:storageversions/status"),
        ),
    },
    ("storagemigration.k8s.io", "storageversionmigrations"): {
        "storage-version-migrator-controller": (
            rule("create list patch watch", "*:*"),
            rule("update", "migration:storageversionmigrations/status"),
        ),
    },
}
_TAINT_RULES = (rule("patch update", "res:devicetaintrules/status"), rule(READ, "res:devicetaintrules"))

# What Navarch's controllers do in one step, for which Kubernetes' go another way.
_OURS: Final = (
    # The provisioner of directories on nodes.
    rule("create", "storage:storageclasses"),
    rule("patch", "nodes"),
    rule("get update", "pods"),
    rule("list", "resourcequotas"),
    rule("patch update", "services/finalizers"),
    rule(READ, "coord:leases"),
    rule("get list", "secrets"),
    rule("create update get list watch", "configmaps"),
    rule(READ, "persistentvolumeclaims storage:storageclasses"),
    rule("create delete get list watch", "net:ipaddresses"),
    # The class of the embedded Ingress controller, and where it serves.
    rule("create get list watch", "net:ingressclasses"),
    rule("patch update", "net:ingresses/status"),
    rule(READ, "net:ingresses"),
    # Serving certificates of nodes, and those of their proxy and DNS.
    rule("approve", "certs:signers", "kubernetes.io/kubelet-serving kubernetes.io/kube-apiserver-client"),
)


def _roles(serves: Serves) -> Iterator[tuple[str, tuple[list[Obj], ...]]]:
    yield from _ROLES.items()
    for (group, plural), roles in _WITH.items():
        if not serves(group, plural):
            continue
        for name, rules in roles.items():
            tainted = name == "device-taint-eviction-controller" and serves(group, "devicetaintrules")
            yield name, (*rules, *_TAINT_RULES) if tainted else rules


def names(serves: Serves) -> list[str]:
    return [name for name, _ in _roles(serves)]


def controller_roles(serves: Serves) -> Iterator[Obj]:
    for name, rules in _roles(serves):
        yield cluster_role(f"system:controller:{name}", *rules)


def controllers_together(serves: Serves) -> Obj:
    """What the process of all controllers may."""
    every: list[Obj] = []
    for rules in [*(rules for _, rules in _roles(serves)), _OURS]:
        every += [entry for group in rules for entry in group if entry not in every]
    return cluster_role(TOGETHER, every, default=False)
