"""Ranges of service addresses: ready, in use, going."""

from __future__ import annotations

from navarch.api.meta import Obj
from navarch.client.resources import IP_ADDRESSES, SERVICE_CIDRS, SERVICES
from tests.controllers.conftest import Cluster
from tests.controllers.objects import service


def service_cidr(name: str, *cidrs: str) -> Obj:
    metadata = {"name": name}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": metadata,
        "spec": {"cidrs": [*cidrs]},
    }


async def test_the_range_in_use_is_ready_and_outlives_its_deletion(cluster: Cluster) -> None:
    served = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}}
    await cluster.create(SERVICES, service("web"))
    await cluster.until_count(IP_ADDRESSES, 1)
    await cluster.create(SERVICE_CIDRS, {**served, "spec": {"cidrs": ["10.43.0.0/16"]}})

    async def ready(status: str) -> Obj | None:
        conditions = ((await cluster.get(SERVICE_CIDRS, "kubernetes")).get("status") or {}).get("conditions") or []
        return next((c for c in conditions if c["type"] == "Ready" and c["status"] == status), None)

    told = await cluster.until(lambda: ready("True"))
    assert told["message"] == "Kubernetes Service CIDR is ready"

    await cluster.client.delete(SERVICE_CIDRS, "kubernetes")
    assert (await cluster.until(lambda: ready("False")))["reason"] == "Terminating"

    await cluster.client.delete(SERVICES, "web", "default")
    await cluster.until_count(SERVICE_CIDRS, 0)


async def test_a_range_goes_when_another_has_its_addresses(cluster: Cluster) -> None:
    await cluster.create(SERVICE_CIDRS, service_cidr("small", "10.99.0.0/24"))
    await cluster.create(SERVICES, service("web", clusterIP="10.99.0.9"))
    await cluster.until_count(IP_ADDRESSES, 1)

    async def held() -> bool:
        return bool((await cluster.get(SERVICE_CIDRS, "small"))["metadata"].get("finalizers"))

    await cluster.until(held)
    await cluster.client.delete(SERVICE_CIDRS, "small")
    assert await held()

    await cluster.create(SERVICE_CIDRS, service_cidr("large", "10.99.0.0/16"))

    (left,) = await cluster.until_count(SERVICE_CIDRS, 1)
    assert left["metadata"]["name"] == "large"
