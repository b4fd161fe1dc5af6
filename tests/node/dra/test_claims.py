"""A kubelet, and a driver of devices beside it on real sockets: claims are prepared once, devices reach containers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.client.resources import PODS, RESOURCE_CLAIMS, RESOURCE_SLICES
from navarch.node.devices.proto import podresources_pb2 as v1
from navarch.node.dra.drivers import DeviceDrivers
from navarch.node.dra.proto import dra_pb2 as dra
from navarch.node.plugins.sockets import PluginChannel
from navarch.node.runtime.base import ContainerConfig, SandboxConfig
from tests.dra_driver import NAME, DeviceDriver
from tests.node.engine.conftest import Simulated, running


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short name: paths of sockets have room for some hundred letters."""
    folder = Path(tempfile.mkdtemp(prefix="nvdra-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def node(place: Path) -> AsyncIterator[Simulated]:
    async with running(place, controllers=False) as simulated:
        yield simulated


@pytest.fixture
def given(node: Simulated, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, ...]]:
    """The CDI names that each container got."""
    found: dict[str, tuple[str, ...]] = {}
    create = node.runtime.create_container

    async def noting(sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        found[config.name] = config.cdi_devices
        return await create(sandbox_id, config, sandbox)

    monkeypatch.setattr(node.runtime, "create_container", noting)
    return found


def driver_of(node: Simulated, **options: Any) -> DeviceDriver:
    return DeviceDriver(node.config.data, node.api.admin, **options)


async def claim(node: Simulated, name: str, *, devices: tuple[str, ...] = ("gpu-0",)) -> None:
    """A claim that the scheduler has allocated, each device by a request of its own."""
    requests = [{"name": f"r{index}", "exactly": {"deviceClassName": "gpu"}} for index in range(len(devices))]
    kind = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim"}
    metadata = {"name": name, "namespace": "default"}
    made = await node.api.admin.create(
        RESOURCE_CLAIMS, {**kind, "metadata": metadata, "spec": {"devices": {"requests": requests}}}
    )
    results = [
        {"request": f"r{index}", "driver": NAME, "pool": "n1", "device": device} for index, device in enumerate(devices)
    ]
    made["status"] = {"allocation": {"devices": {"results": results}}}
    await node.api.admin.update(RESOURCE_CLAIMS, made, subresource="status")


async def reserve(node: Simulated, name: str, user: str) -> None:
    made = await node.api.admin.get(RESOURCE_CLAIMS, name, "default")
    entry = {"resource": "pods", "name": user, "uid": node.shown(user)["metadata"]["uid"]}
    made["status"].setdefault("reservedFor", []).append(entry)
    await node.api.admin.update(RESOURCE_CLAIMS, made, subresource="status")


def using(claim_name: str, name: str = "c", request: str = "") -> Obj:
    used = {"name": claim_name, **({"request": request} if request else {})}
    return {"name": name, "resources": {"claims": [used]}}


def entries(*names: str) -> list[Obj]:
    return [{"name": name, "resourceClaimName": name} for name in names]


async def place_pod(node: Simulated, name: str, *containers: Obj, claims: tuple[str, ...] = ("gpus",)) -> None:
    """A pod that gets its node when its claims are reserved for it, as from the scheduler."""
    spec = {"containers": [{"image": "web:1", **one} for one in containers or (using("gpus"),)]}
    spec |= {"terminationGracePeriodSeconds": 1, "resourceClaims": entries(*claims)}
    kind = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}}
    await node.api.put("pods", {**kind, "spec": spec})
    for each in claims:
        if await node.api.admin.find(RESOURCE_CLAIMS, each, "default") is not None:
            await reserve(node, each, name)
    target = {"apiVersion": "v1", "kind": "Node", "name": "n1"}
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name, "namespace": "default"},
        "target": target,
    }
    await node.api.admin.create(PODS, binding, subresource="binding", name=name)


async def test_a_container_gets_the_devices_of_its_request(node: Simulated, given: dict[str, tuple[str, ...]]) -> None:
    async with driver_of(node) as driver:
        await node.until(lambda: driver.told)
        both, one, none = using("gpus", "both"), using("gpus", "one", "r1"), {"name": "none"}
        await claim(node, "gpus", devices=("gpu-0", "gpu-1"))
        await place_pod(node, "web", both, one, none)

        await node.running("web")

        assert driver.told == [(True, "")]
        assert given == {
            "both": (f"{NAME}/gpu=gpu-0", f"{NAME}/gpu=gpu-1"),
            "one": (f"{NAME}/gpu=gpu-1",),
            "none": (),
        }
        assert driver.calls == [("prepare", ["gpus"])]


async def test_a_shared_claim_is_prepared_once_and_given_back_by_the_last(node: Simulated) -> None:
    async with driver_of(node, versions=("v1beta1.DRAPlugin",)) as driver:
        await node.until(lambda: driver.told)
        await claim(node, "gpus")
        for name in ("one", "two"):
            await place_pod(node, name)
        for name in ("one", "two"):
            await node.running(name)

        await node.api.delete_gracefully("default", "one")
        await node.until(lambda: node.shown("one") is None)
        assert driver.calls == [("prepare", ["gpus"])]

        await node.api.delete_gracefully("default", "two")
        await node.until(lambda: node.shown("two") is None)
        assert driver.calls == [("prepare", ["gpus"]), ("unprepare", ["gpus"])]


