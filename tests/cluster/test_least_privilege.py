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
    CONFIG_MAPS,
    INGRESSES,
    LEASES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from navarch.testing.embedded import EmbeddedCluster

RBAC = "rbac.authorization.k8s.io"
JANE = User("jane", ("developers", "system:authenticated"))
KUBELET = User("system:node:n1", ("system:nodes", "system:authenticated"))


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(controllers=False) as made:
        yield made


async def test_the_ingress_controller_sees_the_secrets_that_ingresses_name_and_no_others(
    cluster: EmbeddedCluster,
) -> None:
    proxy = cluster.client_as(User("navarch:ingress", ("system:authenticated",)))
    for name in ("shown", "hidden"):
        await cluster.client.create(SECRETS, {"metadata": {"name": name, "namespace": "default"}})
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    spec = {"defaultBackend": backend, "tls": [{"hosts": ["a.example.com"], "secretName": "shown"}]}
    await cluster.client.create(INGRESSES, {"metadata": {"name": "site", "namespace": "default"}, "spec": spec})

    assert (await proxy.get(SECRETS, "shown", "default"))["metadata"]["name"] == "shown"
    assert len((await proxy.list(SECRETS, "default", fields="metadata.name=shown")).items) == 1
    assert (await proxy.list(INGRESSES, "default")).items
    for refused in (
        proxy.get(SECRETS, "hidden", "default"),
        proxy.get(SECRETS, "shown", "kube-system"),
        proxy.list(SECRETS, "default"),
        proxy.delete(SECRETS, "shown", "default"),
        proxy.list(CONFIG_MAPS, "default"),
        proxy.list(PODS, "default"),
    ):
        with pytest.raises(StatusError, match="cannot"):
            await refused
    await cluster.client.delete(INGRESSES, "site", "default")
    with pytest.raises(StatusError, match="cannot"):
        await proxy.get(SECRETS, "shown", "default")


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


def pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "x"}]
    metadata = {"name": name, "namespace": "default"}
    return {"metadata": metadata, "spec": {"containers": containers, "nodeName": node, **spec}}


async def two_nodes(cluster: EmbeddedCluster) -> Client:
    """Pod `mine` on n1, which uses the secret `used`, and `other` on n2; the client is the kubelet of n1."""
    admin = cluster.client
    await admin.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
    for name in ("n1", "n2"):
        await admin.create(NODES, {"metadata": {"name": name}})
    for name in ("used", "unused"):
        await admin.create(SECRETS, {"metadata": {"name": name, "namespace": "default"}, "stringData": {"a": "b"}})
    volumes = [{"name": "v", "secret": {"secretName": "used"}}]
    await admin.create(PODS, pod("mine", "n1", volumes=volumes))
    await admin.create(PODS, pod("other", "n2"))
    return cluster.client_as(KUBELET)


async def test_a_kubelet_sees_what_is_its_own_nodes(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)

    assert (await kubelet.get(NODES, "n1"))["metadata"]["name"] == "n1"
    assert len((await kubelet.list(PODS, fields="spec.nodeName=n1")).items) == 1
    assert (await kubelet.get(PODS, "mine", "default"))["metadata"]["name"] == "mine"
    assert (await kubelet.get(SECRETS, "used", "default"))["data"] == {"a": "Yg=="}
    for call in (
        kubelet.get(NODES, "n2"),
        kubelet.list(NODES),
        kubelet.list(PODS),
        kubelet.list(PODS, fields="spec.nodeName=n2"),
        kubelet.list(PODS, fields="spec.nodeName!=n1"),
        kubelet.get(PODS, "other", "default"),
        kubelet.get(SECRETS, "unused", "default"),
        kubelet.list(SECRETS, "default"),
        kubelet.list(SECRETS, fields="metadata.name=used"),
        kubelet.list(LEASES, "kube-node-lease"),
        kubelet.list(CONFIG_MAPS, "kube-system"),
    ):
        await refused(call)


