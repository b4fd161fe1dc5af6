"""The role of each controller (`system:controller:…`): what it reads and writes, and nothing more.

As in Kubernetes each role is bound to a service account of its own in kube-system; Navarch's controllers share one
process and so one identity, `system:kube-controller-manager`, which is bound to all of them as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.meta import Obj
from navarch.apiserver.auth.roles import READ, cluster_role, rule

_EVENTS = rule("create patch update", "events events:events")
_PODS = rule("create delete list patch watch", "pods")

# controller -> its rules
_ROLES: dict[str, tuple[list[Obj], ...]] = {
    "attachdetach-controller": (
        rule("list watch", "persistentvolumes persistentvolumeclaims storage:csidrivers storage:csinodes"),
        rule(READ, "nodes"),
        rule("patch update", "nodes/status"),
        rule("list watch", "pods"),
        rule("create delete get list watch", "storage:volumeattachments"),
        _EVENTS,
    ),
    "clusterrole-aggregation-controller": (
        rule("escalate get list patch update watch", "rbac:clusterroles"),
    ),
    "cronjob-controller": (
        rule("create delete get list patch update watch", "batch:jobs"),
        rule("get list update watch", "batch:cronjobs"),
        rule("update", "batch:cronjobs/status batch:cronjobs/finalizers"),
        rule("delete list", "pods"),
        _EVENTS,
    ),
    "daemon-set-controller": (
        rule(READ, "apps:daemonsets"),
        rule("update", "apps:daemonsets/status apps:daemonsets/finalizers"),
        rule("list watch", "nodes"),
        _PODS,
        rule("create", "pods/binding"),
        rule("create delete get list patch update watch", "apps:controllerrevisions"),
        _EVENTS,
    ),
    "deployment-controller": (
        rule("get list update watch", "apps:deployments"),
        rule("update", "apps:deployments/status apps:deployments/finalizers"),
        rule("create delete get list patch update watch", "apps:replicasets"),
        rule("get list update watch", "pods"),
        _EVENTS,
    ),
    "disruption-controller": (
        rule(READ, "apps:deployments apps:replicasets replicationcontrollers policy:poddisruptionbudgets "
             "apps:statefulsets pods"),
        rule("update", "policy:poddisruptionbudgets/status"),
        rule("get", "*:*/scale"),
        rule("patch update", "pods/status"),
        _EVENTS,
    ),
    "endpoint-controller": (
        rule(READ, "pods services"),
        rule("create delete get list update watch", "endpoints"),
        rule("create", "endpoints/restricted"),
        _EVENTS,
    ),
    "endpointslice-controller": (
        rule(READ, "nodes pods services"),
        rule("update", "services/finalizers"),
        rule("create delete get list update watch", "disc:endpointslices"),
        rule("create", "disc:endpointslices/restricted"),
        _EVENTS,
    ),
    "endpointslicemirroring-controller": (
        rule(READ, "endpoints services"),
        rule("update", "services/finalizers endpoints/finalizers"),
        rule("create delete get list update watch", "disc:endpointslices"),
        rule("create", "disc:endpointslices/restricted"),
        _EVENTS,
    ),
    "ephemeral-volume-controller": (
        rule("update", "pods/finalizers"),
        rule(READ, "pods"),
        rule("create get list watch", "persistentvolumeclaims"),
        _EVENTS,
    ),
    "expand-controller": (
        rule("get list patch update watch", "persistentvolumes"),
        rule("patch update", "persistentvolumeclaims/status"),
        rule(READ, "persistentvolumeclaims storage:storageclasses"),
        _EVENTS,
    ),
    "generic-garbage-collector": (rule("delete get list patch update watch", "*:*"), _EVENTS),
    "horizontal-pod-autoscaler": (
        rule(READ, "autoscaling:horizontalpodautoscalers"),
        rule("update", "autoscaling:horizontalpodautoscalers/status"),
        rule("get update", "*:*/scale"),
        rule("list", "pods"),
        rule("list", "metrics:pods"),
        _EVENTS,
    ),
    "job-controller": (
        rule("get list patch update watch", "batch:jobs"),
        rule("update", "batch:jobs/status batch:jobs/finalizers"),
        _PODS,
        rule("get update", "pods"),
        rule("patch update", "pods/status"),
        _EVENTS,
    ),
    "legacy-service-account-token-cleaner": (rule("get", "configmaps"), rule("delete patch", "secrets")),
    "namespace-controller": (
        rule("delete get list watch", "namespaces"),
        rule("update", "namespaces/finalize namespaces/status"),
        rule("delete deletecollection get list", "*:*"),
    ),
    "node-controller": (
        rule("delete get list patch update watch", "nodes"),
        rule("patch update", "nodes/status pods/status"),
        rule("delete list get watch", "pods"),
        rule(READ, "coord:leases"),
        _EVENTS,
    ),
    "persistent-volume-binder": (
        rule("create delete get list update watch", "persistentvolumes"),
        rule("update", "persistentvolumes/status persistentvolumeclaims/status"),
        rule("get list update watch", "persistentvolumeclaims"),
        rule("create delete get list watch", "pods"),
        rule(READ, "storage:storageclasses nodes"),
        rule("create delete get update", "endpoints services"),
        rule("get list", "secrets"),
        _EVENTS,
    ),
    "pod-garbage-collector": (rule("delete list watch", "pods"), rule("get list watch", "nodes"),
                              rule("patch", "pods/status")),
    "pv-protection-controller": (rule("get list update watch", "persistentvolumes"), _EVENTS),
    "pvc-protection-controller": (
        rule("get list update watch", "persistentvolumeclaims"),
        rule(READ, "pods"),
        _EVENTS,
    ),
    "replicaset-controller": (
        rule("get list update watch", "apps:replicasets"),
        rule("update", "apps:replicasets/status apps:replicasets/finalizers"),
        _PODS,
        _EVENTS,
    ),
    "replication-controller": (
        rule("get list update watch", "replicationcontrollers"),
        rule("update", "replicationcontrollers/status replicationcontrollers/finalizers"),
        _PODS,
        _EVENTS,
    ),
    "resourcequota-controller": (rule("list watch", "*:*"), rule("update", "resourcequotas/status"), _EVENTS),
    "root-ca-cert-publisher": (rule("create update get list watch", "configmaps"), _EVENTS),
    "route-controller": (rule("list watch", "nodes"), rule("patch", "nodes/status"), _EVENTS),
    "service-account-controller": (rule("create", "serviceaccounts"), _EVENTS),
    "ipaddress-controller": (rule("list watch", "services"), rule("create delete get list watch", "net:ipaddresses")),
    "service-cidrs-controller": (
        rule("get list patch update watch", "net:servicecidrs"),
        rule("patch update", "net:servicecidrs/finalizers net:servicecidrs/status"),
        rule(READ, "net:ipaddresses"),
        _EVENTS,
    ),
    "statefulset-controller": (
        rule("list watch", "pods"),
        rule(READ, "apps:statefulsets"),
        rule("update", "apps:statefulsets/status apps:statefulsets/finalizers"),
        rule("create delete get patch update", "pods"),
        rule("create delete get list patch update watch", "apps:controllerrevisions"),
        rule("create get", "persistentvolumeclaims"),
        rule("delete update list watch", "persistentvolumeclaims"),
        _EVENTS,
    ),
    "ttl-after-finished-controller": (rule("delete get list watch", "batch:jobs"), _EVENTS),
    "ttl-controller": (rule("list patch update watch", "nodes"), _EVENTS),
    "certificate-controller": (
        rule("delete get list watch", "certs:certificatesigningrequests"),
        rule("update", "certs:certificatesigningrequests/approval certs:certificatesigningrequests/status"),
        rule("approve sign", "certs:signers", "kubernetes.io/kube-apiserver-client-kubelet "
             "kubernetes.io/kubelet-serving kubernetes.io/kube-apiserver-client kubernetes.io/legacy-unknown"),
        rule("create", "authz:subjectaccessreviews"),
        _EVENTS,
    ),
}  # fmt: skip


def names() -> list[str]:
    return list(_ROLES)


def controller_roles() -> Iterator[Obj]:
    for name, rules in _ROLES.items():
        yield cluster_role(f"system:controller:{name}", *rules)
