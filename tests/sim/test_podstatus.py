"""What simulated containers report over time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from navarch.sim.behaviour import Behaviour, Latencies, behaviour_of, parse_duration
from navarch.sim.podstatus import moment_of, shows, status_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def _does(**changes: Any) -> Behaviour:
    values = {
        "start_s": 0,
        "ready_s": 0,
        "run_s": None,
        "exit_code": 0,
        "stop_s": 0,
        "ready": True,
        "waiting_reason": "",
    }
    return Behaviour(**{**values, **changes})


def _pod(policy: str = "Always", **status: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "web:1"}], "restartPolicy": policy}
    return {"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": spec, "status": status}


def _conditions(status: dict[str, Any]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in status["conditions"]}


def _at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_a_pod_is_running_and_ready_after_one_write() -> None:
    status, again_s = status_of(_pod(), _does(), ["10.0.0.1"], ["198.18.0.1"], START)

    assert (status["phase"], status["podIP"], status["hostIP"], again_s) == ("Running", "10.0.0.1", "198.18.0.1", None)
    assert _conditions(status) == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }


def test_what_was_written_needs_no_second_write() -> None:
    first, _ = status_of(_pod(), _does(), ["10.0.0.1"], ["198.18.0.1"], START)

    second, _ = status_of(_pod(**first), _does(), ["10.0.0.1"], ["198.18.0.1"], _at(100))

    assert shows(first, second)


def test_a_pod_that_may_not_restart_ends_with_its_exit_code() -> None:
    for code, phase in ((0, "Succeeded"), (3, "Failed")):
        pod = _pod("Never", startTime="2026-01-01T00:00:00Z")
        status, again_s = status_of(pod, _does(run_s=5, exit_code=code), "10.0.0.1", "h", _at(6))
        ended = status["containerStatuses"][0]["state"]["terminated"]
        assert (status["phase"], ended["exitCode"], again_s) == (phase, code, None)
        assert ended["finishedAt"] == "2026-01-01T00:00:05Z"


def test_a_container_that_keeps_exiting_backs_off_longer_and_longer() -> None:
    does = _does(run_s=1, exit_code=1)

    assert moment_of(does, START, _at(1.5), again=True).restarts == 1
    crashed = moment_of(does, START, _at(5), again=True)
    assert (crashed.state, crashed.restarts) == ("backoff", 1)
    assert moment_of(does, START, _at(12.5), again=True).state == "running"
    assert moment_of(does, START, _at(20), again=True).next_s == 13.001


def _rule(action: str, *codes: int) -> dict[str, Any]:
    return {"restartPolicyRules": [{"action": action, "exitCodes": {"operator": "In", "values": list(codes)}}]}


def test_a_container_restarts_by_its_own_policy_and_rules() -> None:
    pod = _pod("Never", startTime="2026-01-01T00:00:00Z")
    pod["spec"]["containers"] = [
        {"name": "plain", "image": "i"},
        {"name": "always", "image": "i", "restartPolicy": "Always"},
        {"name": "ruled", "image": "i", "restartPolicy": "Never", **_rule("Restart", 3)},
    ]

    status, _ = status_of(pod, _does(run_s=5, exit_code=3), ["10.0.0.1"], ["h"], _at(6))

    shown = {each["name"]: (*each["state"], each["restartCount"]) for each in status["containerStatuses"]}
    assert shown == {"plain": ("terminated", 0), "always": ("running", 1), "ruled": ("running", 1)}
    assert status["phase"] == "Running"
    del pod["spec"]["containers"][1]
    ended, _ = status_of(pod, _does(run_s=5, exit_code=4), ["10.0.0.1"], ["h"], _at(6))
    assert (ended["phase"], [each["restartCount"] for each in ended["containerStatuses"]]) == ("Failed", [0, 0])


def test_a_pod_starts_over_as_a_whole_by_its_rule() -> None:
    pod = _pod("Never", startTime="2026-01-01T00:00:00Z")
    pod["spec"]["initContainers"] = [{"name": "init", "image": "i"}]
    pod["spec"]["containers"] = [
        {"name": "plain", "image": "i"},
        {"name": "ruled", "image": "i", "restartPolicy": "Never", **_rule("RestartAllContainers", 3)},
    ]
    does = _does(run_s=5, exit_code=3)

    running, again_s = status_of(pod, does, ["10.0.0.1"], ["h"], _at(6))
    waiting, _ = status_of(pod, does, ["10.0.0.1"], ["h"], _at(12))

    assert again_s is not None
    for status, state, restarts in ((running, "running", 1), (waiting, "waiting", 2)):
        shown = [*status["initContainerStatuses"], *status["containerStatuses"]]
        assert [each["restartCount"] for each in shown] == [restarts] * 3
        assert [*map(list, (each["state"] for each in status["containerStatuses"]))] == [[state]] * 2
        assert {each["lastState"]["terminated"]["reason"] for each in shown} == {"RestartingAllContainers"}
        assert status["phase"] == "Running"
    other, _ = status_of(pod, _does(run_s=5, exit_code=4), ["10.0.0.1"], ["h"], _at(6))
    assert (other["phase"], other["containerStatuses"][0]["restartCount"]) == ("Failed", 0)


def test_a_sidecar_runs_on_while_what_it_stands_by_restarts() -> None:
    pod = _pod(startTime="2026-01-01T00:00:00Z")
    pod["spec"]["initContainers"] = [{"name": "side", "image": "i", "restartPolicy": "Always"}]

    status, _ = status_of(pod, _does(run_s=5, exit_code=1), ["10.0.0.1"], ["h"], _at(6))

    assert status["containerStatuses"][0]["restartCount"] == 1
    assert status["initContainerStatuses"][0]["state"] == {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def test_readiness_waits_for_the_initial_delay_and_obeys_the_annotation() -> None:
    pod = _pod(startTime="2026-01-01T00:00:00Z")
    pod["spec"]["containers"][0]["readinessProbe"] = {"initialDelaySeconds": 5}
    does = behaviour_of(pod, Latencies())

    early, again_s = status_of(pod, does, "10.0.0.1", "h", _at(2))
    assert (_conditions(early)["Ready"], again_s) == ("False", 3)
    assert _conditions(status_of(pod, does, "10.0.0.1", "h", _at(5))[0])["Ready"] == "True"

    pod["metadata"]["annotations"] = {"sim.navarch.dev/ready": "false"}
    assert _conditions(status_of(pod, behaviour_of(pod, Latencies()), "10.0.0.1", "h", _at(9))[0])["Ready"] == "False"


def test_a_deadline_ends_the_pod() -> None:
    pod = _pod("Never", startTime="2026-01-01T00:00:00Z")
    pod["spec"]["activeDeadlineSeconds"] = 10

    assert status_of(pod, _does(), "10.0.0.1", "h", _at(4))[1] == 6
    status, _ = status_of(pod, _does(), "10.0.0.1", "h", _at(10))
    assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")


def test_durations() -> None:
    assert [parse_duration(t) for t in ("1m30s", "250ms", "2", "", "soon")] == [90.0, 0.25, 2.0, None, None]


@given(
    run_s=st.floats(0, 700),
    elapsed_s=st.floats(0, 5000),
    again=st.booleans(),
    code=st.integers(0, 1),
)
def test_looking_when_told_to_sees_the_next_state(run_s: float, elapsed_s: float, again: bool, code: int) -> None:
    does = _does(run_s=run_s, exit_code=code)
    moment = moment_of(does, START, _at(elapsed_s), again=again)
    if moment.next_s is None:
        assert moment.state == "done"
        return
    later = moment_of(does, START, _at(elapsed_s + moment.next_s + 0.002), again=again)
    assert (later.state, later.restarts) != (moment.state, moment.restarts)
    assert later.restarts in (moment.restarts, moment.restarts + 1, moment.restarts + 2)
