"""Kubernetes' default cluster roles, in a compact form: `rule(verbs, resources)` with resources written `group:name`.

Source of what each role allows:
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from navarch.api.meta import Obj

GROUP = "rbac.authorization.k8s.io"
_AGGREGATE = f"{GROUP}/aggregate-to-"

READ = "get list watch"
WRITE = "create delete deletecollection patch update"
ALL = f"{READ} {WRITE}"

_GROUPS = {
    "admission": "admissionregistration.k8s.io",
    "apiext": "apiextensions.k8s.io",
    "apireg": "apiregistration.k8s.io",
    "authn": "authentication.k8s.io",
    "authz": "authorization.k8s.io",
    "certs": "certificates.k8s.io",
    "coord": "coordination.k8s.io",
    "disc": "discovery.k8s.io",
    "events": "events.k8s.io",
    "flow": "flowcontrol.apiserver.k8s.io",
    "metrics": "metrics.k8s.io",
    "net": "networking.k8s.io",
    "node": "node.k8s.io",
    "rbac": GROUP,
    "res": "resource.k8s.io",
    "sched": "scheduling.k8s.io",
    "storage": "storage.k8s.io",
}


def rule(verbs: str, resources: str, names: str = "") -> list[Obj]:
    """One policy rule per group among `resources`, which read `"pods pods/log apps:deployments storage:csinodes"`."""
    by_group: dict[str, list[str]] = {}
    for word in resources.split():
        group, colon, resource = word.rpartition(":")
        by_group.setdefault(_GROUPS.get(group, group) if colon else "", []).append(resource)
    rules: list[Obj] = []
    for group, listed in by_group.items():
        entry: Obj = {"verbs": verbs.split(), "apiGroups": [group], "resources": listed}
        if names:
            entry["resourceNames"] = names.split()
        rules.append(entry)
    return rules


def paths(verbs: str, urls: str) -> list[Obj]:
    return [{"verbs": verbs.split(), "nonResourceURLs": urls.split()}]


def cluster_role(name: str, *rules: list[Obj], aggregate_to: str = "", aggregates: str = "") -> Obj:
    """`aggregates`: this role is the union of the roles labelled as aggregating to that name."""
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    for target in aggregate_to.split():
        labels[f"{_AGGREGATE}{target}"] = "true"
    role: Obj = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {f"{GROUP}/autoupdate": "true"},
        },
        "rules": [entry for group in rules for entry in group],
    }
    if aggregates:
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {f"{_AGGREGATE}{aggregates}": "true"}}]}
    return role


_EVENTS = rule("create patch update", "events events:events")

_WORKLOADS = (
    "apps:daemonsets apps:deployments apps:deployments/scale apps:replicasets apps:replicasets/scale "
    "apps:statefulsets apps:statefulsets/scale autoscaling:horizontalpodautoscalers batch:cronjobs batch:jobs "
    "net:ingresses net:networkpolicies policy:poddisruptionbudgets replicationcontrollers replicationcontrollers/scale"
)
_WORKLOAD_STATUS = (
    "apps:daemonsets/status apps:deployments/status apps:replicasets/status apps:statefulsets/status "
    "autoscaling:horizontalpodautoscalers/status batch:cronjobs/status batch:jobs/status net:ingresses/status "
    "policy:poddisruptionbudgets/status replicationcontrollers/status apps:controllerrevisions "
)


def _people() -> Iterator[Obj]:
    """What is given to people: cluster-admin, admin, edit, view."""
    everything: list[Obj] = [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]
    yield cluster_role("cluster-admin", everything)
    yield cluster_role("admin", aggregates="admin")
    yield cluster_role("edit", aggregates="edit", aggregate_to="admin")
    yield cluster_role("view", aggregates="view", aggregate_to="edit")
    yield cluster_role(
        "system:aggregate-to-admin",
        rule("create", "authz:localsubjectaccessreviews"),
        rule(ALL, "rbac:roles rbac:rolebindings"),
        aggregate_to="admin",
    )
    yield cluster_role(
        "system:aggregate-to-edit",
        rule(READ, "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
        rule("impersonate", "serviceaccounts"),
        rule(WRITE, "pods pods/attach pods/exec pods/portforward pods/proxy"),
        rule("create", "pods/eviction"),
        rule(
            WRITE,
            # Not endpoints: whoever writes those leads a service, and what trusts it, to any address (CVE-2021-25740).
            "configmaps events persistentvolumeclaims secrets serviceaccounts services services/proxy "
            f"events:events {_WORKLOADS} apps:deployments/rollback",
        ),
        rule("create", "serviceaccounts/token"),
        rule(ALL, "coord:leases"),
        aggregate_to="edit",
    )
    yield cluster_role(
        "system:aggregate-to-view",
        rule(
            READ,
            "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods serviceaccounts services "
            "services/status bindings events limitranges namespaces/status pods/log pods/status resourcequotas "
            f"resourcequotas/status namespaces disc:endpointslices events:events {_WORKLOADS} {_WORKLOAD_STATUS}",
        ),
        aggregate_to="view",
    )


def _everybody() -> Iterator[Obj]:
    """What every authenticated user may, and what anybody may."""
    yield cluster_role(
        "system:discovery",
        paths("get", "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"),
    )
    yield cluster_role(
        "system:basic-user",
        rule("create", "authz:selfsubjectaccessreviews authz:selfsubjectrulesreviews authn:selfsubjectreviews"),
    )
    yield cluster_role("system:public-info-viewer", paths("get", "/healthz /livez /readyz /version /version/"))
    yield cluster_role(
        "system:monitoring",
        paths("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"),
    )
    yield cluster_role(
        "system:service-account-issuer-discovery",
        paths("get", "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks "
              "/openid/v1/jwks/"),
    )  # fmt: skip


def _components() -> Iterator[Obj]:
    """What the cluster's own components may."""
    yield cluster_role(
        "system:node",
        rule("create", "authn:tokenreviews authz:subjectaccessreviews authz:localsubjectaccessreviews"),
        rule(READ, "services"),
        rule("create get list watch update patch", "nodes"),
        rule("update patch", "nodes/status"),
        rule("create update patch", "events"),
        rule("get list watch create delete", "pods"),
        rule("update patch", "pods/status"),
        rule("create", "pods/eviction serviceaccounts/token"),
        rule(READ, "configmaps secrets"),
        rule("get", "persistentvolumeclaims persistentvolumes endpoints storage:volumeattachments"),
        rule("create get list watch", "certs:certificatesigningrequests"),
        rule("create get update patch delete", "coord:leases storage:csinodes"),
        rule(READ, "storage:csidrivers node:runtimeclasses certs:clustertrustbundles"),
    )
    yield cluster_role(
        "system:node-proxier",
        rule("list watch", "services endpoints disc:endpointslices net:servicecidrs"),
        rule(READ, "nodes"),
        _EVENTS,
    )
    yield cluster_role("system:node-bootstrapper", rule("create get list watch", "certs:certificatesigningrequests"))
    yield cluster_role("system:node-problem-detector", rule("get", "nodes"), rule("patch", "nodes/status"), _EVENTS)
    yield cluster_role("system:heapster", rule(READ, "events namespaces nodes pods apps:deployments"))
    yield cluster_role(
        "system:kubelet-api-admin",
        rule(f"{READ} proxy", "nodes"),
        rule("*", "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/spec nodes/stats"),
    )
    yield cluster_role("system:auth-delegator", rule("create", "authn:tokenreviews authz:subjectaccessreviews"))
    yield cluster_role("system:kube-aggregator", rule(READ, "services endpoints"))
    yield cluster_role("system:kube-dns", rule("list watch", "endpoints services"))
    yield cluster_role(
        "system:persistent-volume-provisioner",
        rule("create delete get list watch", "persistentvolumes"),
        rule("get list update watch", "persistentvolumeclaims"),
        rule(READ, "storage:storageclasses"),
        rule("watch", "events"),
        _EVENTS,
    )
    yield cluster_role(
        "system:kube-controller-manager",
        _EVENTS,
        rule("create", "coord:leases serviceaccounts serviceaccounts/token authn:tokenreviews "
             "authz:subjectaccessreviews"),
        rule("get update", "coord:leases", "kube-controller-manager"),
        rule("get", "configmaps namespaces secrets serviceaccounts"),
        rule("update", "secrets serviceaccounts"),
        rule("list watch", "*:*"),
    )  # fmt: skip
    yield cluster_role(
        "system:kube-scheduler",
        _EVENTS,
        rule("create", "coord:leases authn:tokenreviews authz:subjectaccessreviews"),
        rule("get list watch update", "coord:leases", "kube-scheduler"),
        rule(READ, "nodes namespaces pods replicationcontrollers services apps:replicasets apps:statefulsets "
             "policy:poddisruptionbudgets persistentvolumeclaims persistentvolumes storage:csinodes "
             "storage:csidrivers storage:csistoragecapacities storage:storageclasses storage:volumeattachments "
             "res:deviceclasses res:resourceclaims res:resourceslices"),
        rule("delete", "pods"),
        rule("create", "bindings pods/binding"),
        rule("patch update", "pods/status persistentvolumeclaims"),
    )  # fmt: skip
    yield cluster_role(
        "system:volume-scheduler",
        rule("get list patch update watch", "persistentvolumes persistentvolumeclaims"),
        rule(READ, "storage:storageclasses"),
    )
    for suffix, resource in (
        ("certificatesigningrequests:nodeclient", "certs:certificatesigningrequests/nodeclient"),
        ("certificatesigningrequests:selfnodeclient", "certs:certificatesigningrequests/selfnodeclient"),
    ):
        yield cluster_role(f"system:certificates.k8s.io:{suffix}", rule("create", resource))
    for signer in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown"):
        yield cluster_role(
            f"system:certificates.k8s.io:{signer}-approver",
            rule("approve", "certs:signers", f"kubernetes.io/{signer}"),
        )


def cluster_roles() -> list[Obj]:
    """All of them; the aggregated ones carry the union of what they select."""
    roles = [*_people(), *_everybody(), *_components()]
    _aggregate(roles)
    return roles


def _aggregate(roles: Iterable[Obj]) -> None:
    listed = list(roles)
    # view first: edit takes it up, and admin edit.
    for target in ("view", "edit", "admin"):
        label = f"{_AGGREGATE}{target}"
        union: list[Obj] = []
        for role in listed:
            if role["metadata"]["labels"].get(label) == "true":
                union.extend(entry for entry in role["rules"] if entry not in union)
        next(role for role in listed if role["metadata"]["name"] == target)["rules"] = union
