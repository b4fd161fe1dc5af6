"""Pods that start over as a whole because a container ended as its restart rules say."""

from __future__ import annotations

from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.node.engine.plan import ContainerMemory
from navarch.node.engine.restarting import REMOVED
from navarch.node.engine.status import StatusInputs, pod_status
from navarch.node.runtime.base import RuntimeFailure
from navarch.node.runtime.simulated import Life
from tests.node.engine.conftest import Simulated
from tests.node.engine.test_plan_and_status import EXITED, RUNNING, instance, observed
from tests.node.objects import NOW, pod

RULES: Obj = {
    "restartPolicy": "Never",
    "restartPolicyRules": [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}],
}
DONE = Life(0.01, 0)
ASKS = Life(0.05, 42)


class InTurn(dict[str, Life]):
    """What containers do one time after the other; after that they run on."""

    def __init__(self, **lives: list[Life]) -> None:
        self._lives = lives

    def get(self, name: str, default: Any = None) -> Any:
        left = self._lives.get(name)
        return left.pop(0) if left else default


def statuses(shown: Obj) -> dict[str, Obj]:
    status = (shown or {}).get("status") or {}
    listed = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return {one["name"]: one for one in listed}


def condition(status: Obj) -> Obj:
    return next(one for one in status["conditions"] if one["type"] == "AllContainersRestarting")


async def runs_again(simulated: Simulated, *names: str) -> Obj:
    """The pod once these of its containers run for the second time."""

    def look() -> bool:
        told = statuses(simulated.shown("p"))
        return all(name in told and "running" in told[name]["state"] and told[name]["restartCount"] for name in names)

    await simulated.until(look)
    return dict(simulated.shown("p"))


async def test_a_container_starts_all_others_over(simulated: Simulated) -> None:
    simulated.lives = InTurn(init=[DONE, DONE], source=[ASKS])
    first = [{"name": "init", "image": "web:1"}, {"name": "side", "image": "web:1", "restartPolicy": "Always"}]
    await simulated.pod(
        "p", {"name": "source", **RULES}, {"name": "other"}, restartPolicy="Never", initContainers=first
    )

    shown = await runs_again(simulated, "side", "source", "other")

    assert [one.name for one in simulated.told] == ["init", "side", "source", "other"] * 2
    assert {name: one["restartCount"] for name, one in statuses(shown).items()} == {
        "init": 1, "side": 1, "source": 1, "other": 1,
    }  # fmt: skip
    assert [one["lastState"] for one in statuses(shown).values()] == [{"terminated": REMOVED}] * 4
    assert shown["status"]["phase"] == "Running"
    assert condition(shown["status"])["status"] == "False"
    assert len(await simulated.runtime.list_sandboxes()) == 1


async def test_an_init_container_starts_those_over_that_were_made(simulated: Simulated) -> None:
    simulated.lives = InTurn(source=[ASKS, DONE])
    first = [
        {"name": "side", "image": "web:1", "restartPolicy": "Always"},
        {"name": "source", "image": "web:1"} | RULES,
    ]
    await simulated.pod("p", {"name": "other"}, restartPolicy="Never", initContainers=first)

    await simulated.until(lambda: "running" in (statuses(simulated.shown("p")).get("other") or {"state": {}})["state"])

    assert [one.name for one in simulated.told] == ["side", "source", "side", "source", "other"]
    counts = {name: one["restartCount"] for name, one in statuses(simulated.shown("p")).items()}
    assert counts == {"side": 1, "source": 1, "other": 0}


async def test_a_sidecar_may_ask_too_whatever_the_policy_of_the_others(simulated: Simulated) -> None:
    simulated.lives = InTurn(source=[ASKS, ASKS])
    first = [{"name": "source", "image": "web:1", **RULES, "restartPolicy": "Always"}]
    await simulated.pod("p", {"name": "other"}, restartPolicy="Never", initContainers=first)

    await simulated.until(lambda: [one.name for one in simulated.told] == ["source", "other"] * 3)

    await simulated.until(lambda: statuses(simulated.shown("p"))["other"]["restartCount"] == 2)
    assert simulated.phase("p") == "Running"


async def test_a_kubelet_that_was_killed_meanwhile_goes_on(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated.lives = InTurn(source=[ASKS])
    remove, refused = simulated.runtime.remove_container, []

    async def half(container_id: str) -> None:
        status = await simulated.runtime.container_status(container_id)
        if status.name == "source":
            refused.append(container_id)
            raise RuntimeFailure("not now")
        await remove(container_id)

    monkeypatch.setattr(simulated.runtime, "remove_container", half)
    await simulated.pod("p", {"name": "source", **RULES}, {"name": "other"}, restartPolicy="Never")
    await simulated.until(lambda: refused and statuses(simulated.shown("p"))["other"]["restartCount"])
    assert condition(simulated.shown("p")["status"])["status"] == "True"
    await simulated.stop()
    monkeypatch.undo()

    await simulated.start_again()

    shown = await runs_again(simulated, "source", "other")
    assert [one.name for one in simulated.told] == ["source", "other"] * 2
    assert [one["restartCount"] for one in statuses(shown).values()] == [1, 1]
    assert statuses(shown)["other"]["lastState"]["terminated"]["reason"] == "RestartingAllContainers"


def test_a_pod_that_starts_over_runs_and_says_why() -> None:
    obj = pod({"name": "source", **RULES}, {"name": "other"}, restartPolicy="Never")
    killed = observed(instance("source", EXITED, code=42), instance("other", EXITED, code=137))

    status = pod_status(StatusInputs(obj, killed, {}, {}, ["1.1.1.1"], NOW))

    assert status["phase"] == "Running"
    told = condition(status)
    assert (told["status"], told["reason"], told["message"]) == (
        "True", "RestartAllContainersStarted", "container exited with restart policy rule",
    )  # fmt: skip


def test_a_container_that_was_removed_waits_and_its_pod_runs_on() -> None:
    obj = pod({"name": "source", **RULES}, {"name": "other"}, restartPolicy="Never")
    waiting = {name: ContainerMemory(waiting_reason="RestartingAllContainers") for name in ("source", "other")}

    status = pod_status(
        StatusInputs(obj, observed(), waiting, {}, ["1.1.1.1"], NOW, started_over={"source": 1, "other": 1})
    )

    assert status["phase"] == "Running"
    assert condition(status)["status"] == "False"
    assert [one["state"]["waiting"]["reason"] for one in status["containerStatuses"]] == ["RestartingAllContainers"] * 2
    assert [one["restartCount"] for one in status["containerStatuses"]] == [1, 1]


@pytest.mark.parametrize(("phase", "code", "reason"), [("Succeeded", 0, "PodCompleted"), ("Failed", 1, "PodFailed")])
def test_a_pod_that_ended_does_not_start_over(phase: str, code: int, reason: str) -> None:
    obj = pod({"name": "source", **RULES}, restartPolicy="Never")
    ended = observed(instance("source", EXITED, code=code))

    status = pod_status(StatusInputs(obj, ended, {}, {}, ["1.1.1.1"], NOW, ending=True))

    assert (status["phase"], condition(status)["reason"]) == (phase, reason)


def test_a_pod_without_such_a_rule_says_nothing_of_it() -> None:
    status = pod_status(StatusInputs(pod({"name": "c"}), observed(instance("c", RUNNING)), {}, {}, ["1.1.1.1"], NOW))

    assert "AllContainersRestarting" not in {one["type"] for one in status["conditions"]}
