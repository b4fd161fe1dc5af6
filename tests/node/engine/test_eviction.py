"""Pods that have to go because the node is short of something, as its user sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from navarch.node.config import EvictionConfig
from navarch.node.runtime.base import State
from navarch.node.runtime.simulated import Life
from navarch.node.thresholds import thresholds_of
from navarch.node.volumes.manager import VolumeManager
from tests.node.engine.conftest import Simulated

# No machine has that much.
EVER_SHORT = EvictionConfig(thresholds_of({"memory.available": "1000Pi"}))


def condition(node: Simulated, kind: str) -> dict[str, Any]:
    found = (node.api.get("nodes", "", "n1") or {}).get("status", {}).get("conditions") or []
    return next((one for one in found if one["type"] == kind), {})


async def test_a_node_that_is_short_of_memory_says_so_and_evicts_the_least_important_pod(simulated: Simulated) -> None:
    await simulated.api.priority_class("important", 1000)
    await simulated.pod("important", priorityClassName="important")
    await simulated.pod("other")
    await simulated.running("important")
    await simulated.running("other")

    await simulated.restart(eviction=EVER_SHORT)
    await simulated.until(lambda: simulated.phase("other") == "Failed")

    status = simulated.shown("other")["status"]
    assert status["reason"] == "Evicted"
    assert status["message"].startswith("The node was low on resource: memory. Threshold quantity: 1000Pi, available: ")
    disrupted = next(one for one in status["conditions"] if one["type"] == "DisruptionTarget")
    assert (disrupted["status"], disrupted["reason"]) == ("True", "TerminationByKubelet")
    event = next(one for one in simulated.api.events() if one["reason"] == "Evicted")
    assert event["metadata"]["annotations"]["starved_resource"] == "memory"
    await simulated.until(lambda: condition(simulated, "MemoryPressure").get("status") == "True")
    assert condition(simulated, "MemoryPressure")["reason"] == "KubeletHasInsufficientMemory"
    assert condition(simulated, "DiskPressure")["status"] == "False"


async def test_a_node_under_pressure_refuses_pods_that_asked_for_no_memory(simulated: Simulated) -> None:
    await simulated.restart(eviction=EVER_SHORT)
    await simulated.until(lambda: condition(simulated, "MemoryPressure").get("status") == "True")

    await simulated.pod("greedy")

    await simulated.until(lambda: simulated.phase("greedy") == "Failed")
    status = simulated.shown("greedy")["status"]
    assert (status["reason"], status["message"]) == (
        "Evicted",
        "Pod was rejected: The node had condition: [MemoryPressure]. ",
    )


async def test_critical_pods_stay_whatever_the_node_is_short_of(simulated: Simulated) -> None:
    await simulated.pod("critical", priority=2_000_000_000, priorityClassName="system-cluster-critical")
    await simulated.running("critical")
    await simulated.restart(eviction=EVER_SHORT)

    await simulated.until(lambda: any(event["reason"] == "EvictionThresholdMet" for event in simulated.api.events()))

    assert simulated.phase("critical") == "Running"


async def test_the_next_pod_is_chosen_once_the_one_before_has_given_back_its_files(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    await simulated.pod("first")
    await simulated.running("first")
    taken_away, others = VolumeManager.unpublish, []

    async def slowly(volumes: VolumeManager, uid: str) -> bool:
        await asyncio.sleep(1)
        others.append({worker.pod["metadata"]["name"]: worker.failure[0] for worker in simulated.kubelet.pods})
        return await taken_away(volumes, uid)

    monkeypatch.setattr(VolumeManager, "unpublish", slowly)
    await simulated.pod("second")
    await simulated.running("second")
    await simulated.restart(eviction=EVER_SHORT)

    await simulated.until(lambda: {simulated.phase("first"), simulated.phase("second")} == {"Failed"})

    assert sorted(others[0].values()) == ["", "Evicted"]


async def test_nothing_is_left_of_an_evicted_pod_but_what_is_told_of_it(simulated: Simulated) -> None:
    made = await simulated.pod("fat")
    await simulated.running("fat")
    logs = simulated.config.log_directory("default", "fat", made["metadata"]["uid"])
    logs.mkdir(parents=True, exist_ok=True)

    await simulated.restart(eviction=EVER_SHORT)

    async def is_empty() -> bool:
        return not await simulated.runtime.list_containers() and not await simulated.runtime.list_sandboxes()

    await simulated.until_async(is_empty)
    await simulated.until(lambda: not logs.exists())
    await simulated.restart(eviction=EVER_SHORT)
    await simulated.until(lambda: condition(simulated, "MemoryPressure").get("status") == "True")
    status = simulated.shown("fat")["status"]
    (container,) = status["containerStatuses"]
    assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
    assert container["state"]["terminated"]["containerID"] == container["containerID"]


def how_it_ended(simulated: Simulated) -> dict[str, Any]:
    status = simulated.shown("done")["status"]
    assert status["phase"] == "Succeeded"
    return dict(status["containerStatuses"][0])


async def test_containers_of_pods_that_have_ended_go_when_room_is_needed(simulated: Simulated) -> None:
    simulated.lives = {"step": Life(run_s=0.01)}
    await simulated.pod("done", {"name": "step"}, restartPolicy="Never")
    await simulated.pod("busy")
    await simulated.until(lambda: simulated.phase("done") == "Succeeded")
    await simulated.running("busy")
    told = how_it_ended(simulated)

    async def only_what_runs_is_there() -> bool:
        # The kubelet may have yet to hear of what it told.
        await simulated.kubelet.sweeper.remove_dead_containers()
        return [one.state for one in await simulated.runtime.list_containers()] == [State.RUNNING]

    await simulated.until_async(only_what_runs_is_there)
    await simulated.restart()
    await simulated.running("busy")
    assert how_it_ended(simulated) == told
    assert told["state"]["terminated"]["containerID"]


async def test_a_pod_whose_volume_grows_beyond_its_limit_is_evicted(simulated: Simulated) -> None:
    volume = {"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}}
    made = await simulated.pod("full", volumes=[volume])
    await simulated.running("full")
    worker = simulated.kubelet.pods.get(made["metadata"]["uid"])
    assert worker is not None
    (worker.volumes["cache"] / "file").write_bytes(b"x" * (2 << 20))

    await simulated.kubelet.evictor.look()

    await simulated.until(lambda: simulated.phase("full") == "Failed")
    status = simulated.shown("full")["status"]
    assert (status["reason"], status["message"]) == (
        "Evicted",
        'Usage of EmptyDir volume "cache" exceeds the limit "1Mi". ',
    )
    assert "DisruptionTarget" not in [one["type"] for one in status["conditions"]]
