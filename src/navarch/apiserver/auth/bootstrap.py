"""The roles and bindings that every cluster starts with; the API server creates and repairs them at start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from navarch.api.meta import Obj, labels_of, name_of
from navarch.apiserver.auth import controller_roles
from navarch.apiserver.auth.roles import EVENTS, GROUP, Serves, cluster_role, cluster_roles, metadata, rule

CONTROLLER_MANAGER = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
PROXY = "system:kube-proxy"
DNS = "system:kube-dns"
CLUSTER_DNS = "navarch:cluster-dns"
INGRESS = "navarch:ingress"
NETWORK_POLICIES = "navarch:network-policies"
# What machines that join read, and where.
JOINING = "navarch:joining"
CLUSTER_INFO = "cluster-info"
NODE_SETTINGS = "navarch-node-settings"
# What kubeadm, and the kubelet and kube-proxy that it sets up, read; and the group that its tokens give.
KUBEADM_CONFIG = "kubeadm-config"
KUBELET_CONFIG = "kubelet-config"
PROXY_CONFIG = "kube-proxy"
KUBEADM_TOKENS = "system:bootstrappers:kubeadm:default-node-token"
KUBELET_CLIENT = "system:apiserver"
SIMULATED_NODES = "navarch:simulated-nodes"
# Who writes the rules of aggregated roles.
AGGREGATION = "clusterrole-aggregation-controller"


def objects(serves: Serves) -> list[Obj]:
    """ClusterRoles, Roles, then their bindings, for a server of these kinds."""
    return [
        _simulated_nodes(),
        _cluster_dns(),
        _ingress(),
        _network_policies(),
        *_joining(),
        *cluster_roles(serves),
        *([_metrics_reader()] if serves("metrics.k8s.io", "pods") else ()),
        *controller_roles.controller_roles(serves),
        controller_roles.controllers_together(serves),
        *_roles(),
        *_cluster_role_bindings(serves),
        *_role_bindings(),
    ]


def aggregated(objects: Iterable[Obj]) -> list[tuple[str, list[Obj]]]:
    """The rules of each aggregated role of these, as the controller of aggregation puts them together in the end."""
    roles = sorted((obj for obj in objects if obj["kind"] == "ClusterRole"), key=name_of)
    rules_of = {name_of(role): role.get("rules") or [] for role in roles}
    found: dict[str, list[Obj]] = {}
    # view first: edit takes it up, and admin edit.
    for target in ("view", "edit", "admin"):
        label = f"{GROUP}/aggregate-to-{target}"
        union: list[Obj] = []
        for role in roles:
            if labels_of(role).get(label) == "true":
                union += [rule for rule in rules_of[name_of(role)] if rule not in union]
        found[target] = rules_of[target] = union
    return list(found.items())


def _binding(
    role: str,
    subjects: list[Obj],
    *,
    name: str = "",
    namespace: str = "",
    role_kind: str = "",
    default: bool = True,
) -> Obj:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": metadata(name or role, namespace, default=default),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind or ("Role" if namespace else "ClusterRole"), "name": role},
        "subjects": subjects,
    }


def _user(name: str) -> Obj:
    return {"kind": "User", "apiGroup": GROUP, "name": name}


def _group(name: str) -> Obj:
    return {"kind": "Group", "apiGroup": GROUP, "name": name}


def _account(name: str, namespace: str = "kube-system") -> Obj:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def _cluster_role_bindings(serves: Serves) -> Iterator[Obj]:
    everybody = [_group("system:authenticated")]
    yield _binding("cluster-admin", [_group("system:masters")])
    yield _binding("system:monitoring", [_group("system:monitoring")])
    yield _binding("system:discovery", everybody)
    yield _binding("system:basic-user", everybody)
    yield _binding("system:public-info-viewer", [*everybody, _group("system:unauthenticated")])
    yield _binding("system:service-account-issuer-discovery", [_group("system:serviceaccounts")])
    if serves("certificates.k8s.io", "clustertrustbundles"):
        yield _binding("system:cluster-trust-bundle-discovery", [_group("system:serviceaccounts")])
    yield _binding("system:node-proxier", [_user(PROXY)])
    # Kubernetes' own proxy, where it runs as a pod on nodes that kubeadm has set up.
    yield _binding("system:node-proxier", [_account(PROXY_CONFIG)], name="navarch:node-proxier", default=False)
    yield _binding("system:kube-controller-manager", [_user(CONTROLLER_MANAGER)])
    yield _binding("system:kube-scheduler", [_user(SCHEDULER)])
    yield _binding("system:volume-scheduler", [_user(SCHEDULER)])
    yield _binding("system:kube-dns", [_account("kube-dns")])
    # Nodes are the node authorizer's business; the binding exists, empty, as in Kubernetes.
    node = _binding("system:node", [])
    del node["subjects"]
    yield node
    for controller in controller_roles.names(serves):
        yield _binding(f"system:controller:{controller}", [_account(controller)])
    yield _binding(controller_roles.TOGETHER, [_user(CONTROLLER_MANAGER)], default=False)
    yield _binding(CLUSTER_DNS, [_user(DNS)], default=False)
    yield _binding(INGRESS, [_user(INGRESS)], default=False)
    yield _binding(NETWORK_POLICIES, [_user(PROXY)], default=False)
    yield _binding("system:kubelet-api-admin", [_user(KUBELET_CLIENT)], name="navarch:kubelet-api-admin", default=False)
    yield _binding(SIMULATED_NODES, [_user(SIMULATED_NODES)], default=False)
    yield from _joining_bindings()


def _joining() -> Iterator[Obj]:
    """What is approved without a person, beside what Kubernetes has roles for: a node's serving certificate, and the
    certificates with which its proxy and its DNS speak."""
    for suffix in ("selfnodeserver", "nodecomponent"):
        yield cluster_role(
            f"navarch:{suffix}", rule("create", f"certs:certificatesigningrequests/{suffix}"), default=False
        )
    yield cluster_role("navarch:get-nodes", rule("get", "nodes"), default=False)


def _joining_bindings() -> Iterator[Obj]:
    """Whoever takes one of these bindings away approves the requests by hand."""
    requests = "system:certificates.k8s.io:certificatesigningrequests"
    nodes, joining = [_group("system:nodes")], [_group("system:bootstrappers"), _group(KUBEADM_TOKENS)]
    for role, subjects, name in (
        ("system:node-bootstrapper", joining, "kubelet-bootstrap"),
        (f"{requests}:nodeclient", joining, "node-autoapprove-bootstrap"),
        # Whether a node of that name is there already.
        ("navarch:get-nodes", joining, "get-nodes"),
        (f"{requests}:selfnodeclient", nodes, "node-autoapprove-certificate-rotation"),
        ("navarch:selfnodeserver", nodes, "node-autoapprove-serving"),
        ("navarch:nodecomponent", nodes, "node-autoapprove-components"),
    ):
        yield _binding(role, subjects, name=f"navarch:{name}", default=False)


def _simulated_nodes() -> Obj:
    """What a process that stands for many nodes at once may: a kubelet's rights without volumes and secrets."""
    return cluster_role(
        SIMULATED_NODES,
        rule("create get list watch update patch", "nodes coord:leases"),
        rule("update patch", "nodes/status pods/status"),
        rule("get list watch delete", "pods"),
        rule("create update patch", "events"),
        default=False,
    )


