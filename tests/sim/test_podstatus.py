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

    assert moment_of("Always", does, START, _at(1.5)).restarts == 1
    crashed = moment_of("Always", does, START, _at(5))
    assert (crashed.state, crashed.restarts) == ("backoff", 1)
    assert moment_of("Always", does, START, _at(12.5)).state == "running"
    assert moment_of("Always", does, START, _at(20)).next_s == 13.001


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
    policy=st.sampled_from(["Always", "OnFailure", "Never"]),
    code=st.integers(0, 1),
)
def test_looking_when_told_to_sees_the_next_state(run_s: float, elapsed_s: float, policy: str, code: int) -> None:
    does = _does(run_s=run_s, exit_code=code)
    moment = moment_of(policy, does, START, _at(elapsed_s))
    if moment.next_s is None:
        assert moment.state == "done"
        return
    later = moment_of(policy, does, START, _at(elapsed_s + moment.next_s + 0.002))
    assert (later.state, later.restarts) != (moment.state, moment.restarts)
    assert later.restarts in (moment.restarts, moment.restarts + 1, moment.restarts + 2)
