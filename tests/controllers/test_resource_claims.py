"""Claims of devices that are made from a template, reserved for pods and let go of."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj, controller_of, name_of, uid_of
from navarch.client.base import PatchKind
from navarch.client.resources import PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS
from navarch.controllers.resource_claims import FINALIZER, make_claim
from tests.controllers.conftest import Cluster, running

_REQUESTS = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}}


def template() -> Obj:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "one", "namespace": "default"},
        "spec": {"metadata": {"labels": {"kind": "gpu"}}, "spec": _REQUESTS},
    }


def claim(name: str = "shared", **metadata: Any) -> Obj:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": _REQUESTS,
    }


def pod(name: str = "app", entry: Obj | None = None, **spec: Any) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "app:1"}],
            "resourceClaims": [entry or {"name": "gpu", "resourceClaimTemplateName": "one"}],
            **spec,
        },
    }


async def _allocate(cluster: Cluster, name: str, users: list[Obj]) -> None:
    result = {"request": "gpu", "driver": "gpu.example.com", "pool": "p", "device": "d"}
    await cluster.patch(RESOURCE_CLAIMS, name, {"metadata": {"finalizers": [FINALIZER]}})
    status = {"allocation": {"devices": {"results": [result]}}, "reservedFor": users}
    await cluster.client.patch(
        RESOURCE_CLAIMS, name, "default", {"status": status}, kind=PatchKind.MERGE, subresource="status"
    )


async def test_a_pod_gets_a_claim_from_the_template_that_it_names(cluster: Cluster) -> None:
    await cluster.create(RESOURCE_CLAIM_TEMPLATES, template())
    made = await cluster.create(PODS, pod())

    (found,) = await cluster.until_count(RESOURCE_CLAIMS, 1)

    assert name_of(found).startswith("app-gpu-")
    assert found["metadata"]["annotations"] == {"resource.kubernetes.io/pod-claim-name": "gpu"}
    assert found["metadata"]["labels"] == {"kind": "gpu"}
    assert (controller_of(found) or {})["uid"] == uid_of(made)
    seen = await cluster.until_status(
        PODS, "app", resourceClaimStatuses=[{"name": "gpu", "resourceClaimName": name_of(found)}]
    )
    assert uid_of(seen) == uid_of(made)
    assert len(await cluster.list(RESOURCE_CLAIMS)) == 1

    await cluster.client.delete(PODS, "app", "default")
    await cluster.until_count(RESOURCE_CLAIMS, 0)


async def test_the_claim_of_a_finished_pod_goes_before_the_pod(cluster: Cluster) -> None:
    cluster.kubelet.outcomes["app:1"] = 0
    await cluster.create(RESOURCE_CLAIM_TEMPLATES, template())
    await cluster.create(PODS, pod())

    await cluster.until_status(PODS, "app", phase="Succeeded")

    await cluster.until_count(RESOURCE_CLAIMS, 0)


async def test_a_pod_whose_template_is_missing_is_told(cluster: Cluster) -> None:
    await cluster.create(PODS, pod())

    async def told() -> str | None:
        return next((text for reason, text in await cluster.events("app") if reason.startswith("FailedRes")), None)

    assert await cluster.until(told) == (
        'PodResourceClaim gpu: resource claim template "one": resourceclaimtemplate.resource.k8s.io "one" not found'
    )


async def test_devices_are_given_back_when_the_last_user_is_gone(cluster: Cluster) -> None:
    await cluster.create(RESOURCE_CLAIMS, claim())
    user = await cluster.create(PODS, pod(entry={"name": "gpu", "resourceClaimName": "shared"}))
    reference = {"resource": "pods", "name": "app", "uid": uid_of(user)}
    await _allocate(cluster, "shared", [reference])

    await cluster.client.delete(PODS, "app", "default")

    async def free() -> bool:
        seen = await cluster.get(RESOURCE_CLAIMS, "shared")
        return not seen.get("status") and not seen["metadata"].get("finalizers")

    await cluster.until(free)


async def test_a_pod_that_came_with_its_node_is_reserved_for_late() -> None:
    async with running(kubelet=False) as cluster:
        await cluster.create(RESOURCE_CLAIMS, claim())
        user = await cluster.create(PODS, pod(entry={"name": "gpu", "resourceClaimName": "shared"}, nodeName="n1"))

        await _allocate(cluster, "shared", [])

        seen = await cluster.until_status(
            RESOURCE_CLAIMS, "shared", reservedFor=[{"resource": "pods", "name": "app", "uid": uid_of(user)}]
        )
        assert seen["status"]["allocation"]


async def test_a_claim_that_is_not_used_can_be_deleted_with_its_devices(cluster: Cluster) -> None:
    await cluster.create(RESOURCE_CLAIMS, claim())
    await _allocate(cluster, "shared", [])

    await cluster.client.delete(RESOURCE_CLAIMS, "shared", "default")

    await cluster.until_count(RESOURCE_CLAIMS, 0)


def test_pod_and_entry_share_the_room_for_the_name_of_a_claim() -> None:
    long = pod("p" * 60)
    long["metadata"]["uid"] = "u"

    base = make_claim(long, "e" * 20, template())["metadata"]["generateName"]

    assert base == "p" * 41 + "-" + "e" * 13
