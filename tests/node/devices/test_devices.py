"""Devices that a plugin brings, as pods and their users see them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from navarch.node.devices.proto import podresources_pb2 as v1
from navarch.node.runtime.simulated import Life
from tests.node.devices.plugin import RESOURCE, WidgetPlugin
from tests.node.engine.conftest import Simulated, running


@pytest.fixture
async def plugin(simulated: Simulated) -> AsyncIterator[WidgetPlugin]:
    """Two widgets on the node, which knows of them."""
    made = WidgetPlugin(simulated.config.device_plugins, ["w1", "w2"])
    await simulated.until((simulated.config.device_plugins / "kubelet.sock").exists)
    await made.start()
    await made.register()
    await simulated.until(lambda: resources(simulated) == ("2", "2"))
    yield made
    await made.stop()


def resources(node: Simulated) -> tuple[str, str]:
    """What the node has of widgets, and what of it can be had."""
    status = (node.api.get("nodes", "", "n1") or {}).get("status") or {}
    return tuple((status.get(field) or {}).get(RESOURCE, "") for field in ("capacity", "allocatable"))  # type: ignore[return-value]


def asking(count: int, name: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "resources": {"limits": {RESOURCE: str(count)}}, **more}


async def test_a_container_gets_its_devices_with_all_that_they_need(simulated: Simulated, plugin: WidgetPlugin) -> None:
    await simulated.pod("user", asking(2, env=[{"name": "OWN", "value": "1"}]))

    await simulated.running("user")

    config = simulated.told[-1]
    assert [(one.container_path, one.host_path, one.permissions) for one in config.devices] == [
        ("/dev/w1", "/dev/null", "rw"),
        ("/dev/w2", "/dev/null", "rw"),
    ]
    assert config.env["WIDGETS"] == "w1,w2"
    assert config.env["OWN"] == "1"
    assert config.annotations["example.com/widgets"] == "yes"
    assert ("/etc/widgets", True) in [(one.container_path, one.read_only) for one in config.mounts]
    assert plugin.calls == [("Allocate", ["w1", "w2"])]


async def test_a_pod_that_asks_for_more_than_is_free_is_refused(simulated: Simulated, plugin: WidgetPlugin) -> None:
    await simulated.pod("first", asking(1))
    await simulated.running("first")

    await simulated.pod("second", asking(2))

    await simulated.until(lambda: simulated.phase("second") == "Failed")
    status = simulated.shown("second")["status"]
    assert (status["reason"], status["message"]) == (
        "UnexpectedAdmissionError",
        "Pod was rejected: Allocate failed due to requested number of devices unavailable for example.com/widget. "
        "Requested: 2, Available: 1, which is unexpected",
    )


async def test_devices_of_a_pod_that_has_gone_are_free_again(simulated: Simulated, plugin: WidgetPlugin) -> None:
    await simulated.pod("first", asking(2))
    await simulated.running("first")
    await simulated.api.delete_gracefully("default", "first")
    await simulated.until(lambda: simulated.shown("first") is None)

    await simulated.pod("second", asking(2))

    await simulated.running("second")


async def test_what_an_init_container_had_the_others_take_over(simulated: Simulated, plugin: WidgetPlugin) -> None:
    simulated.lives["init"] = Life(run_s=0.0)
    await simulated.pod("user", asking(1), asking(1, "d"), initContainers=[{**asking(2, "init"), "image": "web:1"}])

    await simulated.running("user")

    assert plugin.calls == [("Allocate", ["w1", "w2"]), ("Allocate", ["w1"]), ("Allocate", ["w2"])]


async def test_a_device_that_is_ill_cannot_be_had_and_its_pod_says_so(
    simulated: Simulated, plugin: WidgetPlugin
) -> None:
    await simulated.pod("user", asking(1))
    await simulated.running("user")

    await plugin.set_health("w1", "Unhealthy")

    await simulated.until(lambda: resources(simulated) == ("2", "1"))

    def told() -> Any:
        return simulated.shown("user")["status"]["containerStatuses"][0].get("allocatedResourcesStatus")

    ill = [{"name": RESOURCE, "resources": [{"resourceID": "w1", "health": "Unhealthy"}]}]
    await simulated.until(lambda: told() == ill)


async def test_where_the_plugin_has_gone_nothing_can_be_had(simulated: Simulated, plugin: WidgetPlugin) -> None:
    await plugin.stop()

    await simulated.until(lambda: resources(simulated) == ("2", "0"))
    await simulated.pod("late", asking(1))

    await simulated.until(lambda: simulated.phase("late") == "Failed")
    assert "no healthy devices present" in simulated.shown("late")["status"]["message"]


async def test_a_restart_of_the_kubelet_keeps_who_has_what(simulated: Simulated, plugin: WidgetPlugin) -> None:
    await simulated.pod("user", asking(1))
    await simulated.running("user")

    await simulated.restart()
    await simulated.until(lambda: resources(simulated) == ("0", "0"))
    # The kubelet took the sockets of before away; the plugin notices that, and serves and registers again.
    await plugin.stop()
    again = WidgetPlugin(plugin.folder, ["w1", "w2"])
    await again.start()
    await again.register()
    await simulated.until(lambda: resources(simulated) == ("2", "2"))
    await simulated.pod("other", asking(1))
    await simulated.running("other")

    assert again.calls == [("Allocate", ["w2"])]
    await again.stop()


async def test_a_plugin_that_will_not_allocate_ends_the_pod(simulated: Simulated, plugin: WidgetPlugin) -> None:
    plugin.refuse = "on strike"

    await simulated.pod("user", asking(1))

    await simulated.until(lambda: simulated.phase("user") == "Failed")
    assert simulated.shown("user")["status"]["message"] == (
        "Pod was rejected: Allocate failed due to rpc error: code = Unknown desc = on strike, which is unexpected"
    )


async def test_a_plugin_says_which_devices_it_prefers_and_hears_of_starts(simulated: Simulated) -> None:
    made = WidgetPlugin(simulated.config.device_plugins, ["w1", "w2", "w3"], prefers=["w3", "w2"], pre_start=True)
    await simulated.until((simulated.config.device_plugins / "kubelet.sock").exists)
    await made.start()
    await made.register()
    await simulated.until(lambda: resources(simulated) == ("3", "3"))

    await simulated.pod("user", asking(2))
    await simulated.running("user")

    assert made.calls == [
        ("GetPreferredAllocation", ["w1", "w2", "w3"]),
        ("Allocate", ["w2", "w3"]),
        ("PreStartContainer", ["w2", "w3"]),
    ]
    await made.stop()


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"version": "v1alpha"}, 'requested API version "v1alpha" is not supported by kubelet.'),
        ({"resource": "widget"}, 'the ResourceName "widget" is invalid'),
    ],
)
async def test_a_plugin_that_cannot_be_taken_hears_why(
    simulated: Simulated, plugin: WidgetPlugin, stated: dict[str, str], words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as found:
        await plugin.register(**stated)

    assert words in str(found.value.details())


async def _ask(node: Simulated, method: str, request: Any, response: Any) -> Any:
    return await _ask_at(node.config.pod_resources_socket, method, request, response)


async def _ask_at(socket: Path, method: str, request: Any, response: Any) -> Any:
    options = [("grpc.default_authority", "localhost")]
    async with grpc.aio.insecure_channel(f"unix://{socket}", options=options) as channel:
        call = channel.unary_unary(
            f"/v1.PodResourcesLister/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return await call(request, timeout=15, wait_for_ready=True)


async def test_who_has_which_device_can_be_asked(simulated: Simulated, plugin: WidgetPlugin) -> None:
    await simulated.pod("user", asking(1))
    await simulated.running("user")

    listed = await _ask(simulated, "List", v1.ListPodResourcesRequest(), v1.ListPodResourcesResponse)
    one = await _ask(
        simulated,
        "Get",
        v1.GetPodResourcesRequest(pod_name="user", pod_namespace="default"),
        v1.GetPodResourcesResponse,
    )
    free = await _ask(
        simulated, "GetAllocatableResources", v1.AllocatableResourcesRequest(), v1.AllocatableResourcesResponse
    )

    assert listed.pod_resources[0] == one.pod_resources
    container = one.pod_resources.containers[0]
    assert (container.name, container.devices[0].resource_name) == ("c", RESOURCE)
    assert list(container.devices[0].device_ids) == ["w1"]
    assert sorted(device for entry in free.devices for device in entry.device_ids) == ["w1", "w2"]
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await _ask(
            simulated,
            "Get",
            v1.GetPodResourcesRequest(pod_name="nobody", pod_namespace="default"),
            v1.GetPodResourcesResponse,
        )
    assert missing.value.details() == "pod nobody in namespace default not found"


async def test_a_folder_with_a_long_name_keeps_nobody_out(tmp_path: Path) -> None:
    """Plugins know it by another name: the one that it has in their pods."""
    alias = Path(tempfile.mkdtemp(prefix="nv-", dir="/tmp"))
    try:
        async with running(tmp_path / ("a-long-name-" * 9), controllers=False) as node:
            real = node.config.device_plugins
            assert len(str(real / "kubelet.sock")) > 107
            (alias / "plugins").symlink_to(real)
            (alias / "asked").symlink_to(node.config.pod_resources_socket.parent)
            await node.until((real / "kubelet.sock").exists)
            made = WidgetPlugin(alias / "plugins", ["w1"])
            await made.start()
            try:
                await made.register()
                await node.until(lambda: resources(node) == ("1", "1"))
                await node.pod("user", asking(1))
                await node.running("user")

                socket = alias / "asked" / "kubelet.sock"
                listed = await _ask_at(socket, "List", v1.ListPodResourcesRequest(), v1.ListPodResourcesResponse)
            finally:
                await made.stop()
            (pod,) = listed.pod_resources
            assert pod.name == "user"
    finally:
        shutil.rmtree(alias, ignore_errors=True)