async def test_a_kubelet_writes_what_is_its_own_nodes(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    lease = {"metadata": {"name": "n1", "namespace": "kube-node-lease"}}

    await kubelet.patch(NODES, "n1", "", ready, subresource="status")
    await kubelet.patch(PODS, "mine", "default", {"status": {"phase": "Running"}}, subresource="status")
    await kubelet.create(LEASES, lease)
    for call in (
        kubelet.patch(NODES, "n2", "", ready, subresource="status"),
        kubelet.patch(NODES, "n1", "", {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
        kubelet.patch(NODES, "n1", "", {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}}),
        kubelet.delete(NODES, "n1"),
        kubelet.patch(PODS, "other", "default", {"status": {"phase": "Failed"}}, subresource="status"),
        kubelet.delete(PODS, "other", "default"),
        kubelet.create(PODS, pod("new", "n1")),
        kubelet.create(LEASES, {"metadata": {"name": "n2", "namespace": "kube-node-lease"}}),
        kubelet.create(LEASES, {"metadata": {"name": "n1", "namespace": "default"}}),
        kubelet.patch(SECRETS, "used", "default", {"data": {}}),
    ):
        await refused(call)


async def test_a_kubelet_gets_tokens_of_its_pods_alone(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)
    mine = await cluster.client.get(PODS, "mine", "default")
    other = await cluster.client.get(PODS, "other", "default")

    def asking(**spec: Any) -> Any:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return kubelet.create(SERVICE_ACCOUNTS, body, namespace="default", name="default", subresource="token")

    def bound(to: dict[str, Any]) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "Pod", "name": to["metadata"]["name"], "uid": to["metadata"]["uid"]}

    assert (await asking(boundObjectRef=bound(mine)))["status"]["token"]
    assert "not bound to a pod" in await refused(asking())
    assert "scheduled on a different node" in await refused(asking(boundObjectRef=bound(other)))
    assert 'audience "vault" not found' in await refused(asking(boundObjectRef=bound(mine), audiences=["vault"]))


def mirror(node: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """What a kubelet says of a pod that it runs from a file."""
    made = pod("mirror", node["metadata"]["name"], **spec)
    owner = {"apiVersion": "v1", "kind": "Node", "name": node["metadata"]["name"], "uid": node["metadata"]["uid"]}
    made["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "hash"}
    made["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
    return made


def container(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "c", "image": "x", **fields}]


def volume(**source: Any) -> list[dict[str, Any]]:
    return [{"name": "v", **source}]


SECRET_KEY = {"secretKeyRef": {"name": "unused", "key": "a"}}
CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}


@pytest.mark.parametrize(
    ("spec", "resource"),
    [
        ({"containers": container(envFrom=[{"secretRef": {"name": "unused"}}])}, "secrets"),
        (
            {"containers": container(env=[{"name": "A", "valueFrom": SECRET_KEY}])},
            "secrets",
        ),
        ({"initContainers": [{**container(envFrom=[{"secretRef": {"name": "unused"}}])[0], "name": "i"}]}, "secrets"),
        ({"imagePullSecrets": [{"name": "unused"}]}, "secrets"),
        ({"volumes": volume(secret={"secretName": "unused"})}, "secrets"),
        ({"volumes": volume(projected={"sources": [{"secret": {"name": "unused"}}]})}, "secrets"),
        ({"volumes": volume(csi={"driver": "d", "nodePublishSecretRef": {"name": "unused"}})}, "secrets"),
        ({"containers": container(envFrom=[{"configMapRef": {"name": "m"}}])}, "configmaps"),
        ({"volumes": volume(projected={"sources": [{"configMap": {"name": "m"}}]})}, "configmaps"),
        ({"volumes": volume(persistentVolumeClaim={"claimName": "c"})}, "persistentvolumeclaims"),
        ({"volumes": volume(ephemeral={"volumeClaimTemplate": CLAIM})}, "persistentvolumeclaims"),
        ({"volumes": volume(csi={"driver": "d"})}, "csidrivers"),
    ],
)
async def test_a_mirror_pod_gives_its_node_nothing_to_read(
    cluster: EmbeddedCluster, spec: dict[str, Any], resource: str
) -> None:
    kubelet = await two_nodes(cluster)
    node = await kubelet.get(NODES, "n1")

    message = await refused(kubelet.create(PODS, mirror(node, **spec)))

    assert message.endswith(f"reference {resource}")
    await refused(kubelet.get(SECRETS, "unused", "default"))


async def test_a_mirror_pod_gives_no_account_and_no_token(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)
    node = await kubelet.get(NODES, "n1")
    token = volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]})

    assert "service account" in await refused(kubelet.create(PODS, mirror(node, serviceAccountName="default")))
    assert "ServiceAccountToken" in await refused(kubelet.create(PODS, mirror(node, volumes=token)))