async def test_a_pod_waits_for_its_driver_and_is_told(node: Simulated) -> None:
    expected = "Failed to prepare dynamic resources: prepare dynamic resources: "
    await claim(node, "gpus")
    await place_pod(node, "web")
    missing = f"{expected}DRA driver {NAME} is not registered"
    await node.until(lambda: any(event["message"] == missing for event in node.api.events()))

    async with driver_of(node) as driver:
        driver.refusals["gpus"] = "no power"
        refused = f"{expected}NodePrepareResources failed for ResourceClaim gpus: no power"
        await node.until(lambda: any(event["message"] == refused for event in node.api.events()))

        driver.refusals.clear()
        await node.running("web")


async def test_a_kubelet_that_starts_again_knows_what_is_prepared(node: Simulated) -> None:
    async with driver_of(node) as driver:
        await node.until(lambda: driver.told)
        await claim(node, "gpus")
        await place_pod(node, "web")
        await node.running("web")

        await node.restart()
        await node.until(lambda: len(driver.told) == 2)
        await node.api.delete_gracefully("default", "web")
        await node.until(lambda: node.shown("web") is None)

        assert driver.calls == [("prepare", ["gpus"]), ("unprepare", ["gpus"])]


async def test_a_driver_that_speaks_nothing_known_is_refused(node: Simulated) -> None:
    async with driver_of(node, versions=("v1alpha3.Node",)) as driver:
        await node.until(lambda: driver.told)
        taken, why = driver.told[0]

        assert not taken
        assert why.endswith(
            'none of services supported by the plugin (["v1alpha3.Node"]) are supported by the kubelet '
            '(["v1.DRAPlugin" "v1beta1.DRAPlugin"])'
        )


async def test_slices_of_a_driver_that_has_gone_are_deleted(node: Simulated) -> None:
    drivers: DeviceDrivers = node.kubelet.device_drivers
    drivers._away_s = 0.2
    async with driver_of(node) as driver:
        await node.until(lambda: driver.told)
        await driver.publish("n1", "gpu-0")
        assert [each["spec"]["driver"] for each in (await node.api.admin.list(RESOURCE_SLICES)).items] == [NAME]

    async def none_left() -> bool:
        return not (await node.api.admin.list(RESOURCE_SLICES)).items

    await node.until_async(none_left)


async def test_a_node_deletes_slices_of_its_own_alone(node: Simulated) -> None:
    async with driver_of(node) as driver:
        await driver.publish("n2", "gpu-0")

    for selector in ("spec.nodeName=n2", ""):
        with pytest.raises(StatusError, match="cannot deletecollection"):
            await node.api.client().delete_collection(RESOURCE_SLICES, fields=selector)


async def test_a_container_tells_how_its_devices_are(node: Simulated) -> None:
    async with driver_of(node, versions=("v1.DRAPlugin", "v1alpha1.DRAResourceHealth")) as driver:
        await node.until(lambda: driver.told)
        await claim(node, "gpus", devices=("gpu-0", "gpu-1"))
        await place_pod(node, "web", using("gpus", request="r1"))
        await node.running("web")

        def told() -> Any:
            status = node.shown("web")["status"]["containerStatuses"][0].get("allocatedResourcesStatus") or [{}]
            return status[0].get("name"), [(r["health"], r.get("message")) for r in status[0].get("resources") or ()]

        await node.until(lambda: told() == ("claim:gpus/r1", [("Unknown", None)]))
        driver.says("gpu-1", dra.HEALTHY)
        await node.until(lambda: told() == ("claim:gpus/r1", [("Healthy", None)]))
        driver.says("gpu-1", dra.UNHEALTHY, "too hot")
        await node.until(lambda: told() == ("claim:gpus/r1", [("Unhealthy", "too hot")]))

    await node.until(lambda: told() == ("claim:gpus/r1", [("Unknown", None)]))


async def test_monitoring_agents_learn_which_container_has_which_devices(node: Simulated) -> None:
    async with driver_of(node) as driver:
        await node.until(lambda: driver.told)
        await claim(node, "gpus", devices=("gpu-0", "gpu-1"))
        await place_pod(node, "web", using("gpus", "one", "r1"), {"name": "none"})
        await node.running("web")

        channel = PluginChannel(node.config.pod_resources_socket)
        try:
            answer = await channel.call(
                "/v1.PodResourcesLister/List",
                v1.ListPodResourcesRequest(),
                v1.ListPodResourcesResponse.FromString,
                timeout_s=10,
            )
        finally:
            await channel.close()

    (pod,) = answer.pod_resources
    one, none = pod.containers
    (used,) = one.dynamic_resources
    (device,) = used.claim_resources
    assert (used.claim_namespace, used.claim_name) == ("default", "gpus")
    assert (device.driver_name, device.pool_name, device.device_name) == (NAME, "n1", "gpu-1")
    assert [each.name for each in device.CDI_devices] == [f"{NAME}/gpu=gpu-1"]
    assert not none.dynamic_resources
