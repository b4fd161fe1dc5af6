"""Kubernetes' default cluster roles, in a compact form: `rule(verbs, resources)` with resources written `group:name`.

In: which kinds are served (some roles and rules are there only with their API).  Out: ClusterRole objects as Kubernetes
makes them, in words, order and all, because people and tools compare them. Aggregated roles are made without rules:
the controller of aggregation fills them.

Source of what each role allows:
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from navarch.api.meta import Obj

GROUP = "rbac.authorization.k8s.io"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
BOOTSTRAPPING = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AGGREGATE = f"{GROUP}/aggregate-to-"

# Whether a resource, by group and plural, is served in any version.
Serves = Callable[[str, str], bool]

READ = "get list watch"
WRITE = "create delete deletecollection patch update"
ALL = f"{READ} {WRITE}"
READ_UPDATE = f"{READ} patch update"

_GROUPS = {
    "core": "",
    "admission": "admissionregistration.k8s.io",
    "authn": "authentication.k8s.io",
    "authz": "authorization.k8s.io",
    "certs": "certificates.k8s.io",
    "coord": "coordination.k8s.io",
    "custom": "custom.metrics.k8s.io",
    "disc": "discovery.k8s.io",
    "events": "events.k8s.io",
    "external": "external.metrics.k8s.io",
    "internal": "internal.apiserver.k8s.io",
    "metrics": "metrics.k8s.io",
    "migration": "storagemigration.k8s.io",
    "net": "networking.k8s.io",
    "node": "node.k8s.io",
    "rbac": GROUP,
    "res": "resource.k8s.io",
    "sched": "scheduling.k8s.io",
    "storage": "storage.k8s.io",
}


def rule(verbs: str, resources: str, names: str = "") -> list[Obj]:
    """One policy rule per group among `resources`, which read `"pods pods/log apps:deployments"`; `core+events:events`
    is one rule for two groups. Words within a rule are sorted, as Kubernetes sorts them."""
    by_groups: dict[str, list[str]] = {}
    for word in resources.split():
        groups, colon, resource = word.rpartition(":")
        by_groups.setdefault(groups if colon else "core", []).append(resource)
    rules: list[Obj] = []
    for groups, listed in by_groups.items():
        named = sorted(_GROUPS.get(group, group) for group in groups.split("+"))
        entry: Obj = {"verbs": sorted(verbs.split()), "apiGroups": named, "resources": sorted(listed)}
        if names:
            entry["resourceNames"] = sorted(names.split())
        rules.append(entry)
    return rules


def paths(verbs: str, urls: str) -> list[Obj]:
    return [{"verbs": verbs.split(), "nonResourceURLs": sorted(urls.split())}]


EVENTS = rule("create patch update", "core+events:events")


def metadata(name: str, namespace: str = "", *, default: bool = True) -> Obj:
    """Of a role or binding that is repaired at each start; `default`: one that every Kubernetes has."""
    found: Obj = {"name": name, "annotations": {AUTOUPDATE: "true"}}
    if default:
        found["labels"] = dict(BOOTSTRAPPING)
    if namespace:
        found["namespace"] = namespace
    return found


def cluster_role(
    name: str, *rules: list[Obj], aggregate_to: str = "", aggregates: str = "", default: bool = True
) -> Obj:
    """`aggregates`: this role is the union of the roles labelled as aggregating to that name."""
    role: Obj = {"apiVersion": f"{GROUP}/v1", "kind": "ClusterRole", "metadata": metadata(name, default=default)}
    if aggregate_to:
        role["metadata"]["labels"][f"{_AGGREGATE}{aggregate_to}"] = "true"
    if aggregates:
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {f"{_AGGREGATE}{aggregates}": "true"}}]}
    else:
        role["rules"] = [entry for group in rules for entry in group]
    return role


def _people() -> Iterator[Obj]:
    """What is given to people: cluster-admin, admin, edit, view."""
    everything: list[Obj] = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
    yield cluster_role("cluster-admin", everything, paths("*", "*"))
    yield cluster_role("admin", aggregates="admin")
    yield cluster_role("edit", aggregates="edit", aggregate_to="admin")
    yield cluster_role("view", aggregates="view", aggregate_to="edit")
    yield cluster_role(
        "system:aggregate-to-admin",
        rule("create", "authz:localsubjectaccessreviews"),
        rule(ALL, "rbac:roles rbac:rolebindings"),
        aggregate_to="admin",
    )
    yield cluster_role("system:aggregate-to-edit", *_edit_rules(), aggregate_to="edit")
    yield cluster_role("system:aggregate-to-view", *_view_rules(), aggregate_to="view")


def _edit_rules() -> Iterator[list[Obj]]:
    yield rule(READ, "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy")
    yield rule("impersonate", "serviceaccounts")
    yield rule(WRITE, "pods pods/attach pods/exec pods/portforward pods/proxy")
    yield rule("create", "pods/eviction")
    # Not endpoints: whoever writes those leads a service, and what trusts it, to any address (CVE-2021-25740).
    yield rule(
        WRITE,
        "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
        "serviceaccounts services services/proxy",
    )
    yield rule("create", "serviceaccounts/token")
    yield rule(WRITE, "core+events:events")
    yield rule(
        WRITE,
        "apps:daemonsets apps:deployments apps:deployments/rollback apps:deployments/scale apps:replicasets "
        "apps:replicasets/scale apps:statefulsets apps:statefulsets/scale autoscaling:horizontalpodautoscalers "
        "batch:cronjobs batch:jobs extensions:daemonsets extensions:deployments extensions:deployments/rollback "
        "extensions:deployments/scale extensions:ingresses extensions:networkpolicies extensions:replicasets "
        "extensions:replicasets/scale extensions:replicationcontrollers/scale policy:poddisruptionbudgets "
        "net:ingresses net:networkpolicies",
    )
    yield rule(ALL, "coord:leases")
    yield rule(WRITE, "res:resourceclaims res:resourceclaimtemplates")


def _view_rules() -> Iterator[list[Obj]]:
    yield rule(
        READ,
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
        "replicationcontrollers/scale serviceaccounts services services/status",
    )
    yield rule(
        READ,
        "bindings limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas "
        "resourcequotas/status",
    )
    yield rule(READ, "namespaces")
    yield rule(READ, "core+events:events")
    yield rule(
        READ,
        "disc:endpointslices apps:controllerrevisions apps:daemonsets apps:daemonsets/status apps:deployments "
        "apps:deployments/scale apps:deployments/status apps:replicasets apps:replicasets/scale "
        "apps:replicasets/status apps:statefulsets apps:statefulsets/scale apps:statefulsets/status "
        "autoscaling:horizontalpodautoscalers autoscaling:horizontalpodautoscalers/status batch:cronjobs "
        "batch:cronjobs/status batch:jobs batch:jobs/status extensions:daemonsets extensions:daemonsets/status "
        "extensions:deployments extensions:deployments/scale extensions:deployments/status extensions:ingresses "
        "extensions:ingresses/status extensions:networkpolicies extensions:replicasets extensions:replicasets/scale "
        "extensions:replicasets/status extensions:replicationcontrollers/scale policy:poddisruptionbudgets "
        "policy:poddisruptionbudgets/status net:ingresses net:ingresses/status net:networkpolicies "
        "res:resourceclaims res:resourceclaims/status res:resourceclaimtemplates",
    )


def _everybody(serves: Serves) -> Iterator[Obj]:
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
        rule("get", "nodes/metrics"),
        paths("get", "/flagz"),
        paths("get", "/statusz"),
    )
    yield cluster_role(
        "system:service-account-issuer-discovery",
        paths("get", "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks "
              "/openid/v1/jwks/"),
    )  # fmt: skip
    if serves(_GROUPS["certs"], "clustertrustbundles"):
        yield cluster_role("system:cluster-trust-bundle-discovery", rule(READ, "certs:clustertrustbundles"))


def _node_rules(serves: Serves) -> Iterator[list[Obj]]:
    yield rule("create", "authn:tokenreviews authz:subjectaccessreviews authz:localsubjectaccessreviews")
    yield rule(READ, "services")
    yield rule("create get list watch", "nodes")
    yield rule("update patch", "nodes/status")
    yield rule("update patch", "nodes")
    yield EVENTS
    yield rule(READ, "pods")
    yield rule("create delete", "pods")
    yield rule("update patch", "pods/status")
    yield rule("create", "pods/eviction")
    yield rule(READ, "configmaps secrets")
    yield rule("get", "persistentvolumeclaims persistentvolumes")
    yield rule("get", "endpoints")
    yield rule("create get list watch", "certs:certificatesigningrequests")
    yield rule("create get update patch delete", "coord:leases")
    yield rule("get", "storage:volumeattachments")
    yield rule("create", "serviceaccounts/token")
    yield rule("get update patch", "persistentvolumeclaims/status")
    yield rule(READ, "storage:csidrivers")
    yield rule("create get update patch delete", "storage:csinodes")
    yield rule(READ, "node:runtimeclasses")
    yield rule("get", "res:resourceclaims")
    yield rule("deletecollection", "res:resourceslices")
    if serves(_GROUPS["certs"], "clustertrustbundles"):
        yield rule(READ, "certs:clustertrustbundles")
    yield rule("get", "serviceaccounts")
    if serves(_GROUPS["certs"], "podcertificaterequests"):
        yield rule("create get list watch", "certs:podcertificaterequests")


def _components(serves: Serves) -> Iterator[Obj]:
    """What the cluster's own components may."""
    yield cluster_role("system:node", *_node_rules(serves))
    yield cluster_role(
        "system:node-proxier",
        rule("list watch", "services endpoints"),
        rule(READ, "nodes"),
        EVENTS,
        rule("list watch", "net:servicecidrs disc:endpointslices"),
    )
    yield cluster_role("system:node-bootstrapper", rule("create get list watch", "certs:certificatesigningrequests"))
    yield cluster_role("system:node-problem-detector", rule("get", "nodes"), rule("patch", "nodes/status"), EVENTS)
    yield cluster_role("system:heapster", rule(READ, "events namespaces nodes pods extensions:deployments"))
    yield cluster_role(
        "system:kubelet-api-admin",
        rule(READ, "nodes"),
        rule("proxy", "nodes"),
        rule("*", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
        rule("*", "nodes/configz nodes/healthz nodes/pods"),
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
        EVENTS,
    )
    yield cluster_role(
        "system:kube-controller-manager",
        EVENTS,
        rule("create", "coord:leases"),
        rule("get update", "coord:leases", "kube-controller-manager"),
        rule("create", "secrets serviceaccounts"),
        rule("delete", "secrets"),
        rule("get", "configmaps namespaces secrets serviceaccounts"),
        rule("update", "secrets serviceaccounts"),
        rule("create", "authn:tokenreviews authz:subjectaccessreviews"),
        rule("list watch", "*:*"),
        rule("create", "serviceaccounts/token"),
    )
    yield cluster_role("system:kube-scheduler", *_scheduler_rules(serves))
    yield cluster_role(
        "system:volume-scheduler",
        rule(READ_UPDATE, "persistentvolumes"),
        rule(READ, "storage:storageclasses"),
        rule(READ_UPDATE, "persistentvolumeclaims"),
    )
    yield from _certificates()


def _scheduler_rules(serves: Serves) -> Iterator[list[Obj]]:
    yield EVENTS
    yield rule("create", "coord:leases")
    yield rule("get list update watch", "coord:leases", "kube-scheduler")
    yield rule(ALL, "coord:leasecandidates")
    yield rule(READ, "nodes")
    yield rule("delete get list watch", "pods")
    yield rule("create", "bindings pods/binding")
    yield rule("patch update", "pods/status")
    yield rule(READ, "replicationcontrollers services")
    yield rule(READ, "apps+extensions:replicasets")
    yield rule(READ, "apps:statefulsets policy:poddisruptionbudgets")
    yield rule(READ, "persistentvolumeclaims persistentvolumes")
    yield rule("create", "authn:tokenreviews authz:subjectaccessreviews")
    yield rule(READ, "storage:csinodes")
    yield rule(READ, "storage:volumeattachments")
    yield rule(READ, "namespaces")
    yield rule(READ, "storage:csidrivers")
    yield rule(READ, "storage:csistoragecapacities")
    if not serves(_GROUPS["res"], "resourceclaims"):
        return
    yield rule(READ, "res:deviceclasses")
    yield rule(READ_UPDATE, "res:resourceclaims")
    yield rule(READ_UPDATE, "res:resourceclaims/status")
    yield rule("patch update", "res:resourceclaims/binding")
    yield rule(READ_UPDATE, "pods/finalizers")
    yield rule(READ, "res:resourceslices")
    yield rule("create delete", "res:resourceclaims")
    if serves(_GROUPS["res"], "devicetaintrules"):
        yield rule(READ, "res:devicetaintrules")
    if serves(_GROUPS["sched"], "podgroups"):
        yield rule(READ, "sched:podgroups sched:workloads")


def _certificates() -> Iterator[Obj]:
    for suffix in ("nodeclient", "selfnodeclient"):
        yield cluster_role(
            f"system:certificates.k8s.io:certificatesigningrequests:{suffix}",
            rule("create", f"certs:certificatesigningrequests/{suffix}"),
        )
    for signer in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown"):
        yield cluster_role(
            f"system:certificates.k8s.io:{signer}-approver",
            rule("approve", "certs:signers", f"kubernetes.io/{signer}"),
        )


def cluster_roles(serves: Serves) -> list[Obj]:
    """All of them but the controllers'."""
    return [*_people(), *_everybody(serves), *_components(serves)]
