"""Pod garbage collection: pods that nobody else will ever remove."""

from __future__ import annotations

import pytest

from navarch.api.meta import Obj, name_of
from navarch.client.resources import NODES, PODS
from navarch.controllers import podgc
from navarch.controllers.base import ControllerConfig
from tests.controllers.conftest import running


def pod(name: str, **spec: object) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "image": "done:1"}], "restartPolicy": "Never", **spec},
    }


async def test_the_oldest_finished_pods_above_the_threshold_go() -> None:
    async with running(ControllerConfig(terminated_pod_threshold=2)) as cluster:
        cluster.kubelet.outcomes["done:1"] = 0
        for name in ("a", "b", "c", "d"):
            await cluster.create(PODS, pod(name))
            await cluster.until_status(PODS, name, phase="Succeeded")

        left = await cluster.until_count(PODS, 2)

        assert {name_of(each) for each in left} == {"c", "d"}


async def test_pods_of_a_node_that_is_gone_go_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podgc, "_QUARANTINE_S", 0.2)
    async with running(kubelet=False) as cluster:
        await cluster.create(PODS, pod("left", nodeName="n1"))

        await cluster.client.delete(NODES, "n1")

        await cluster.until_count(PODS, 0)


async def test_terminating_pods_of_a_node_out_of_service_go_at_once() -> None:
    async with running(kubelet=False) as cluster:
        await cluster.create(PODS, pod("stuck", nodeName="n1"))
        await cluster.create(PODS, pod("fine", nodeName="n1", tolerations=[{"operator": "Exists"}]))
        await cluster.client.delete(PODS, "stuck", "default")
        assert len(await cluster.list(PODS)) == 2

        node = await cluster.get(NODES, "n1")
        node["status"]["conditions"][0]["status"] = "Unknown"
        await cluster.client.update(NODES, node, subresource="status")
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        await cluster.patch(NODES, "n1", {"spec": {"taints": [taint]}})

        (left,) = await cluster.until_count(PODS, 1)
        assert name_of(left) == "fine"
