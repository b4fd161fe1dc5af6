"""What to do next for a pod, and what to report of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from navarch.node.engine.observed import ObservedContainer, ObservedPod
from navarch.node.engine.plan import ContainerMemory, make_plan
from navarch.node.engine.status import StatusInputs, pod_status
from navarch.node.engine.status_patch import status_patch
from navarch.node.podspec import container_hash
from navarch.node.runtime.base import HASH, RESTART_COUNT, ContainerStatus, Sandbox, State
from tests.node.objects import NOW, Obj, pod


def instance(name: str, state: State, *, code: int = 0, count: int = 0, sandbox: str = "s1") -> ObservedContainer:
    status = ContainerStatus(
        id=f"{name}-{count}",
        name=name,
        attempt=count,
        state=state,
        exit_code=code,
        created_at_ns=1,
        started_at_ns=1_000_000_000,
        finished_at_ns=2_000_000_000 if state is State.EXITED else 0,
        annotations={HASH: container_hash({"name": name, "image": "i"}), RESTART_COUNT: str(count)},
    )
    return ObservedContainer(sandbox, status)


def observed(*instances: ObservedContainer, ready: bool = True) -> ObservedPod:
    by_name: dict[str, list[ObservedContainer]] = {}
    for one in instances:
        by_name.setdefault(one.name, []).append(one)
    return ObservedPod([Sandbox("s1", ready=ready, ips=("10.0.0.5",))], by_name)


RUNNING, EXITED = State.RUNNING, State.EXITED


def starts(obj: Obj, seen: ObservedPod, memory: dict[str, ContainerMemory] | None = None) -> list[str]:
    return [container["name"] for container in make_plan(obj, seen, memory or {}).start]


def test_a_new_pod_needs_a_sandbox_first() -> None:
    plan = make_plan(pod({"name": "c"}), ObservedPod(), {})

    assert (plan.create_sandbox, plan.attempt, plan.start) == (True, 0, [])


def test_init_containers_hold_back_the_others() -> None:
    obj = pod({"name": "c"}, initContainers=[{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])

    assert starts(obj, observed()) == ["a"]
    assert starts(obj, observed(instance("a", RUNNING))) == []
    assert starts(obj, observed(instance("a", EXITED))) == ["b"]
    assert starts(obj, observed(instance("a", EXITED, code=1))) == ["a"]
    assert starts(obj, observed(instance("a", EXITED), instance("b", EXITED))) == ["c"]


def test_an_ephemeral_container_waits_for_no_init_container() -> None:
    obj = pod({"name": "main"}, initContainers=[{"name": "init"}], ephemeralContainers=[{"name": "debug"}])
    running = instance("init", State.RUNNING)

    assert starts(obj, observed(running)) == ["debug"]
    assert starts(obj, observed(running, instance("debug", State.EXITED))) == []


def test_a_started_sidecar_lets_the_others_start() -> None:
    obj = pod({"name": "c"}, initContainers=[{"name": "s", "image": "i", "restartPolicy": "Always"}])
    seen = observed(instance("s", RUNNING))

    assert starts(obj, seen, {"s": ContainerMemory("s-0", started=False)}) == []
    assert starts(obj, seen, {"s": ContainerMemory("s-0", started=True)}) == ["c"]


def test_a_dead_sidecar_is_started_beside_running_containers() -> None:
    obj = pod({"name": "c"}, initContainers=[{"name": "s", "image": "i", "restartPolicy": "Always"}])

    assert starts(obj, observed(instance("s", EXITED, code=1), instance("c", RUNNING))) == ["s"]


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [("Always", 0, True), ("OnFailure", 0, False), ("OnFailure", 1, True), ("Never", 1, False)],
)
def test_restart_policies(policy: str, code: int, again: bool) -> None:
    plan = make_plan(pod({"name": "c"}, restartPolicy=policy), observed(instance("c", EXITED, code=code)), {})

    assert (bool(plan.start), plan.end) == (again, not again)


def test_a_doomed_container_is_killed_not_started() -> None:
    plan = make_plan(pod({"name": "c"}), observed(instance("c", RUNNING)), {"c": ContainerMemory("c-0", doomed="why")})

    assert [kill.message for kill in plan.kill] == ["why"]
    assert not plan.start


def test_a_lost_sandbox_of_a_finished_pod_is_not_made_again() -> None:
    obj = pod({"name": "c"}, restartPolicy="Never")

    assert make_plan(obj, observed(instance("c", EXITED), ready=False), {}).end
    assert make_plan(pod({"name": "c"}), observed(instance("c", RUNNING), ready=False), {}).create_sandbox


def status_of(obj: Obj, seen: ObservedPod, memory: dict[str, ContainerMemory] | None = None, **more: Any) -> Obj:
    return pod_status(StatusInputs(obj, seen, memory or {}, {}, ["1.1.1.1"], NOW, **more))


def condition(status: Obj, kind: str) -> Obj:
    return next(one for one in status["conditions"] if one["type"] == kind)


def test_a_running_ready_pod() -> None:
    status = status_of(
        pod({"name": "c"}), observed(instance("c", RUNNING)), {"c": ContainerMemory("c-0", ready=True, started=True)}
    )

    assert (status["phase"], status["podIP"], status["hostIP"]) == ("Running", "10.0.0.5", "1.1.1.1")
    assert condition(status, "Ready")["status"] == "True"
    assert status["containerStatuses"][0]["state"] == {"running": {"startedAt": "1970-01-01T00:00:01Z"}}


def test_an_unready_container_is_named() -> None:
    status = status_of(pod({"name": "c"}), observed(instance("c", RUNNING)))

    assert condition(status, "Ready")["message"] == "containers with unready status: [c]"


def test_a_readiness_gate_holds_the_pod_back() -> None:
    obj = pod({"name": "c"}, readinessGates=[{"conditionType": "x/y"}])
    memory = {"c": ContainerMemory("c-0", ready=True, started=True)}

    ready = condition(status_of(obj, observed(instance("c", RUNNING)), memory), "Ready")

    assert ready["reason"] == "ReadinessGatesNotReady"
    assert ready["message"] == 'corresponding condition of pod readiness gate "x/y" does not exist.'


def test_a_crashed_container_keeps_the_pod_running() -> None:
    memory = {"c": ContainerMemory("c-1", waiting_reason="CrashLoopBackOff", waiting_message="back-off")}
    seen = observed(instance("c", EXITED, code=2, count=1), instance("c", EXITED, code=3))

    status = status_of(pod({"name": "c"}), seen, memory)

    container = status["containerStatuses"][0]
    assert status["phase"] == "Running"
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 2
    assert container["restartCount"] == 1


def test_the_instance_before_is_the_last_state() -> None:
    seen = observed(instance("c", RUNNING, count=1), instance("c", EXITED, code=3))

    assert status_of(pod({"name": "c"}), seen)["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(("codes", "phase"), [((0, 0), "Succeeded"), ((0, 1), "Failed")])
def test_a_finished_pod(codes: tuple[int, int], phase: str) -> None:
    obj = pod({"name": "a"}, {"name": "b"}, restartPolicy="Never")
    seen = observed(instance("a", EXITED, code=codes[0]), instance("b", EXITED, code=codes[1]), ready=False)

    assert status_of(obj, seen, ending=True)["phase"] == phase


def test_a_pod_that_is_deleted_before_it_ran_ends_as_failed() -> None:
    obj = pod({"name": "c"}, initContainers=[{"name": "i", "image": "i"}])
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    initialised = observed(instance("i", EXITED), ready=False)

    assert status_of(obj, observed(instance("i", EXITED)), ending=True)["phase"] == "Pending"
    assert status_of(obj, observed(ready=False), ending=True)["phase"] == "Failed"
    assert "waiting" in status_of(obj, observed(ready=False), ending=True)["containerStatuses"][0]["state"]
    ended = status_of(obj, initialised, ending=True)["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("ContainerStatusUnknown", 137)


def test_a_pod_that_waits_for_its_images_is_pending() -> None:
    status = status_of(pod({"name": "c"}), observed(), {"c": ContainerMemory(waiting_reason="ErrImagePull")})

    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull"


def test_an_unchanged_status_needs_no_patch() -> None:
    obj = pod({"name": "c"})
    seen = observed(instance("c", RUNNING))
    first = status_of(obj, seen)
    obj["status"] = {
        **first,
        "conditions": [{k: v for k, v in c.items() if v is not None} for c in first["conditions"]],
    }

    again = pod_status(StatusInputs(obj, seen, {}, {}, ["1.1.1.1"], NOW + timedelta(hours=1)))

    assert status_patch(obj["status"], again) == {}


def test_a_patch_drops_what_went_and_leaves_others_conditions() -> None:
    old = {
        "phase": "Pending",
        "message": "x",
        "conditions": [{"type": "Mine", "status": "True"}, {"type": "Ready", "status": "False", "reason": "r"}],
    }
    new = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}

    assert status_patch(old, new) == {
        "phase": "Running",
        "message": None,
        "conditions": [{"type": "Ready", "status": "True", "reason": None}],
    }
