"""What identities may not do in a cluster as `navarch up` puts it together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.apiserver.user import User
from navarch.client.base import Client
from navarch.client.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
)
from navarch.testing.embedded import EmbeddedCluster

RBAC = "rbac.authorization.k8s.io"
JANE = User("jane", ("developers", "system:authenticated"))
KUBELET = User("system:node:n1", ("system:nodes", "system:authenticated"))


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(controllers=False) as made:
        yield made


def role(name: str, *rules: dict[str, Any], kind: str = "Role") -> dict[str, Any]:
    metadata = {"name": name} if kind == "ClusterRole" else {"name": name, "namespace": "default"}
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": list(rules)}


def binding(name: str, role_name: str, user: str = "jane", role_kind: str = "ClusterRole") -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": "default"},
        "roleRef": {"apiGroup": RBAC, "kind": role_kind, "name": role_name},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
    }


def rule(verbs: str, resources: str, group: str = "", names: str = "") -> dict[str, Any]:
    stated: dict[str, Any] = {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split()}
    return {**stated, "resourceNames": names.split()} if names else stated


async def namespace_admin(cluster: EmbeddedCluster) -> Client:
    await cluster.client.create(ROLE_BINDINGS, binding("jane-admin", "admin"))
    return cluster.client_as(JANE)


async def refused(call: Any) -> str:
    with pytest.raises(StatusError) as caught:
        await call
    assert caught.value.code == 403, caught.value.message
    return caught.value.message


async def test_a_role_gives_only_what_its_author_holds(cluster: EmbeddedCluster) -> None:
    jane = await namespace_admin(cluster)

    await jane.create(ROLES, role("own", rule("get list", "pods"), rule("get", "pods/log", names="web")))
    message = await refused(
        jane.create(ROLES, role("more", rule("get", "pods"), rule("get list", "nodes"), rule("*", "widgets", "x.io")))
    )

    assert message == (
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "jane" (groups=["developers" '
        '"system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["nodes"], Verbs:["get" "list"]}\n'
        '{APIGroups:["x.io"], Resources:["widgets"], Verbs:["*"]}'
    )


async def test_a_role_cannot_grow_beyond_its_author_by_any_kind_of_write(cluster: EmbeddedCluster) -> None:
    jane = await namespace_admin(cluster)
    stored = await jane.create(ROLES, role("own", rule("get", "pods")))
    everything = rule("*", "*", "*")

    await refused(jane.update(ROLES, {**stored, "rules": [everything]}))
    await refused(jane.patch(ROLES, "own", "default", {"rules": [everything]}))
    await refused(jane.apply(ROLES, role("own", everything), field_manager="x", force=True))
    assert (await jane.get(ROLES, "own", "default"))["rules"] == [rule("get", "pods")]


async def test_a_binding_gives_only_what_its_author_holds(cluster: EmbeddedCluster) -> None:
    jane = await namespace_admin(cluster)

    await jane.create(ROLE_BINDINGS, binding("viewer", "view", "joe"))
    message = await refused(jane.create(ROLE_BINDINGS, binding("boss", "cluster-admin", "jane")))

    assert 'APIGroups:["*"], Resources:["*"], Verbs:["*"]' in message
    with pytest.raises(StatusError) as unknown:
        await jane.create(ROLE_BINDINGS, binding("nobody", "no-such-role", "jane"))
    assert unknown.value.code == 404


async def test_the_verbs_bind_and_escalate_let_one_give_more(cluster: EmbeddedCluster) -> None:
    jane = await namespace_admin(cluster)
    lets = role("lets", rule("bind", "clusterroles", RBAC, "cluster-admin"), rule("escalate", "roles", RBAC))
    await cluster.client.create(ROLES, lets)
    await cluster.client.create(ROLE_BINDINGS, binding("lets", "lets", role_kind="Role"))

    await jane.create(ROLE_BINDINGS, binding("boss", "cluster-admin", "joe"))
    await jane.create(ROLES, role("more", rule("get", "nodes")))
    await refused(jane.create(ROLE_BINDINGS, binding("other", "system:node", "joe")))


async def test_an_aggregated_role_takes_a_cluster_admin(cluster: EmbeddedCluster) -> None:
    writes = role("writes", rule("create update patch get", "clusterroles", RBAC), kind="ClusterRole")
    await cluster.client.create(CLUSTER_ROLES, writes)
    bound = {**binding("writes", "writes"), "kind": "ClusterRoleBinding", "metadata": {"name": "writes"}}
    await cluster.client.create(CLUSTER_ROLE_BINDINGS, bound)
    jane = cluster.client_as(JANE)
    selectors = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}

    await jane.create(CLUSTER_ROLES, role("same", rule("get", "clusterroles", RBAC), kind="ClusterRole"))
    message = await refused(
        jane.create(CLUSTER_ROLES, {**role("sum", kind="ClusterRole"), "aggregationRule": selectors})
    )

    assert "must have cluster-admin privileges to use the aggregationRule" in message
