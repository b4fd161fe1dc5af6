"""Pods whose resources change while they run, over simulated containers: what is allocated, given, and told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from navarch.node.engine import resize
from navarch.node.runtime.base import ContainerStats, Resources, RuntimeFailure
from tests.node.engine.conftest import Simulated

NOT_AT_ALL = "1000000"


def amounts(cpu: str, memory: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}


async def resized(simulated: Simulated, name: str, **by_container: dict[str, Any]) -> None:
    listed = [{"name": container, "resources": resources} for container, resources in by_container.items()]
    await simulated.api.patch_pod(name, {"spec": {"containers": listed}}, "resize")


def shown(simulated: Simulated, name: str, container: str = "c") -> Any:
    statuses = simulated.shown(name)["status"]["containerStatuses"]
    return next(status for status in statuses if status["name"] == container)


def resize_conditions(simulated: Simulated, name: str) -> dict[str, tuple[str, str]]:
    conditions = simulated.shown(name)["status"]["conditions"]
    found = {c["type"]: (c.get("reason", ""), c.get("message", "")) for c in conditions}
    return {kind: told for kind, told in found.items() if kind.startswith("PodResize")}


async def given(simulated: Simulated, name: str) -> Resources:
    """What the runtime gives the pod's only container."""
    made = [
        one for one in simulated.runtime._containers.values() if one.status.labels["io.kubernetes.pod.name"] == name
    ]
    return made[-1].resources


async def test_containers_without_amounts_say_so(simulated: Simulated) -> None:
    await simulated.pod("plain")
    await simulated.running("plain")

    assert shown(simulated, "plain")["resources"] == {}
    assert "allocatedResources" not in shown(simulated, "plain")


async def test_more_than_the_node_has_is_infeasible_and_nothing_changes(simulated: Simulated) -> None:
    await simulated.pod("modest", {"name": "c", "resources": amounts("10m", "10Mi")})
    await simulated.running("modest")

    await resized(simulated, "modest", c=amounts(NOT_AT_ALL, "10Mi"))

    await simulated.until(lambda: "PodResizePending" in resize_conditions(simulated, "modest"))
    reason, message = resize_conditions(simulated, "modest")["PodResizePending"]
    capacity = simulated.kubelet.node.allocatable()["cpu"]
    milli = int(capacity[:-1]) if capacity.endswith("m") else int(capacity) * 1000
    words = f"Node didn't have enough capacity: cpu, requested: {NOT_AT_ALL}000, capacity: {milli}"
    assert (reason, message) == ("Infeasible", words)
    assert shown(simulated, "modest")["resources"] == amounts("10m", "10Mi")
    assert shown(simulated, "modest")["allocatedResources"] == {"cpu": "10m", "memory": "10Mi"}
    await simulated.until(lambda: "ResizeInfeasible" in simulated.reasons("modest"))

    await resized(simulated, "modest", c=amounts("20m", "10Mi"))

    await simulated.until(lambda: shown(simulated, "modest")["resources"] == amounts("20m", "10Mi"))
    await simulated.until(lambda: not resize_conditions(simulated, "modest"))
    assert (await given(simulated, "modest")).cpu_shares == 20


async def test_what_the_node_has_not_left_waits_until_it_has(simulated: Simulated) -> None:
    await simulated.pod("other", {"name": "c", "resources": {"requests": {"memory": "200Mi"}}})
    await simulated.pod("waiting", {"name": "c", "resources": {"requests": {"memory": "10Mi"}}})
    await simulated.running("other")
    await simulated.running("waiting")
    whole = simulated.kubelet.node.allocatable()["memory"]

    await resized(simulated, "waiting", c={"requests": {"memory": whole}})

    await simulated.until(lambda: "PodResizePending" in resize_conditions(simulated, "waiting"))
    reason, message = resize_conditions(simulated, "waiting")["PodResizePending"]
    assert reason == "Deferred"
    assert message.startswith("Node didn't have enough resource: memory, requested: ")
    assert "ResizeDeferred" in simulated.reasons("waiting")

    await simulated.api.delete_gracefully("default", "other")

    await simulated.until(lambda: shown(simulated, "waiting")["resources"] == {"requests": {"memory": whole}})
    await simulated.until(lambda: not resize_conditions(simulated, "waiting"))
    assert [one for one in simulated.reasons("waiting") if one.startswith("Resize")] == [
        "ResizeDeferred",
        "ResizeStarted",
        "ResizeCompleted",
    ]


