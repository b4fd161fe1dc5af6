"""Devices in real containers."""

from __future__ import annotations

import pytest

from tests.node.conftest import Node
from tests.node.devices.plugin import RESOURCE, WidgetPlugin

pytestmark = pytest.mark.containers


async def test_in_pod(node: Node) -> None:
    """A container finds the device nodes and the environment that its plugin says (the socket's path must be short)."""
    plugin = WidgetPlugin(node.config.device_plugins, ["w1", "w2"])
    await node.until((node.config.device_plugins / "kubelet.sock").exists)
    await plugin.start()
    try:
        await plugin.register()
        await node.until(
            lambda: RESOURCE in (node.api.get("nodes", "", "n1") or {}).get("status", {}).get("allocatable", {})
        )
        script = "echo x > /dev/w1 && [ -c /dev/w1 ] && [ ! -e /dev/w2 ] && echo has $WIDGETS"
        limits = {"limits": {RESOURCE: "1"}}
        container = {"name": "c", "command": ["sh", "-c", script], "resources": limits}
        await node.pod("user", containers=[container], restartPolicy="Never")

        assert await node.ended("user") == "Succeeded"
        assert node.log("user") == "has w1"
    finally:
        await plugin.stop()