def _metrics_reader() -> Obj:
    """Metrics-server's role: who may look at pods may look at what they use."""
    role = cluster_role("system:aggregated-metrics-reader", default=False)
    # In its own order, so that its manifests are applied over it without a conflict.
    role["rules"] = [
        {"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}
    ]
    role["metadata"]["labels"] = {
        "k8s-app": "metrics-server",
        **{f"{GROUP}/aggregate-to-{target}": "true" for target in ("admin", "edit", "view")},
    }
    return role


def _cluster_dns() -> Obj:
    """As `system:kube-dns`; names of headless services come from EndpointSlices."""
    return cluster_role(CLUSTER_DNS, rule("list watch", "endpoints services disc:endpointslices"), default=False)


def _ingress() -> Obj:
    """The Ingress controller of nodes. The Secrets that Ingresses name are node authorization's business."""
    return cluster_role(
        INGRESS,
        rule("get list watch", "services disc:endpointslices net:ingresses net:ingressclasses"),
        rule("create update patch", "events"),
        default=False,
    )


def _network_policies() -> Obj:
    """What is followed to enforce policies, beside the rules of services."""
    return cluster_role(NETWORK_POLICIES, rule("list watch", "net:networkpolicies pods namespaces"), default=False)


def _role(name: str, namespace: str, *rules: list[Obj], default: bool = True) -> Obj:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Role",
        "metadata": metadata(name, namespace, default=default),
        "rules": [entry for group in rules for entry in group],
    }


