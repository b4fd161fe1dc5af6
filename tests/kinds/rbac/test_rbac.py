"""Roles and bindings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kinds.writing import created, headings, refused, row, updated

GROUP = "rbac.authorization.k8s.io"
ROLE = {"kind": "ClusterRole", "name": "view"}


@pytest.mark.parametrize(
    ("kind", "rule", "error"),
    [
        (
            "Role",
            {"apiGroups": [""], "resources": ["pods"]},
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            "Role",
            {"verbs": ["get"], "resources": ["pods"]},
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        ),
        (
            "Role",
            {"verbs": ["get"], "nonResourceURLs": ["/x"]},
            'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs',
        ),
        (
            "ClusterRole",
            {"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]},
            'rules[0].nonResourceURLs: Invalid value: ["/x"]: '
            "rules cannot apply to both regular resources and non-resource URLs",
        ),
    ],
)
def test_what_is_refused_of_a_role(kind: str, rule: Any, error: str) -> None:
    assert error in refused(GROUP, kind, {"rules": [rule]})


def test_binding_defaults() -> None:
    subjects = [{"kind": "User", "name": "ann"}, {"kind": "ServiceAccount", "name": "bot"}]
    obj, errors = created(GROUP, "RoleBinding", {"roleRef": ROLE, "subjects": subjects})
    assert errors == []
    assert obj["roleRef"]["apiGroup"] == GROUP
    assert obj["subjects"] == [
        {"kind": "User", "name": "ann", "apiGroup": GROUP},
        {"kind": "ServiceAccount", "name": "bot", "namespace": "default"},
    ]
    assert headings(GROUP, "RoleBinding") == (["Name", "Role", "Age"], ["Users", "Groups", "ServiceAccounts"])
    assert row(GROUP, "RoleBinding", obj, wide=True)[1::2] == ["ClusterRole/view", "ann", "default/bot"]


def test_the_role_of_a_binding_is_fixed() -> None:
    old = created(GROUP, "RoleBinding", {"roleRef": ROLE})[0]
    (error,) = updated(GROUP, "RoleBinding", old, {**old, "roleRef": {**old["roleRef"], "name": "edit"}})[1]
    assert error.endswith(": cannot change roleRef")


def test_a_cluster_role_binding_grants_cluster_roles_only() -> None:
    errors = refused(GROUP, "ClusterRoleBinding", {"roleRef": {"kind": "Role", "name": "x"}})
    assert errors == ['roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"']
