"""Pods in real containers, driven by objects in an API server."""

from __future__ import annotations

import pytest

from tests.node.kubelet.conftest import Node

pytestmark = pytest.mark.containers


def sh(script: str, **more: object) -> dict[str, object]:
    return {"name": "c", "command": ["sh", "-c", script], **more}


async def test_a_pod_runs_and_becomes_ready(node: Node) -> None:
    node.pod("web", containers=[sh("echo hello; exec sleep 1000")])

    await node.ready("web")

    assert node.status("web")["phase"] == "Running"
    assert node.status("web")["podIP"].startswith("10.211.7.")
    assert node.container("web")["restartCount"] == 0
    assert node.log("web") == "hello"
    assert {"Pulled", "Created", "Started"} <= set(node.reasons("web"))


async def test_a_pod_that_ends_well_has_succeeded(node: Node) -> None:
    node.pod("job", restartPolicy="Never", containers=[sh("exit 0")])

    assert await node.ended("job") == "Succeeded"
    assert node.container("job")["state"]["terminated"]["reason"] == "Completed"


async def test_a_deleted_pod_leaves_nothing(node: Node) -> None:
    pod = node.pod("gone", containers=[sh("sleep 1000")])
    await node.ready("gone")

    node.api.delete_gracefully("default", "gone")

    await node.until(lambda: node.api.get("pods", "default", "gone") is None)
    await node.until(lambda: not node.kubelet.workers)
    assert not node.config.pod_directory(pod["metadata"]["uid"]).exists()
    assert not await node.kubelet.runtime.list_sandboxes()
