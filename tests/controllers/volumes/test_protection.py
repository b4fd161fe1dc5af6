"""Claims and volumes that are in use outlive their deletion until nobody uses them."""

from __future__ import annotations

from typing import Any

from navarch.api.meta import Obj, is_deleting
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, VOLUME_ATTRIBUTES_CLASSES
from tests.controllers.conftest import Cluster
from tests.controllers.volumes.objects import claim, volume


def pod_with(claim_name: str, name: str = "user", **spec: Any) -> Obj:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "app:1"}], "volumes": volumes, **spec},
    }


async def test_a_claim_stays_until_its_pod_is_gone(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim())
    await cluster.create(PODS, pod_with("data"))
    await cluster.until_status(PODS, "user", phase="Running")

    await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
    kept = await cluster.get(PERSISTENT_VOLUME_CLAIMS, "data")
    assert is_deleting(kept)
    assert kept["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]

    await cluster.client.delete(PODS, "user", "default")
    await cluster.until_count(PERSISTENT_VOLUME_CLAIMS, 0)


async def test_a_claim_whose_pod_has_finished_may_go(cluster: Cluster) -> None:
    cluster.kubelet.outcomes["app:1"] = 0
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim())
    await cluster.create(PODS, pod_with("data", restartPolicy="Never"))
    await cluster.until_status(PODS, "user", phase="Succeeded")

    await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")

    await cluster.until_count(PERSISTENT_VOLUME_CLAIMS, 0)


async def test_a_bound_volume_stays_until_it_is_released(cluster: Cluster) -> None:
    await cluster.create(PERSISTENT_VOLUMES, volume())
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, claim())
    await cluster.until_status(PERSISTENT_VOLUMES, "disk", phase="Bound")

    await cluster.client.delete(PERSISTENT_VOLUMES, "disk")
    assert (await cluster.get(PERSISTENT_VOLUMES, "disk"))["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]

    await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
    await cluster.until_count(PERSISTENT_VOLUMES, 0)


async def test_a_class_of_attributes_stays_while_a_claim_has_it(cluster: Cluster) -> None:
    for name in ("used", "free"):
        made = {"metadata": {"name": name}, "driverName": "d.example.com", "parameters": {"iops": "1"}}
        await cluster.create(VOLUME_ATTRIBUTES_CLASSES, made)
    wanted = claim()
    wanted["spec"]["volumeAttributesClassName"] = "used"
    await cluster.create(PERSISTENT_VOLUME_CLAIMS, wanted)

    for name in ("used", "free"):
        await cluster.client.delete(VOLUME_ATTRIBUTES_CLASSES, name)

    (kept,) = await cluster.until_count(VOLUME_ATTRIBUTES_CLASSES, 1)
    assert kept["metadata"]["name"] == "used"
    assert kept["metadata"]["finalizers"] == ["kubernetes.io/vac-protection"]
    await cluster.client.delete(PERSISTENT_VOLUME_CLAIMS, "data", "default")
    await cluster.until_count(VOLUME_ATTRIBUTES_CLASSES, 0)