def _roles() -> Iterator[Obj]:
    system, public = "kube-system", "kube-public"
    yield _role(
        "extension-apiserver-authentication-reader",
        system,
        rule("get list watch", "configmaps", "extension-apiserver-authentication"),
    )
    leases = rule("create get list update watch", "coord:leases")
    candidates = rule("create get list update watch", "coord:leasecandidates")
    yield _role("system::leader-locking-kube-controller-manager", system, leases, candidates)
    yield _role("system::leader-locking-kube-scheduler", system, leases, candidates)
    yield _role("system:controller:bootstrap-signer", system, rule("get list watch", "secrets"))
    yield _role("system:controller:cloud-provider", system, rule("create get list watch", "configmaps"))
    yield _role("system:controller:token-cleaner", system, rule("get list watch delete", "secrets"), EVENTS)
    yield _role(
        "system:controller:bootstrap-signer",
        public,
        rule("get list watch", "configmaps"),
        rule("update", "configmaps", "cluster-info"),
        EVENTS,
    )
    yield _role(JOINING, public, rule("get", "configmaps", CLUSTER_INFO), default=False)
    told = f"{KUBEADM_CONFIG} {PROXY_CONFIG} {KUBELET_CONFIG} {NODE_SETTINGS}"
    yield _role(JOINING, system, rule("get", "configmaps", told), default=False)
    # Each node's server publishes itself behind the service `kube-dns`.
    publish = rule("get create update", "services disc:endpointslices")
    # What it is told of whom to ask about other names.
    corefile = rule("get list watch", "configmaps", "coredns")
    yield _role(CLUSTER_DNS, system, publish, corefile, default=False)


def _role_bindings() -> Iterator[Obj]:
    reader = "extension-apiserver-authentication-reader"
    system = "kube-system"
    yield _binding(CLUSTER_DNS, [_user(DNS)], namespace=system, default=False)
    # Before it trusts the server, a machine has nothing by which to say who it is.
    yield _binding(JOINING, [_group("system:unauthenticated")], namespace="kube-public", default=False)
    joining = [_group("system:bootstrappers"), _group(KUBEADM_TOKENS), _group("system:nodes")]
    yield _binding(JOINING, joining, namespace=system, default=False)
    yield _binding(reader, [_user(CONTROLLER_MANAGER), _user(SCHEDULER)],
                   name=f"system::{reader}", namespace=system)  # fmt: skip
    for user, *accounts in (
        (CONTROLLER_MANAGER, "kube-controller-manager", "leader-election-controller"),
        (SCHEDULER, "kube-scheduler"),
    ):
        role = f"system::leader-locking-{accounts[0]}"
        yield _binding(role, [_user(user), *map(_account, accounts)], namespace=system)
    for name in ("bootstrap-signer", "cloud-provider", "token-cleaner"):
        yield _binding(f"system:controller:{name}", [_account(name)], namespace=system)
    yield _binding("system:controller:bootstrap-signer", [_account("bootstrap-signer")], namespace="kube-public")
