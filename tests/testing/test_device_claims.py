"""Pods with claims of devices in a whole cluster: made from a template, allocated, reserved, and let go of again."""

from __future__ import annotations

import asyncio

from navarch.api.meta import Obj
from navarch.client.resources import (
    DEVICE_CLASSES,
    NODES,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
)
from navarch.testing.embedded import EmbeddedCluster

DRIVER = "gpu.example.com"


async def offer(cluster: EmbeddedCluster, *devices: str) -> None:
    selector = {"cel": {"expression": f'device.driver == "{DRIVER}"'}}
    await cluster.client.create(
        DEVICE_CLASSES,
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": "gpu"},
            "spec": {"selectors": [selector], "extendedResourceName": "example.com/gpu"},
        },
    )
    node = (await cluster.client.list(NODES)).items[0]["metadata"]["name"]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": [{"name": name} for name in devices]}
    slices = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": spec}
    await cluster.client.create(RESOURCE_SLICES, slices)


def pod(name: str, **spec: object) -> Obj:
    container = {"name": "c", "image": "web", **({"resources": spec.pop("resources")} if "resources" in spec else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [container], **spec},
    }


async def until(cluster: EmbeddedCluster, name: str, phase: str = "Running") -> Obj:
    async with asyncio.timeout(30):
        async for event in cluster.client.watch(PODS, "default", fields=f"metadata.name={name}"):
            if (event.object.get("status") or {}).get("phase") == phase:
                return event.object
    raise AssertionError(f"{name} did not become {phase}")


async def test_a_template_becomes_a_claim_that_goes_with_its_pod() -> None:
    async with EmbeddedCluster(nodes=1) as cluster:
        client = cluster.client
        await offer(cluster, "gpu-0")
        request = {"name": "r", "exactly": {"deviceClassName": "gpu"}}
        template = {
            "metadata": {"name": "t", "namespace": "default"},
            "spec": {"spec": {"devices": {"requests": [request]}}},
        }
        kind = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate"}
        await client.create(RESOURCE_CLAIM_TEMPLATES, {**kind, **template})
        entry = {"name": "gpu", "resourceClaimTemplateName": "t"}

        for name in ("first", "second"):
            await client.create(PODS, pod(name, resourceClaims=[entry]))
            running = await until(cluster, name)
            claim_name = running["status"]["resourceClaimStatuses"][0]["resourceClaimName"]
            claim = await client.get(RESOURCE_CLAIMS, claim_name, "default")
            assert [each["device"] for each in claim["status"]["allocation"]["devices"]["results"]] == ["gpu-0"]
            assert [user["name"] for user in claim["status"]["reservedFor"]] == [name]
            # The second pod gets the device that the first one has given back.
            await client.delete(PODS, name, "default", grace_s=0)

        async with asyncio.timeout(30):
            while (await client.list(RESOURCE_CLAIMS)).items:
                await asyncio.sleep(0.05)


async def test_devices_stand_for_a_resource_that_no_plugin_offers() -> None:
    async with EmbeddedCluster(nodes=1) as cluster:
        await offer(cluster, "gpu-0", "gpu-1")
        wanted = {"limits": {"example.com/gpu": "2"}}

        await cluster.client.create(PODS, pod("web", resources=wanted))

        told = (await until(cluster, "web"))["status"]["extendedResourceClaimStatus"]
        claim = await cluster.client.get(RESOURCE_CLAIMS, told["resourceClaimName"], "default")
        assert len(claim["status"]["allocation"]["devices"]["results"]) == 2
        assert told["requestMappings"] == [
            {"containerName": "c", "resourceName": "example.com/gpu", "requestName": "container-0-request-0"}
        ]
