"""Claims that come and go with the pod that brings their template."""

from __future__ import annotations

from navarch.api.meta import Obj, controller_of, uid_of
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PODS
from tests.controllers.conftest import Cluster
from tests.controllers.volumes.objects import claim


def pod(name: str = "app") -> Obj:
    template = {"metadata": {"labels": {"kind": "scratch"}}, "spec": claim()["spec"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "containers": [{"name": "main", "image": "app:1"}],
            "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}],
        },
    }


async def test_a_pod_gets_the_claim_that_it_brings_and_takes_it_along(cluster: Cluster) -> None:
    made = await cluster.create(PODS, pod())

    (found,) = await cluster.until_count(PERSISTENT_VOLUME_CLAIMS, 1)

    assert found["metadata"]["name"] == "app-scratch"
    assert found["metadata"]["labels"] == {"kind": "scratch"}
    assert (controller_of(found) or {})["uid"] == uid_of(made)
    assert found["spec"]["resources"] == {"requests": {"storage": "1Gi"}}

    await cluster.client.delete(PODS, "app", "default")
    await cluster.until_count(PERSISTENT_VOLUME_CLAIMS, 0)


async def test_a_claim_of_somebody_else_is_not_used(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim("app-scratch"))

    await cluster.create(PODS, pod())

    async def told() -> str | None:
        return next((text for reason, text in await cluster.events("app") if reason == "FailedBinding"), None)

    assert await cluster.until(told) == (
        'ephemeral volume scratch: PVC "default/app-scratch" was not created for pod "default/app" (pod is not owner)'
    )
