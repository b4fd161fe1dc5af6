"""RBAC decisions from roles and bindings, and what Kubernetes' default roles give."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.apiserver.auth import bootstrap
from navarch.apiserver.auth.authorizer import ClusterAuthorizer
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.auth.rbac import RBACAuthorizer
from navarch.apiserver.auth.tokens import service_account_user
from navarch.apiserver.user import ANONYMOUS, User

from .reader import ListReader

JANE = User("jane", ("developers", "system:authenticated"))


def role(*rules: dict[str, Any], kind: str = "Role", name: str = "r", namespace: str = "dev") -> dict[str, Any]:
    metadata = {"name": name} if kind == "ClusterRole" else {"name": name, "namespace": namespace}
    return {"kind": kind, "metadata": metadata, "rules": list(rules)}


def binding(*subjects: dict[str, Any], kind: str = "RoleBinding", role_kind: str = "Role") -> dict[str, Any]:
    metadata = {"name": "b"} if kind == "ClusterRoleBinding" else {"name": "b", "namespace": "dev"}
    return {"kind": kind, "metadata": metadata, "roleRef": {"kind": role_kind, "name": "r"}, "subjects": list(subjects)}


READ_PODS = {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}
DEVELOPERS = {"kind": "Group", "name": "developers"}


def allowed(*objects: Any, user: User = JANE, **asked: str) -> bool:
    return RBACAuthorizer(ListReader(*objects)).authorize(user, RequestAttributes(**asked)).allowed


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"verb": "get", "resource": "pods", "namespace": "dev", "name": "web"}, True),
        ({"verb": "get", "resource": "pods", "subresource": "log", "namespace": "dev"}, True),
        ({"verb": "delete", "resource": "pods", "namespace": "dev"}, False),
        ({"verb": "get", "resource": "pods", "subresource": "exec", "namespace": "dev"}, False),
        ({"verb": "get", "resource": "pods", "namespace": "prod"}, False),
        ({"verb": "list", "resource": "pods"}, False),
        ({"verb": "get", "group": "apps", "resource": "pods", "namespace": "dev"}, False),
    ],
)
def test_a_role_counts_in_its_namespace_only(asked: dict[str, str], expected: bool) -> None:
    assert allowed(role(READ_PODS), binding(DEVELOPERS), **asked) is expected


def test_a_cluster_role_bound_in_a_namespace_counts_there_only() -> None:
    objects = (role(READ_PODS, kind="ClusterRole"), binding(DEVELOPERS, role_kind="ClusterRole"))

    assert allowed(*objects, verb="get", resource="pods", namespace="dev")
    assert not allowed(*objects, verb="get", resource="pods", namespace="prod")


def test_resource_names_limit_a_rule_to_those_objects() -> None:
    rule = {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"]}
    objects = (role(rule), binding(DEVELOPERS))

    assert allowed(*objects, verb="get", resource="secrets", namespace="dev", name="mine")
    assert not allowed(*objects, verb="get", resource="secrets", namespace="dev", name="other")
    assert not allowed(*objects, verb="get", resource="secrets", namespace="dev")


def test_a_service_account_is_a_subject_of_its_namespace() -> None:
    objects = (role(READ_PODS), binding({"kind": "ServiceAccount", "name": "robot", "namespace": "dev"}))
    asked = {"verb": "list", "resource": "pods", "namespace": "dev"}

    assert allowed(*objects, user=service_account_user("dev", "robot"), **asked)
    assert not allowed(*objects, user=service_account_user("prod", "robot"), **asked)


def test_a_change_counts_after_invalidation() -> None:
    reader = ListReader(role(READ_PODS))
    rbac = RBACAuthorizer(reader)
    asked = RequestAttributes("get", resource="pods", namespace="dev")
    assert not rbac.authorize(JANE, asked).allowed
    reader.objects.append(binding(DEVELOPERS))

    rbac.invalidate()

    assert rbac.authorize(JANE, asked).allowed


@pytest.fixture(scope="module")
def defaults() -> ClusterAuthorizer:
    return ClusterAuthorizer(RBACAuthorizer(ListReader(*bootstrap.objects())))


@pytest.mark.parametrize(
    ("user", "asked", "expected"),
    [
        (User("root", ("system:masters",)), {"verb": "delete", "resource": "nodes"}, True),
        (ANONYMOUS, {"verb": "get", "path": "/healthz"}, True),
        (ANONYMOUS, {"verb": "get", "path": "/api/v1"}, False),
        (JANE, {"verb": "get", "path": "/apis/apps/v1"}, True),
        (JANE, {"verb": "list", "resource": "pods", "namespace": "default"}, False),
        (JANE, {"verb": "create", "group": "authorization.k8s.io", "resource": "selfsubjectaccessreviews"}, True),
        (User("system:kube-scheduler"), {"verb": "create", "resource": "pods", "subresource": "binding"}, True),
        (User("system:kube-scheduler"), {"verb": "get", "resource": "secrets", "namespace": "a"}, False),
        (User("system:kube-controller-manager"), {"verb": "create", "resource": "pods", "namespace": "a"}, True),
        (User("system:kube-proxy"), {"verb": "watch", "resource": "services"}, True),
        (User("system:kube-proxy"), {"verb": "watch", "resource": "secrets"}, False),
    ],
)
def test_default_roles(defaults: ClusterAuthorizer, user: User, asked: dict[str, str], expected: bool) -> None:
    assert defaults.authorize(user, RequestAttributes(**asked)).allowed is expected


def test_admin_includes_edit_and_edit_includes_view() -> None:
    roles = {obj["metadata"]["name"]: obj for obj in bootstrap.objects() if obj["kind"] == "ClusterRole"}

    for rule in roles["view"]["rules"]:
        assert rule in roles["edit"]["rules"]
    for rule in roles["edit"]["rules"]:
        assert rule in roles["admin"]["rules"]
    assert not any("secrets" in rule["resources"] for rule in roles["view"]["rules"])
