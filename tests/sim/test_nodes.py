"""Simulated nodes against the real API server, in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from navarch.api.errors import StatusError
from navarch.api.meta import Obj
from navarch.apiserver.server import ApiServer
from navarch.apiserver.user import User
from navarch.client import resources
from navarch.client.base import Client, PatchKind
from navarch.client.local import LocalTransport
from navarch.sim.heartbeats import interval_s
from navarch.sim.nodeobjects import node_object
from navarch.sim.nodes import SimulatedNodes
from navarch.store.memory import MemoryStore
from navarch.world import RealWorld


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    server = ApiServer(MemoryStore(), world=RealWorld(1))
    await server.start()
    admin = Client(LocalTransport(server.as_user(User("admin", groups=("system:masters",)))))
    for name in ("default", "kube-node-lease"):
        await admin.create(resources.NAMESPACES, {"metadata": {"name": name}})
    yield admin
    await server.stop()


@pytest.fixture
async def nodes(client: Client) -> AsyncIterator[SimulatedNodes]:
    simulated = SimulatedNodes(client, 2, world=RealWorld(1))
    task = asyncio.create_task(simulated.run())
    yield simulated
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _until(condition: Callable[[], Awaitable[Any]], timeout_s: float = 5) -> Any:
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                if result := await condition():
                    return result
            except StatusError as error:
                if error.code != 404:
                    raise
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("version", "declares"), [("v1.36.2", True), ("v1.37.0-navarch", True), ("v1.35.0", False)])
def test_a_node_declares_what_pods_may_need_of_it_as_a_kubelet_of_its_version_does(
    version: str, declares: bool
) -> None:
    node = node_object("n", ["10.0.0.1"], {}, {}, version, RealWorld().now())

    assert ("RestartAllContainersOnContainerExits" in node["status"].get("declaredFeatures", [])) == declares


def _pod(name: str, node: str = "node-1", **metadata: Any) -> Obj:
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "web"}], "restartPolicy": "Never"}
    return {"metadata": {"name": name, "namespace": "default", **metadata}, "spec": spec}


def _with(pod: Obj, container: Obj, **spec: Any) -> Obj:
    pod["spec"] |= spec
    pod["spec"]["containers"][0] |= container
    return pod


async def _phase(client: Client, name: str, phase: str) -> Obj | None:
    pod = await client.get(resources.PODS, name, "default")
    return pod if pod["status"].get("phase") == phase else None


async def test_nodes_are_ready_and_hold_leases(client: Client, nodes: SimulatedNodes) -> None:
    node = await _until(lambda: client.get(resources.NODES, "node-2"))
    lease = await _until(lambda: client.get(resources.LEASES, "node-2", "kube-node-lease"))

    assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
    assert node["status"]["allocatable"]["cpu"] == "8"
    assert lease["spec"]["holderIdentity"] == "node-2"
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


async def test_a_pod_runs_with_an_address_of_its_own_until_it_is_deleted(client: Client, nodes: SimulatedNodes) -> None:
    await client.create(resources.PODS, _pod("a"))
    await client.create(resources.PODS, _pod("b", "node-2"))
    first = await _until(lambda: _phase(client, "a", "Running"))
    second = await _until(lambda: _phase(client, "b", "Running"))
    assert first["status"]["podIP"] != second["status"]["podIP"]

    await client.delete(resources.PODS, "a", "default")

    async def gone() -> bool:
        names = [pod["metadata"]["name"] for pod in (await client.list(resources.PODS)).items]
        return names == ["b"]

    await _until(gone)


async def test_nodes_and_pods_have_an_address_of_each_ip_family(client: Client) -> None:
    ranges = ["10.42.0.0/24", "fd00:42::/64"]
    # Twice: a node that is there already is taken over.
    for name in ("a", "b"):
        simulated = SimulatedNodes(client, 1, world=RealWorld(1), families=(4, 6))
        task = asyncio.create_task(simulated.run())
        await _until(lambda: client.get(resources.NODES, "node-1"))
        if name == "a":
            await client.patch(resources.NODES, "node-1", "", {"spec": {"podCIDRs": ranges, "podCIDR": ranges[0]}})
        await client.create(resources.PODS, _pod(name))
        pod = await _until(partial(_phase, client, name, "Running"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        node = await client.get(resources.NODES, "node-1")
        internal = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
        assert [":" in address for address in internal] == [False, True]
        assert [each["ip"] for each in pod["status"]["hostIPs"]] == internal
        assert [":" in each["ip"] for each in pod["status"]["podIPs"]] == [False, True]


async def test_a_pod_that_names_a_node_where_it_does_not_fit_is_refused_as_by_a_kubelet(
    client: Client, nodes: SimulatedNodes
) -> None:
    port = {"containerPort": 80, "hostPort": 8080}
    await client.create(
        resources.PODS, _with(_pod("first"), {"ports": [port], "resources": {"requests": {"cpu": "5"}}})
    )
    await _until(lambda: _phase(client, "first", "Running"))

    for name, pod, reason in (
        ("port", _with(_pod("port"), {"ports": [port]}), "NodePorts"),
        ("cpu", _with(_pod("cpu"), {"resources": {"requests": {"cpu": "4"}}}), "OutOfcpu"),
        ("memory", _with(_pod("memory"), {"resources": {"requests": {"memory": "64Gi"}}}), "OutOfmemory"),
        ("elsewhere", _with(_pod("elsewhere"), {}, nodeSelector={"disk": "ssd"}), "NodeAffinity"),
    ):
        await client.create(resources.PODS, pod)
        status = (await _until(partial(_phase, client, name, "Failed")))["status"]
        assert (status["reason"], status.get("containerStatuses"), status.get("podIP")) == (reason, None, None)
        assert status["message"].startswith("Pod was rejected: ")

        async def told(name: str = name) -> list[Obj]:
            return (await client.list(resources.EVENTS, fields=f"involvedObject.name={name}")).items

        events = await _until(told)
        assert [(event["type"], event["reason"]) for event in events] == [("Warning", reason)]
        assert status["message"] == f"Pod was rejected: {events[0]['message']}"


async def test_what_a_pod_had_is_free_once_it_has_ended_or_gone(client: Client, nodes: SimulatedNodes) -> None:
    ends = _pod("ends", annotations={"sim.navarch.dev/run-duration": "10ms"})
    wants = {"ports": [{"containerPort": 80, "hostPort": 8080}], "resources": {"requests": {"cpu": "8"}}}
    await client.create(resources.PODS, _with(ends, wants))
    await _until(lambda: _phase(client, "ends", "Succeeded"))

    await client.create(resources.PODS, _with(_pod("goes"), wants))
    await _until(lambda: _phase(client, "goes", "Running"))
    await client.delete(resources.PODS, "goes", "default", grace_s=0)
    await client.create(resources.PODS, _with(_pod("comes"), wants))

    await _until(lambda: _phase(client, "comes", "Running"))


async def test_pods_that_run_keep_their_room_when_nodes_are_simulated_anew(client: Client) -> None:
    wants = {"resources": {"requests": {"cpu": "8"}}}
    for name, phase in (("a", "Running"), ("b", "Failed")):
        simulated = SimulatedNodes(client, 1)
        task = asyncio.create_task(simulated.run())
        await client.create(resources.PODS, _with(_pod(name), wants))
        await _until(partial(_phase, client, name, phase))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_pod_that_came_with_what_its_node_has_become_is_taken(
    client: Client, nodes: SimulatedNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _until(lambda: client.get(resources.NODES, "node-1"))
    before = await client.get(resources.NODES, "node-1")
    labels = {"metadata": {"labels": {"disk": "ssd"}}}
    await client.patch(resources.NODES, "node-1", "", labels, kind=PatchKind.MERGE)
    monkeypatch.setattr(nodes._pods, "_node_of", lambda name: before)

    await client.create(resources.PODS, _with(_pod("a"), {}, nodeSelector={"disk": "ssd"}))

    await _until(lambda: _phase(client, "a", "Running"))


async def test_a_pod_exits_as_its_annotations_say(client: Client, nodes: SimulatedNodes) -> None:
    annotations = {"sim.navarch.dev/run-duration": "50ms", "sim.navarch.dev/exit-code": "3"}
    await client.create(resources.PODS, _pod("a", annotations=annotations))

    pod = await _until(lambda: _phase(client, "a", "Failed"))

    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


async def test_what_changes_while_a_status_is_written_is_observed_too(
    client: Client, nodes: SimulatedNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch, others = Client.patch, [b"once"]

    async def patch_after_others(self: Client, *arguments: Any, **named: Any) -> Obj:
        if named.get("subresource") == "status" and arguments[1] == "a" and others:
            others.pop()
            body = {"spec": {"activeDeadlineSeconds": 100}}
            await patch(self, resources.PODS, "a", "default", body, kind=PatchKind.MERGE)
        answer = await patch(self, *arguments, **named)
        # The echo is there before the answer.
        await asyncio.sleep(0.1)
        return answer

    monkeypatch.setattr(Client, "patch", patch_after_others)
    await client.create(resources.PODS, _pod("a"))

    async def observed() -> bool:
        pod = await client.get(resources.PODS, "a", "default")
        return bool(pod["status"].get("observedGeneration") == 2)

    await _until(observed)


async def test_a_pod_that_is_held_reports_its_end_before_it_goes(client: Client, nodes: SimulatedNodes) -> None:
    await client.create(resources.PODS, _pod("a", finalizers=["example.com/hold"]))
    await _until(lambda: _phase(client, "a", "Running"))

    await client.delete(resources.PODS, "a", "default")

    await _until(lambda: _phase(client, "a", "Failed"))


async def test_pods_stand_still_on_a_failed_node_until_it_recovers(client: Client, nodes: SimulatedNodes) -> None:
    await _until(lambda: client.get(resources.NODES, "node-1"))
    nodes.fail("node-1")
    await client.create(resources.PODS, _pod("a"))
    # Made later, and on a node that is well: by then "a" would have been started, too.
    for name in ("b", "c"):
        await client.create(resources.PODS, _pod(name, "node-2"))
        await _until(partial(_phase, client, name, "Running"))
    assert (await client.get(resources.PODS, "a", "default"))["status"]["phase"] == "Pending"
    down = [{"type": "Ready", "status": "Unknown"}]
    patch = {"status": {"conditions": down}}
    await client.patch(resources.NODES, "node-1", "", patch, kind=PatchKind.STRATEGIC, subresource="status")

    await nodes.recover("node-1")

    await _until(lambda: _phase(client, "a", "Running"))
    node = await client.get(resources.NODES, "node-1")
    assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"


async def test_nodes_that_are_there_already_are_taken_over(client: Client, nodes: SimulatedNodes) -> None:
    before = await _until(lambda: client.get(resources.NODES, "node-1"))
    again = SimulatedNodes(client, 2)
    task = asyncio.create_task(again.run())
    await client.create(resources.PODS, _pod("a"))
    await _until(lambda: _phase(client, "a", "Running"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert (await client.get(resources.NODES, "node-1"))["metadata"]["uid"] == before["metadata"]["uid"]


def test_many_nodes_renew_less_often_but_never_too_late() -> None:
    assert [interval_s(count) for count in (1, 100, 300, 10_000)] == [10.0, 10.0, 15.0, 25.0]
