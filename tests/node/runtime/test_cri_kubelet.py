"""A kubelet and a runtime that speaks today's CRI, over its socket: user namespaces, the runtime's own events, what it
says that it can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from navarch.node.runtime.cri import CRIRuntime
from navarch.node.runtime.proto import cri_pb2 as cri
from tests.node.engine.conftest import Simulated, running
from tests.node.runtime.cri_server import CRIServer

WITHOUT_TOKEN = {"automountServiceAccountToken": False}


class Node:
    """A kubelet over a `CRIServer`."""

    def __init__(self, simulated: Simulated, server: CRIServer) -> None:
        self.simulated = simulated
        self.server = server

    async def pod(self, name: str, *containers: dict[str, Any], **spec: Any) -> None:
        await self.simulated.pod(name, *containers, **WITHOUT_TOKEN, **spec)

    def told(self, name: str, reason: str) -> list[str]:
        events = self.simulated.api.events()
        return [e["message"] for e in events if e["involvedObject"]["name"] == name and e["reason"] == reason]

    def ready(self, name: str) -> bool:
        conditions = (self.simulated.shown(name).get("status") or {}).get("conditions") or ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def sandbox(self, name: str) -> Any:
        return next(config for config in self.server.sandboxes.values() if config.metadata.name == name)

    def container(self, name: str) -> Any:
        return next(config for config in self.server.containers.values() if config.metadata.name == name)


@pytest.fixture
def server() -> CRIServer:
    return CRIServer()


@pytest.fixture
async def node(tmp_path: Path, server: CRIServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    socket = tmp_path / "cri.sock"
    async with server.serving(socket):
        monkeypatch.setattr("tests.node.engine.conftest.SimulatedRuntime", lambda clock, lives: CRIRuntime(socket))
        async with running(tmp_path, controllers=False) as simulated:
            yield Node(simulated, server)
        await simulated.runtime.close()


async def test_a_pod_may_have_users_of_its_own(node: Node) -> None:
    volume = {"name": "v", "emptyDir": {}}
    mount = {"name": "v", "mountPath": "/v"}
    await node.pod("apart", {"name": "one", "volumeMounts": [mount]}, hostUsers=False, volumes=[volume])
    await node.pod("again", {"name": "two"}, hostUsers=False)
    await node.pod("plain", {"name": "three"})
    for name in ("apart", "again", "plain"):
        await node.simulated.running(name)

    users = node.sandbox("apart").linux.security_context.namespace_options.userns_options
    assert users.mode == cri.POD
    assert [(one.container_id, one.length) for one in users.uids] == [(0, 65536)]
    assert list(users.gids) == list(users.uids)
    assert users.uids[0].host_id >= 65536
    inside = node.container("one")
    assert inside.linux.security_context.namespace_options.userns_options == users
    # Files have the owners that they have outside.
    assert {one.container_path for one in inside.mounts} >= {"/v", "/etc/hosts"}
    assert all(list(one.uidMappings) == list(users.uids) == list(one.gidMappings) for one in inside.mounts)
    others = node.sandbox("again").linux.security_context.namespace_options.userns_options
    assert others.uids[0].host_id != users.uids[0].host_id
    plain = node.sandbox("plain").linux.security_context.namespace_options
    assert not plain.HasField("userns_options")


async def test_a_restarted_kubelet_gives_nobody_the_users_of_another_pod(node: Node) -> None:
    await node.pod("first", {"name": "one"}, hostUsers=False)
    await node.simulated.running("first")
    before = node.sandbox("first").linux.security_context.namespace_options.userns_options.uids[0].host_id

    await node.simulated.restart()
    await node.pod("second", {"name": "two"}, hostUsers=False)
    await node.simulated.running("second")

    after = node.sandbox("second").linux.security_context.namespace_options.userns_options.uids[0].host_id
    assert after != before


async def test_a_runtime_without_user_namespaces_says_so(node: Node) -> None:
    node.server.user_namespaces = False
    await node.pod("apart", {"name": "one"}, hostUsers=False)

    await node.simulated.until(lambda: node.told("apart", "FailedCreatePodSandBox"))

    words = 'Failed to create pod sandbox: RuntimeClass handler "" does not support user namespaces'
    assert node.told("apart", "FailedCreatePodSandBox") == [words]
    assert node.server.sandboxes == {}


async def test_the_runtimes_own_events_tell_of_ends(node: Node) -> None:
    await node.pod("crashing", {"name": "one"})
    await node.simulated.running("crashing")
    await node.simulated.until(lambda: node.server.subscribed)

    node.server.exit("one", 3)

    # Nothing else would make the kubelet look for minutes.
    await node.simulated.until(lambda: node.server.running("one") == 1 and len(node.server.containers) == 2)
    status = node.simulated.shown("crashing")["status"]["containerStatuses"][0]
    await node.simulated.until(
        lambda: node.simulated.shown("crashing")["status"]["containerStatuses"][0]["restartCount"] == 1
    )
    assert status["name"] == "one"


async def test_the_node_says_what_its_runtime_can_do(node: Node) -> None:
    def status() -> Any:
        return (node.simulated.api.get("nodes", "", "n1") or {}).get("status") or {}

    await node.simulated.until(lambda: "runtimeHandlers" in status())

    can = {"recursiveReadOnlyMounts": True, "userNamespaces": True}
    assert status()["runtimeHandlers"] == [{"name": "", "features": can}]
    assert status()["features"] == {"supplementalGroupsPolicy": True}


async def test_what_the_runtime_was_asked_for_is_counted(node: Node) -> None:
    await node.pod("counted", {"name": "one"})
    await node.simulated.running("counted")

    told = dict(line.rsplit(" ", 1) for line in node.simulated.runtime.operations.exposition() if line[0] != "#")

    name, sandbox = "kubelet_runtime_operations", '{operation_type="run_podsandbox"}'
    assert told[f"{name}_total{sandbox}"] == "1"
    assert told[f"{name}_duration_seconds_count{sandbox}"] == "1"
    assert told[f'{name}_duration_seconds_bucket{{operation_type="run_podsandbox",le="+Inf"}}'] == "1"
    assert 0 < float(told[f"{name}_duration_seconds_sum{sandbox}"]) < 60
    assert f"{name}_errors_total{sandbox}" not in told


async def test_mounts_are_read_only_all_the_way_down_where_the_runtime_can(node: Node) -> None:
    mount = {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "IfPossible"}
    volume = {"name": "v", "emptyDir": {}}
    await node.pod("deep", {"name": "one", "volumeMounts": [mount]}, volumes=[volume])
    await node.simulated.running("deep")

    assert [one.recursive_read_only for one in node.container("one").mounts if one.container_path == "/v"] == [True]
    shown = node.simulated.shown("deep")["status"]["containerStatuses"][0]["volumeMounts"]
    assert shown[0]["recursiveReadOnly"] == "Enabled"


async def test_the_status_says_whom_a_container_began_as(node: Node) -> None:
    context = {
        "runAsUser": 1000,
        "runAsGroup": 3000,
        "supplementalGroups": [4000],
        "supplementalGroupsPolicy": "Strict",
    }
    await node.pod("strict", {"name": "one"}, securityContext=context)
    await node.simulated.running("strict")

    (status,) = node.simulated.shown("strict")["status"]["containerStatuses"]
    assert status["user"] == {"linux": {"uid": 1000, "gid": 3000, "supplementalGroups": [3000, 4000]}}
    security = node.container("one").linux.security_context
    assert security.supplemental_groups_policy == cri.Strict


async def test_a_pods_start_asks_the_runtime_for_little_beside_itself(node: Node) -> None:
    volume = {"name": "v", "emptyDir": {}}
    mounts = [{"name": "v", "mountPath": "/v"}]
    containers = [{"name": name, "volumeMounts": mounts} for name in ("one", "two")]

    await node.pod("plain", *containers, volumes=[volume])
    await node.simulated.until(lambda: node.ready("plain"))

    asked = node.server.asked
    assert {name: asked[name] for name in ("RunPodSandbox", "CreateContainer", "StartContainer")} == {
        "RunPodSandbox": 1,
        "CreateContainer": 2,
        "StartContainer": 2,
    }
    # One look at each thing that was made.
    assert asked["PodSandboxStatus"] == 1
    assert asked["ContainerStatus"] == 2
    # One look for what may be there, and one when the volumes are; the kubelet's sweepers list each once as well.
    assert asked["ListPodSandbox"] <= 3
    assert asked["ListContainers"] <= 3
    assert asked["ImageStatus"] == 2


async def test_a_status_that_is_told_does_not_make_the_kubelet_look_at_the_runtime(node: Node) -> None:
    gate = {"conditionType": "example.com/gate"}
    await node.pod("gated", {"name": "one"}, readinessGates=[gate])
    await node.simulated.running("gated")
    before = node.server.asked["ListPodSandbox"]

    condition = {"type": gate["conditionType"], "status": "True"}
    await node.simulated.api.patch_pod("gated", {"status": {"conditions": [condition]}}, "status")
    await node.simulated.until(lambda: node.ready("gated"))

    assert node.server.asked["ListPodSandbox"] - before <= 1
