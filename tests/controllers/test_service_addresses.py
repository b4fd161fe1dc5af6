"""IPAddresses that follow the Services, and the state of their range."""

from __future__ import annotations

from navarch.api.meta import Obj, name_of
from navarch.client.resources import IP_ADDRESSES, SERVICE_CIDRS, SERVICES
from tests.controllers.conftest import Cluster
from tests.controllers.objects import service


async def test_a_cluster_ip_has_an_address_object_as_long_as_its_service(cluster: Cluster) -> None:
    made = await cluster.create(SERVICES, service("web"))

    (address,) = await cluster.until_count(IP_ADDRESSES, 1)

    assert name_of(address) == made["spec"]["clusterIP"]
    assert address["spec"]["parentRef"] == {"resource": "services", "namespace": "default", "name": "web"}
    assert address["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        "ipaddress.kubernetes.io/ip-family": "IPv4",
    }
    await cluster.client.delete(SERVICES, "web", "default")
    await cluster.until_count(IP_ADDRESSES, 0)


async def test_an_address_that_passed_to_another_service_names_that_one(cluster: Cluster) -> None:
    made = await cluster.create(SERVICES, service("old"))
    await cluster.until_count(IP_ADDRESSES, 1)

    await cluster.client.delete(SERVICES, "old", "default")
    await cluster.create(SERVICES, service("new", clusterIP=made["spec"]["clusterIP"]))

    async def renamed() -> bool:
        listed = await cluster.list(IP_ADDRESSES)
        return [address["spec"]["parentRef"]["name"] for address in listed] == ["new"]

    await cluster.until(renamed)


async def test_addresses_that_somebody_else_made_stay(cluster: Cluster) -> None:
    spec = {"parentRef": {"resource": "gateways", "group": "example.com", "name": "edge"}}
    foreign = {"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "192.0.2.1"}}
    await cluster.create(IP_ADDRESSES, {**foreign, "spec": spec})

    await cluster.create(SERVICES, service("web"))
    await cluster.until_count(IP_ADDRESSES, 2)
    await cluster.client.delete(SERVICES, "web", "default")

    (left,) = await cluster.until_count(IP_ADDRESSES, 1)
    assert name_of(left) == "192.0.2.1"


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
