"""How pods find the DNS server: the Service `kube-dns` at the address that every pod's resolv.conf has, and behind it
one EndpointSlice for each node's server, with the hint that the node's own pods use it first.

A `kube-dns` service with a selector is somebody's own DNS (CoreDNS, say) and is left alone.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from navarch.api.meta import Obj
from navarch.client.base import Client
from navarch.client.resources import ENDPOINT_SLICES, SERVICES
from navarch.client.supervision import Delay, Failures

log = logging.getLogger(__name__)

NAMESPACE: Final = "kube-system"
SERVICE: Final = "kube-dns"
MANAGER: Final = "navarch-dns"
_REFRESH_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Published:
    """Where this node's server listens, and the address by which pods know it."""

    node_name: str
    cluster_ip: str
    address: str
    port: int
    metrics_port: int


def desired_service(published: Published) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": SERVICE,
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": SERVICE,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
                "app.kubernetes.io/managed-by": MANAGER,
            },
        },
        "spec": {
            "clusterIP": published.cluster_ip,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
            ],
        },
    }


def desired_slice(published: Published) -> Obj:
    endpoint: Obj = {
        "addresses": [published.address],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": published.node_name,
        "hints": {"forNodes": [{"name": published.node_name}]},
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{SERVICE}-{published.node_name}"[:253].rstrip("-."),
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": SERVICE,
                "endpointslice.kubernetes.io/managed-by": MANAGER,
                "k8s-app": SERVICE,
            },
        },
        "addressType": "IPv6" if ":" in published.address else "IPv4",
        "endpoints": [endpoint],
        "ports": [
            {"name": "dns", "port": published.port, "protocol": "UDP"},
            {"name": "dns-tcp", "port": published.port, "protocol": "TCP"},
            {"name": "metrics", "port": published.metrics_port, "protocol": "TCP"},
        ],
    }


async def publish(client: Client, published: Published) -> bool:
    """Create or repair both objects; False where the service is somebody else's."""
    wanted = desired_service(published)
    service = await client.find(SERVICES, SERVICE, NAMESPACE)
    if service is None:
        await client.create(SERVICES, wanted)
    elif (service.get("spec") or {}).get("selector"):
        return False
    elif _ports(service) != _ports(wanted):
        spec = {**service["spec"], "ports": wanted["spec"]["ports"]}
        await client.update(SERVICES, {**service, "spec": spec})
    endpoints = desired_slice(published)
    found = await client.find(ENDPOINT_SLICES, endpoints["metadata"]["name"], NAMESPACE)
    if found is None:
        await client.create(ENDPOINT_SLICES, endpoints)
    elif any(found.get(field) != endpoints[field] for field in ("endpoints", "ports")):
        changes = {field: endpoints[field] for field in ("endpoints", "ports")}
        await client.update(ENDPOINT_SLICES, {**found, **changes})
    return True


async def keep_published(client: Client, published: Published, failures: Failures) -> None:
    """Publish, again after any failure (the namespace may not be there yet), and look after it until cancelled."""
    delay = Delay(0.1, 10.0)
    while True:
        try:
            if not await publish(client, published):
                log.info("service %s/%s has a selector; leaving DNS to it", NAMESPACE, SERVICE)
        except Exception as error:
            failures.note("publishing cluster DNS", error)
            await asyncio.sleep(delay.failed())
        else:
            delay.succeeded()
            await asyncio.sleep(_REFRESH_S)


def _ports(service: Obj) -> list[tuple[str, int, str]]:
    ports = (service.get("spec") or {}).get("ports") or ()
    return [(port.get("name", ""), port["port"], port.get("protocol") or "TCP") for port in ports]
