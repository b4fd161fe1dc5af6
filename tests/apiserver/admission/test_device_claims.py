"""Claims for devices through a real API server: administrative access, and who may write what of their status."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.user import User
from navarch.client.base import Client, PatchKind
from navarch.client.resources import NAMESPACES, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from navarch.testing.embedded import EmbeddedCluster

DRIVER = "gpu.example.com"
NEEDS_LABEL = (
    "adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on "
    "the containing namespace"
)
STATUS = {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/status"], "verbs": ["update", "patch"]}
BINDING = {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/binding"], "verbs": ["update"]}


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    async with EmbeddedCluster(nodes=0, controllers=False) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: EmbeddedCluster) -> Client:
    return cluster.client


def requests(**exactly: object) -> Obj:
    return {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu", **exactly}}]}}


def claim(namespace: str = "default", name: str = "claim", **exactly: object) -> Obj:
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": metadata,
        "spec": requests(**exactly),
    }


def template(namespace: str, **exactly: object) -> Obj:
    spec = {"spec": requests(**exactly)}
    return {**claim(namespace), "kind": "ResourceClaimTemplate", "spec": spec}


def allocation(*devices: str, admin: bool = False, node: str = "n1") -> Obj:
    part: Obj = {"request": "gpu", "driver": DRIVER, "pool": "p", **({"adminAccess": True} if admin else {})}
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    return {
        "devices": {"results": [{**part, "device": device} for device in devices]},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": fields}]},
    }


def reported(device: str, **more: object) -> Obj:
    return {"driver": DRIVER, "pool": "p", "device": device, "conditions": None, **more}


async def allow(client: Client, user: User, *rules: Obj) -> None:
    """In all namespaces."""
    name = user.name.replace(":", "-")
    await client.request(
        "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", body={"metadata": {"name": name}, "rules": rules}
    )
    bound = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user.name}],
    }
    await client.request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body=bound)


def driver_rule(*verbs: str, driver: str = DRIVER) -> Obj:
    rule = {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/driver"], "verbs": list(verbs)}
    return {**rule, "resourceNames": [driver]}


async def set_status(client: Client, current: Obj, **status: object) -> Obj:
    return await client.update(RESOURCE_CLAIMS, {**current, "status": status}, subresource="status")


async def test_administrative_access_is_for_namespaces_with_the_label_for_it(client: Client) -> None:
    labels = {"resource.kubernetes.io/admin-access": "true"}
    await client.create(NAMESPACES, {"metadata": {"name": "admins", "labels": labels}})

    with pytest.raises(StatusError) as of_claim:
        await client.create(RESOURCE_CLAIMS, claim(adminAccess=True))
    with pytest.raises(StatusError) as of_template:
        await client.create(RESOURCE_CLAIM_TEMPLATES, template("default", adminAccess=True))

    assert of_claim.value.code == 422
    assert str(of_claim.value) == (
        f'ResourceClaim.resource.k8s.io "claim" is invalid: spec.devices.requests[0].{NEEDS_LABEL}'
    )
    assert str(of_template.value).endswith(f'"claim" is invalid: spec.devices.requests[0].{NEEDS_LABEL}')
    for access in (True, False):
        await client.create(RESOURCE_CLAIMS, claim("admins", f"claim-{access}".lower(), adminAccess=access))
    await client.create(RESOURCE_CLAIM_TEMPLATES, template("admins", adminAccess=True))
    await client.create(RESOURCE_CLAIMS, claim(adminAccess=False))


async def test_nor_is_it_given_elsewhere(client: Client) -> None:
    made = await client.create(RESOURCE_CLAIMS, claim())

    with pytest.raises(StatusError) as refused:
        await set_status(client, made, allocation=allocation("d0", admin=True))

    assert f"invalid: status.allocation.devices.results[0].{NEEDS_LABEL}" in str(refused.value)
    assert (await set_status(client, made, allocation=allocation("d0")))["status"]["allocation"]


async def test_what_a_driver_reported_goes_with_the_allocation(client: Client) -> None:
    made = await client.create(RESOURCE_CLAIMS, claim())
    full = await set_status(client, made, allocation=allocation("d0"), devices=[reported("d0")])

    freed = await set_status(client, full, devices=full["status"]["devices"])

    assert full["status"]["devices"] == [reported("d0")]
    assert "devices" not in freed["status"]


async def test_who_allocates_needs_the_permission_for_it(cluster: EmbeddedCluster, client: Client) -> None:
    made = await client.create(RESOURCE_CLAIMS, claim())
    jane, bob = User("jane"), User("bob")
    await allow(client, jane, STATUS)
    await allow(client, bob, STATUS, BINDING)

    with pytest.raises(StatusError) as refused:
        await set_status(cluster.client_as(jane), made, allocation=allocation("d0"))

    assert refused.value.code == 422
    assert str(refused.value) == (
        'ResourceClaim.resource.k8s.io "claim" is invalid: status: Forbidden: changing status.allocation or '
        'status.reservedFor requires resource="resourceclaims/binding", verb="update" permission: '
        'resourceclaims.resource.k8s.io is forbidden: User "jane" cannot update resource "resourceclaims/binding" in '
        'API group "resource.k8s.io" at the cluster scope'
    )
    full = await set_status(cluster.client_as(bob), made, allocation=allocation("d0"))
    # Nothing of what it takes permission for.
    assert (await set_status(cluster.client_as(jane), full, **full["status"]))["status"] == full["status"]


async def test_a_driver_reports_of_its_own_devices(cluster: EmbeddedCluster, client: Client) -> None:
    made = await client.create(RESOURCE_CLAIMS, claim())
    full = await set_status(client, made, allocation=allocation("d0"))
    other, anywhere = User("other"), User("anywhere")
    await allow(client, other, STATUS, driver_rule("arbitrary-node:update", driver="nic.example.com"))
    await allow(client, anywhere, STATUS, driver_rule("arbitrary-node:update"))
    devices = [reported("d0", data={"port": 1})]

    with pytest.raises(StatusError) as refused:
        await set_status(cluster.client_as(other), full, allocation=full["status"]["allocation"], devices=devices)

    assert str(refused.value) == (
        'ResourceClaim.resource.k8s.io "claim" is invalid: status.devices: Forbidden: changing status.devices requires '
        'resource="resourceclaims/driver", verb="[arbitrary-node:update]" permission: resourceclaims.resource.k8s.io '
        f'"{DRIVER}" is forbidden: User "other" cannot arbitrary-node:update resource "resourceclaims/driver" in API '
        'group "resource.k8s.io" in the namespace "default"'
    )
    allocated = full["status"]["allocation"]
    told = await set_status(cluster.client_as(anywhere), full, allocation=allocated, devices=devices)
    assert told["status"]["devices"] == devices


async def test_a_driver_of_one_node_reports_of_that_nodes_devices(cluster: EmbeddedCluster, client: Client) -> None:
    name = "system:serviceaccount:kube-system:driver"
    here, there = (User(name, extra={"authentication.kubernetes.io/node-name": (node,)}) for node in ("n1", "n2"))
    await allow(client, here, STATUS, driver_rule("associated-node:patch"))
    made = await client.create(RESOURCE_CLAIMS, claim())
    await set_status(client, made, allocation=allocation("d0"))
    change = {"status": {"devices": [reported("d0")]}}

    async def report(user: User) -> Obj:
        patching = cluster.client_as(user)
        return await patching.patch(
            RESOURCE_CLAIMS, "claim", "default", change, kind=PatchKind.MERGE, subresource="status"
        )

    with pytest.raises(StatusError, match=r'verb="\[arbitrary-node:patch\]"'):
        await report(there)
    assert (await report(here))["status"]["devices"] == [reported("d0")]
