"""Versions of built-in groups that are off by default: one object in all of them, and only where they are on."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Resource
from navarch.kinds.resources import RESOURCE_CLAIMS, RESOURCE_SLICES
from navarch.testing.embedded import EmbeddedCluster

BETA = RESOURCE_CLAIMS._replace(version="v1beta1")
SLICES_BETA = RESOURCE_SLICES._replace(version="v1beta1")


async def test_versions_are_off_unless_they_are_switched_on() -> None:
    async with EmbeddedCluster(controllers=False) as cluster:
        with pytest.raises(StatusError, match="could not find the requested resource"):
            await cluster.client.list(BETA, "default")


async def test_a_claim_of_an_older_shape_is_the_same_claim() -> None:
    async with EmbeddedCluster(controllers=False, runtime_config="api/beta=true") as cluster:
        request = {"name": "gpu", "deviceClassName": "gpus"}
        claim = {"metadata": {"name": "c", "namespace": "default"}, "spec": {"devices": {"requests": [request]}}}
        made = await cluster.client.create(BETA, claim)
        read = await cluster.client.get(RESOURCE_CLAIMS, "c", "default")

        assert made["apiVersion"] == "resource.k8s.io/v1beta1"
        asked = {"deviceClassName": "gpus", "allocationMode": "ExactCount", "count": 1}
        assert made["spec"]["devices"]["requests"] == [{"name": "gpu", **asked}]
        assert read["spec"]["devices"]["requests"] == [{"name": "gpu", "exactly": asked}]
        for version in ("v1", "v1beta1", "v1beta2"):
            listed = await cluster.client.list(RESOURCE_CLAIMS._replace(version=version), "default")
            assert [each["metadata"]["uid"] for each in listed.items] == [made["metadata"]["uid"]]


async def test_devices_of_an_older_shape_are_the_same_devices() -> None:
    async with EmbeddedCluster(controllers=False, runtime_config="resource.k8s.io/v1beta1=true") as cluster:
        pool = {"name": "p", "generation": 1, "resourceSliceCount": 1}
        device = {"name": "d0", "basic": {"attributes": {"model": {"string": "x"}}}}
        spec = {"driver": "d.example.com", "nodeName": "n1", "pool": pool, "devices": [device]}
        await cluster.client.create(SLICES_BETA, {"metadata": {"name": "s"}, "spec": spec})

        stored = await cluster.client.get(RESOURCE_SLICES, "s")
        beta = await cluster.client.get(SLICES_BETA, "s")

    assert stored["spec"]["devices"] == [{"name": "d0", "attributes": {"model": {"string": "x"}}}]
    assert beta["spec"]["devices"] == [device]


async def test_objects_stay_where_the_version_that_they_are_stored_in_is_off() -> None:
    off = "resource.k8s.io/v1=false,resource.k8s.io/v1beta2=true"
    async with EmbeddedCluster(controllers=False, runtime_config=off) as cluster:
        served = RESOURCE_CLAIMS._replace(version="v1beta2")
        request: dict[str, Any] = {"name": "gpu", "exactly": {"deviceClassName": "gpus"}}
        claim = {"metadata": {"name": "c", "namespace": "default"}, "spec": {"devices": {"requests": [request]}}}
        await cluster.client.create(served, claim)

        assert (await cluster.client.get(served, "c", "default"))["apiVersion"] == "resource.k8s.io/v1beta2"
        with pytest.raises(StatusError, match="could not find the requested resource"):
            await cluster.client.get(RESOURCE_CLAIMS, "c", "default")


@pytest.mark.parametrize("plural", ["storageversions", "devicetaintrules", "leasecandidates", "podcertificaterequests"])
async def test_alpha_kinds_can_be_listed_once_everything_is_on(plural: str) -> None:
    async with EmbeddedCluster(controllers=False, runtime_config="api/all=true") as cluster:
        kinds = [kind for kind in cluster.server.core.registry.kinds() if kind.resource.plural == plural]
        assert kinds
        for kind in kinds:
            resource: Resource = kind.resource
            assert (await cluster.client.list(resource)).items == []
