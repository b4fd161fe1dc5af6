"""Pods whose resources change while they run, over simulated containers: what is allocated, given, and told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from navarch.node.engine import retries
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
    simulated.api.allow_any_resize()
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
    simulated.api.allow_any_resize()
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
    monkeypatch.setattr(retries, "AGAIN", timedelta(milliseconds=50))

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
    monkeypatch.setattr(retries, "AGAIN", timedelta(milliseconds=50))

    await resized(simulated, "stubborn", c=amounts("20m", "10Mi"))

    await simulated.until(lambda: "ResizeCompleted" in simulated.reasons("stubborn"))
    assert [one for one in simulated.reasons("stubborn") if one.startswith("Resize")] == [
        "ResizeStarted",
        "ResizeError",
        "ResizeCompleted",
    ]
    assert (await given(simulated, "stubborn")).cpu_shares == 20


async def test_a_pod_is_resized_as_a_whole_and_its_containers_with_it(simulated: Simulated) -> None:
    always = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    first = [{"name": "early", "image": "web:1", "resources": amounts("10m", "10Mi")}]
    await simulated.pod(
        "whole",
        {"name": "bound"},
        {"name": "own", "resources": amounts("10m", "10Mi")},
        {"name": "restarted", "resizePolicy": always},
        resources=amounts("100m", "100Mi"),
        initContainers=[{**one, "restartPolicy": "Always"} for one in first],
    )
    await simulated.running("whole")
    status = simulated.shown("whole")["status"]
    assert (status["resources"], status["allocatedResources"]) == (
        amounts("100m", "100Mi"), {"cpu": "100m", "memory": "100Mi"},
    )  # fmt: skip

    await simulated.api.patch_pod("whole", {"spec": {"resources": amounts("200m", "300Mi")}}, "resize")

    await simulated.until(lambda: "ResizeCompleted" in simulated.reasons("whole"))
    await simulated.until(lambda: not resize_conditions(simulated, "whole"))
    status = simulated.shown("whole")["status"]
    assert (status["resources"], status["allocatedResources"]) == (
        amounts("200m", "300Mi"), {"cpu": "200m", "memory": "300Mi"},
    )  # fmt: skip
    bounds = {}
    for made in simulated.runtime._containers.values():
        if made.status.state.name == "RUNNING":
            bounds[made.status.name] = (made.resources.cpu_quota_us, made.resources.memory_limit_bytes >> 20)
    assert bounds == {"bound": (20_000, 300), "own": (1_000, 10), "restarted": (20_000, 300), "early": (1_000, 10)}
    counts = {one["name"]: one["restartCount"] for one in status["containerStatuses"]}
    assert counts == {"bound": 0, "own": 0, "restarted": 1}
    started = next(one["message"] for one in simulated.api.events() if one["reason"] == "ResizeStarted")
    assert '"resources":{"limits":{"cpu":"200m","memory":"300Mi"}' in started


async def test_a_pod_is_not_left_less_memory_than_its_containers_use_together(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    await simulated.pod("whole", {"name": "a"}, {"name": "b"}, resources=amounts("10m", "100Mi"))
    await simulated.running("whole")
    stats = simulated.runtime.stats

    async def measured() -> list[ContainerStats]:
        return [replace(one, memory_used_bytes=30 << 20) for one in await stats()]

    monkeypatch.setattr(simulated.runtime, "stats", measured)

    await simulated.api.patch_pod("whole", {"spec": {"resources": amounts("10m", "50Mi")}}, "resize")

    words = "attempting to set pod memory limit (52428800) below current usage (62914560)"
    await simulated.until(
        lambda: (
            resize_conditions(simulated, "whole").get("PodResizeInProgress")
            == ("Error", f"cannot decrease memory limits: {words}")
        )
    )
    status = simulated.shown("whole")["status"]
    assert status["resources"] == amounts("10m", "100Mi")
    assert status["allocatedResources"] == {"cpu": "10m", "memory": "50Mi"}


async def test_a_kubelet_goes_on_with_the_resize_of_a_whole_pod(simulated: Simulated) -> None:
    simulated.api.allow_any_resize()
    await simulated.pod("whole", {"name": "a"}, resources=amounts("10m", "100Mi"))
    await simulated.running("whole")
    await simulated.api.patch_pod("whole", {"spec": {"resources": amounts(NOT_AT_ALL, "100Mi")}}, "resize")
    await simulated.until(lambda: "PodResizePending" in resize_conditions(simulated, "whole"))

    await simulated.restart()
    await simulated.api.patch_pod("whole", {"spec": {"resources": amounts("20m", "200Mi")}}, "resize")

    await simulated.until(lambda: "ResizeCompleted" in simulated.reasons("whole"))
    await simulated.until(lambda: simulated.shown("whole")["status"]["resources"] == amounts("20m", "200Mi"))
    assert (await given(simulated, "whole")).memory_limit_bytes == 200 << 20


async def test_an_init_container_is_resized_while_it_runs(simulated: Simulated) -> None:
    first = [{"name": "early", "image": "web:1", "resources": amounts("10m", "10Mi")}]
    await simulated.pod("slow", {"name": "c", "resources": amounts("10m", "10Mi")}, initContainers=first)
    await simulated.until(lambda: "Started" in simulated.reasons("slow"))

    listed = [{"name": "early", "resources": amounts("20m", "20Mi")}]
    await simulated.api.patch_pod("slow", {"spec": {"initContainers": listed}}, "resize")

    await simulated.until(lambda: "ResizeCompleted" in simulated.reasons("slow"))
    assert (await given(simulated, "slow")).memory_limit_bytes == 20 << 20

    def told() -> Any:
        return simulated.shown("slow")["status"]["initContainerStatuses"][0]

    await simulated.until(lambda: told()["resources"] == amounts("20m", "20Mi"))
    assert told()["allocatedResources"] == {"cpu": "20m", "memory": "20Mi"}