async def test_a_restarted_kubelet_does_not_forget_what_was_not_allocated(simulated: Simulated) -> None:
    await simulated.pod("modest", {"name": "c", "resources": amounts("10m", "10Mi")})
    await simulated.running("modest")
    await resized(simulated, "modest", c=amounts(NOT_AT_ALL, "10Mi"))
    await simulated.until(lambda: "PodResizePending" in resize_conditions(simulated, "modest"))
    before = simulated.shown("modest")["metadata"]["resourceVersion"]

    await simulated.restart()
    await simulated.api.patch_pod("modest", {"metadata": {"labels": {"seen": "yes"}}})
    worker = simulated.kubelet.pods
    await simulated.until(
        lambda: (
            len(worker) == 1
            and "PodResizePending" in {c["type"] for c in next(iter(worker)).status_inputs().conditions}
        )
    )

    assert shown(simulated, "modest")["allocatedResources"] == {"cpu": "10m", "memory": "10Mi"}
    assert simulated.shown("modest")["metadata"]["resourceVersion"] != before
    assert (await given(simulated, "modest")).cpu_shares == 10


async def test_a_policy_may_ask_for_a_restart_also_of_what_ends_well(simulated: Simulated) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    quiet = {"name": "c", "resources": amounts("10m", "10Mi"), "resizePolicy": policy}
    await simulated.pod("restarted", quiet, restartPolicy="OnFailure")
    await simulated.running("restarted")

    await resized(simulated, "restarted", c=amounts("20m", "10Mi"))
    await simulated.until(lambda: shown(simulated, "restarted")["resources"] == amounts("20m", "10Mi"))
    assert shown(simulated, "restarted")["restartCount"] == 0

    await resized(simulated, "restarted", c=amounts("20m", "20Mi"))

    await simulated.until(lambda: shown(simulated, "restarted")["restartCount"] == 1)
    await simulated.until(lambda: shown(simulated, "restarted")["resources"] == amounts("20m", "20Mi"))
    await simulated.until(lambda: not resize_conditions(simulated, "restarted"))
    assert (await given(simulated, "restarted")).memory_limit_bytes == 20 << 20

    for restarts, memory in ((2, "10Mi"), (3, "20Mi")):
        await resized(simulated, "restarted", c=amounts("20m", memory))
        await simulated.until(lambda restarts=restarts: shown(simulated, "restarted")["restartCount"] == restarts)
        await simulated.until(lambda: not resize_conditions(simulated, "restarted"))
    assert "BackOff" not in simulated.reasons("restarted"), "it was stopped, and has not failed"


async def test_memory_that_is_in_use_is_not_taken_away(simulated: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    await simulated.pod("greedy", {"name": "c", "resources": amounts("10m", "100Mi")})
    await simulated.running("greedy")
    stats, used = simulated.runtime.stats, [60 << 20]

    async def measured() -> list[ContainerStats]:
        return [replace(one, memory_used_bytes=used[0]) for one in await stats()]

    monkeypatch.setattr(simulated.runtime, "stats", measured)
    monkeypatch.setattr(resize, "_RETRY", resize.timedelta(milliseconds=50))

    await resized(simulated, "greedy", c=amounts("10m", "50Mi"))

    words = (
        'cannot decrease memory limits: attempting to set container "c" memory limit (52428800) '
        "below current usage (62914560)"
    )
    await simulated.until(lambda: resize_conditions(simulated, "greedy") == {"PodResizeInProgress": ("Error", words)})
    # It is promised no more than that, and has the rest until it lets go of it.
    assert shown(simulated, "greedy")["allocatedResources"] == {"cpu": "10m", "memory": "50Mi"}
    assert shown(simulated, "greedy")["resources"] == amounts("10m", "100Mi")

    used[0] = 10 << 20

    await simulated.until(lambda: not resize_conditions(simulated, "greedy"))
    assert shown(simulated, "greedy")["resources"] == amounts("10m", "50Mi")
    assert simulated.reasons("greedy").count("ResizeError") == 1


async def test_what_the_runtime_refuses_is_told_and_tried_again(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    await simulated.pod("stubborn", {"name": "c", "resources": amounts("10m", "10Mi")})
    await simulated.running("stubborn")
    update, refusals = simulated.runtime.update_resources, [RuntimeFailure("not now")]

    async def refusing(container_id: str, resources: Resources) -> None:
        if refusals:
            raise refusals.pop()
        await update(container_id, resources)

    monkeypatch.setattr(simulated.runtime, "update_resources", refusing)
    monkeypatch.setattr(resize, "_RETRY", resize.timedelta(milliseconds=50))

    await resized(simulated, "stubborn", c=amounts("20m", "10Mi"))

    await simulated.until(lambda: "ResizeCompleted" in simulated.reasons("stubborn"))
    assert [one for one in simulated.reasons("stubborn") if one.startswith("Resize")] == [
        "ResizeStarted",
        "ResizeError",
        "ResizeCompleted",
    ]
    assert (await given(simulated, "stubborn")).cpu_shares == 20