async def test_a_mirror_pod_that_an_administrator_made_gives_nothing_either(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)
    node = await kubelet.get(NODES, "n1")

    await cluster.client.create(PODS, mirror(node, containers=container(envFrom=[{"secretRef": {"name": "unused"}}])))

    assert (await kubelet.get(PODS, "mirror", "default"))["spec"]["nodeName"] == "n1"
    await refused(kubelet.get(SECRETS, "unused", "default"))


async def test_a_mirror_pod_belongs_to_its_node_and_no_other(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)
    node = await kubelet.get(NODES, "n1")
    other = await cluster.client.get(NODES, "n2")

    def owned(**fields: Any) -> dict[str, Any]:
        made = mirror(node)
        made["metadata"]["ownerReferences"][0].update(fields)
        return made

    assert "controller owner reference" in await refused(kubelet.create(PODS, owned(controller=False)))
    assert "must not set blockOwnerDeletion" in await refused(kubelet.create(PODS, owned(blockOwnerDeletion=True)))
    assert "UID mismatch" in await refused(kubelet.create(PODS, owned(uid=other["metadata"]["uid"])))
    assert "owner reference set to itself" in await refused(kubelet.create(PODS, owned(name="n2")))
    assert (await kubelet.create(PODS, mirror(node)))["metadata"]["name"] == "mirror"


async def test_a_node_does_not_give_itself_a_claim_by_a_pods_status(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)
    claims = {"status": {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "foreign"}]}}

    message = await refused(kubelet.patch(PODS, "mine", "default", claims, subresource="status"))

    assert "cannot update resource claim statues" in message


async def test_what_a_node_may_read_follows_its_pods(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)
    admin = cluster.client
    for name, secret in (("a", "used"), ("b", "unused")):
        volumes = volume(secret={"secretName": secret})
        await admin.create(PODS, pod(name, "n1", volumes=volumes))
    await admin.delete(PODS, "mine", "default", grace_s=0)
    assert await kubelet.get(SECRETS, "used", "default")

    await admin.delete(PODS, "a", "default", grace_s=0)

    await refused(kubelet.get(SECRETS, "used", "default"))
    assert await kubelet.get(SECRETS, "unused", "default")


async def test_a_node_reads_the_secret_of_a_volume_that_a_pod_of_its_claims(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)
    admin = cluster.client
    spec = {**CLAIM["spec"], "storageClassName": "", "volumeName": "disk"}
    await admin.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "data", "namespace": "default"}, "spec": spec})
    disk = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "claimRef": {"namespace": "default", "name": "data"},
        "csi": {
            "driver": "d",
            "volumeHandle": "h",
            "nodeStageSecretRef": {"name": "unused", "namespace": "default"},
        },
    }
    await admin.create(PERSISTENT_VOLUMES, {"metadata": {"name": "disk"}, "spec": disk})
    for call in (kubelet.get(PERSISTENT_VOLUMES, "disk"), kubelet.get(SECRETS, "unused", "default")):
        await refused(call)

    await admin.create(PODS, pod("db", "n1", volumes=volume(persistentVolumeClaim={"claimName": "data"})))

    assert (await kubelet.get(PERSISTENT_VOLUMES, "disk"))["spec"]["csi"]["driver"] == "d"
    assert await kubelet.get(SECRETS, "unused", "default")


async def test_a_claims_status_is_all_that_a_node_writes_of_it(cluster: EmbeddedCluster) -> None:
    kubelet = await two_nodes(cluster)
    claim = {"metadata": {"name": "data", "namespace": "default"}, **CLAIM}
    await cluster.client.create(PERSISTENT_VOLUME_CLAIMS, claim)
    await cluster.client.create(PODS, pod("db", "n1", volumes=volume(persistentVolumeClaim={"claimName": "data"})))

    def patch(body: dict[str, Any]) -> Any:
        return kubelet.patch(PERSISTENT_VOLUME_CLAIMS, "data", "default", body, subresource="status")

    assert "other than status.quantity" in await refused(patch({"metadata": {"labels": {"a": "b"}}}))
    assert "other than status.quantity" in await refused(patch({"status": {"phase": "Bound"}}))
    grown = await patch({"status": {"capacity": {"storage": "2Gi"}}})
    assert grown["status"]["capacity"] == {"storage": "2Gi"}
