"""What quotas count: devices, volumes that were to grow, pods that should be gone."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.api.time import format_time, parse_time
from navarch.client.resources import PERSISTENT_VOLUME_CLAIMS, PODS, RESOURCE_CLAIMS, RESOURCE_QUOTAS
from navarch.kinds.core.quota_usage import usage_of
from tests.controllers.conftest import Cluster

_DEVICES = "gold.deviceclass.resource.k8s.io/devices"
_NOW = parse_time("2026-01-01T12:00:00Z")


def device_claim(name: str, *requests: Obj) -> Obj:
    named = [{"name": f"r{number}", **request} for number, request in enumerate(requests)]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"devices": {"requests": named}},
    }


def exactly(count: int, device_class: str = "gold", **more: Any) -> Obj:
    return {"exactly": {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count, **more}}


def test_of_alternatives_the_largest_counts() -> None:
    either = {
        "firstAvailable": [
            {"name": "a", "deviceClassName": "gold", "allocationMode": "ExactCount", "count": 2},
            {"name": "b", "deviceClassName": "gold", "allocationMode": "ExactCount", "count": 5},
            {"name": "c", "deviceClassName": "tin", "allocationMode": "All"},
        ]
    }

    usage = usage_of(RESOURCE_CLAIMS, device_claim("claim", exactly(3), either))

    assert usage == {
        "count/resourceclaims.resource.k8s.io": 1,
        _DEVICES: 3 + 5,
        "tin.deviceclass.resource.k8s.io/devices": 32,
    }


async def test_devices_are_counted_as_claims_come_and_go(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": "default"}}
    await cluster.create(RESOURCE_CLAIMS, device_claim("before", exactly(1)))
    await cluster.create(RESOURCE_QUOTAS, {**quota, "spec": {"hard": {_DEVICES: "3"}}})
    await cluster.until_status(RESOURCE_QUOTAS, "few", used={_DEVICES: "1"})

    await cluster.create(RESOURCE_CLAIMS, device_claim("first", exactly(2)))

    await cluster.until_status(RESOURCE_QUOTAS, "few", used={_DEVICES: "3"})
    with pytest.raises(StatusError, match=f"exceeded quota: few, requested: {_DEVICES}=1, used: {_DEVICES}=3"):
        await cluster.create(RESOURCE_CLAIMS, device_claim("second", exactly(1)))
    await cluster.client.delete(RESOURCE_CLAIMS, "first", "default")
    await cluster.until_status(RESOURCE_QUOTAS, "few", used={_DEVICES: "1"})


@pytest.mark.parametrize(("asked", "given", "counts"), [("2Gi", "3Gi", 3), ("3Gi", "2Gi", 3), ("3Gi", None, 3)])
def test_a_volume_counts_what_it_was_to_grow_to(asked: str, given: str | None, counts: int) -> None:
    claim: Obj = {"spec": {"resources": {"requests": {"storage": asked}}}}
    if given is not None:
        claim["status"] = {"allocatedResources": {"storage": given}}

    assert usage_of(PERSISTENT_VOLUME_CLAIMS, claim)["requests.storage"] == counts * 2**30


def test_a_pod_that_should_be_gone_is_no_pod_any_more() -> None:
    spec = {"containers": [{"name": "main", "resources": {"requests": {"cpu": "1"}}}]}
    metadata = {"deletionTimestamp": format_time(_NOW), "deletionGracePeriodSeconds": 30}
    pod = {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}

    assert usage_of(PODS, pod, _NOW + timedelta(seconds=30))["pods"] == Fraction(1)
    assert usage_of(PODS, pod, _NOW + timedelta(seconds=31)) == {"count/pods": 1}
