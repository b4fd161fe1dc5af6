"""The roles and bindings that every cluster starts with; the API server creates and repairs them at start."""

from __future__ import annotations

from collections.abc import Iterator

from navarch.api.meta import Obj
from navarch.apiserver.auth import controller_roles
from navarch.apiserver.auth.roles import GROUP, cluster_role, cluster_roles, rule

CONTROLLER_MANAGER = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
PROXY = "system:kube-proxy"
DNS = "system:kube-dns"
CLUSTER_DNS = "navarch:cluster-dns"
KUBELET_CLIENT = "system:apiserver"
SIMULATED_NODES = "navarch:simulated-nodes"


def objects() -> list[Obj]:
    """ClusterRoles, Roles, then their bindings."""
    return [
        _simulated_nodes(),
        _cluster_dns(),
        *cluster_roles(),
        *controller_roles.controller_roles(),
        *_roles(),
        *_cluster_role_bindings(),
        *_role_bindings(),
    ]


def _metadata(name: str, namespace: str = "") -> Obj:
    metadata: Obj = {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {f"{GROUP}/autoupdate": "true"},
    }
    if namespace:
        metadata["namespace"] = namespace
    return metadata


def _binding(role: str, subjects: list[Obj], *, name: str = "", namespace: str = "", role_kind: str = "") -> Obj:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": _metadata(name or role, namespace),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind or ("Role" if namespace else "ClusterRole"), "name": role},
        "subjects": subjects,
    }


def _user(name: str) -> Obj:
    return {"kind": "User", "apiGroup": GROUP, "name": name}


def _group(name: str) -> Obj:
    return {"kind": "Group", "apiGroup": GROUP, "name": name}


def _account(name: str, namespace: str = "kube-system") -> Obj:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def _cluster_role_bindings() -> Iterator[Obj]:
    everybody = [_group("system:authenticated")]
    yield _binding("cluster-admin", [_group("system:masters")])
    yield _binding("system:monitoring", [_group("system:monitoring")])
    yield _binding("system:discovery", everybody)
    yield _binding("system:basic-user", everybody)
    yield _binding("system:public-info-viewer", [*everybody, _group("system:unauthenticated")])
    yield _binding("system:service-account-issuer-discovery", [_group("system:serviceaccounts")])
    yield _binding("system:node-proxier", [_user(PROXY)])
    yield _binding("system:kube-controller-manager", [_user(CONTROLLER_MANAGER)])
    yield _binding("system:kube-scheduler", [_user(SCHEDULER)])
    yield _binding("system:volume-scheduler", [_user(SCHEDULER)])
    yield _binding("system:kube-dns", [_account("kube-dns"), _user(DNS)])
    yield _binding(CLUSTER_DNS, [_user(DNS)])
    yield _binding("system:kubelet-api-admin", [_user(KUBELET_CLIENT)], name="navarch:kubelet-api-admin")
    yield _binding(SIMULATED_NODES, [_user(SIMULATED_NODES)])
    # Nodes are the node authorizer's business; the binding exists, empty, as in Kubernetes.
    yield {**_binding("system:node", []), "subjects": []}
    for controller in controller_roles.names():
        role = f"system:controller:{controller}"
        yield _binding(role, [_account(controller), _user(CONTROLLER_MANAGER)])


def _simulated_nodes() -> Obj:
    """What a process that stands for many nodes at once may: a kubelet's rights without volumes and secrets."""
    return cluster_role(
        SIMULATED_NODES,
        rule("create get list watch update patch", "nodes coord:leases"),
        rule("update patch", "nodes/status pods/status"),
        rule("get list watch delete", "pods"),
        rule("create update patch", "events"),
    )


def _cluster_dns() -> Obj:
    """What `system:kube-dns` lacks: names of headless services come from EndpointSlices."""
    return cluster_role(CLUSTER_DNS, rule("list watch", "disc:endpointslices"))


def _role(name: str, namespace: str, *rules: list[Obj]) -> Obj:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Role",
        "metadata": _metadata(name, namespace),
        "rules": [entry for group in rules for entry in group],
    }


def _roles() -> Iterator[Obj]:
    yield _role(
        "extension-apiserver-authentication-reader",
        "kube-system",
        rule("get list watch", "configmaps", "extension-apiserver-authentication"),
    )
    for leader, name in (
        ("system::leader-locking-kube-controller-manager", "kube-controller-manager"),
        ("system::leader-locking-kube-scheduler", "kube-scheduler"),
    ):
        yield _role(leader, "kube-system", rule("watch", "configmaps"), rule("get update", "configmaps", name))
    yield _role("system:controller:bootstrap-signer", "kube-system", rule("get list watch", "secrets"))
    yield _role("system:controller:token-cleaner", "kube-system", rule("get list watch delete", "secrets"))
    yield _role(
        "system:controller:bootstrap-signer",
        "kube-public",
        rule("get list watch", "configmaps"),
        rule("update", "configmaps", "cluster-info"),
        rule("create patch update", "events"),
    )
    # Each node's server publishes itself behind the service `kube-dns`.
    yield _role(CLUSTER_DNS, "kube-system", rule("get create update", "services disc:endpointslices"))


def _role_bindings() -> Iterator[Obj]:
    reader = "extension-apiserver-authentication-reader"
    system = "kube-system"
    yield _binding(CLUSTER_DNS, [_user(DNS)], namespace=system)
    yield _binding(reader, [_user(CONTROLLER_MANAGER), _user(SCHEDULER)],
                   name=f"system::{reader}", namespace=system)  # fmt: skip
    for user, name in ((CONTROLLER_MANAGER, "kube-controller-manager"), (SCHEDULER, "kube-scheduler")):
        role = f"system::leader-locking-{name}"
        yield _binding(role, [_user(user), _account(name)], namespace=system)
    yield _binding("system:controller:bootstrap-signer", [_account("bootstrap-signer")], namespace=system)
    yield _binding("system:controller:token-cleaner", [_account("token-cleaner")], namespace=system)
    yield _binding("system:controller:bootstrap-signer", [_account("bootstrap-signer")], namespace="kube-public")
