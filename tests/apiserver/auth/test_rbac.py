"""RBAC decisions from roles and bindings, and what Kubernetes' default roles give."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.apiserver.auth import bootstrap
from navarch.apiserver.auth.authorizer import ClusterAuthorizer
from navarch.apiserver.auth.base import RequestAttributes
from navarch.apiserver.auth.rbac import RBACAuthorizer
from navarch.apiserver.auth.roles import Serves
from navarch.apiserver.auth.tokens import service_account_user
from navarch.apiserver.user import ANONYMOUS, User

from .reader import ListReader

EVERYTHING: Serves = lambda group, plural: True  # noqa: E731
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
    return ClusterAuthorizer(RBACAuthorizer(ListReader(*bootstrap.objects(EVERYTHING))))


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


def test_what_is_aggregated_to_the_roles_of_people_never_holds_secrets_for_viewers() -> None:
    roles = {obj["metadata"]["name"]: obj for obj in bootstrap.objects(EVERYTHING) if obj["kind"] == "ClusterRole"}

    for name in ("view", "edit", "admin"):
        selected = roles[name]["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"]
        assert selected.items() <= roles[f"system:aggregate-to-{name}"]["metadata"]["labels"].items()
    assert not any("secrets" in rule["resources"] for rule in roles["system:aggregate-to-view"]["rules"])


def test_roles_of_apis_that_are_not_served_are_not_there() -> None:
    def names(serves: Serves) -> set[str]:
        return {obj["metadata"]["name"] for obj in bootstrap.objects(serves)}

    without = names(lambda group, plural: False)

    assert "system:controller:podcertificaterequestcleaner" in names(EVERYTHING) - without
    assert "system:cluster-trust-bundle-discovery" in names(EVERYTHING) - without
    assert "system:controller:deployment-controller" in without
