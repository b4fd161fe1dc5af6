"""How many replicas a metric asks for, by the algorithm that Kubernetes' documentation describes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.controllers.podautoscaler.replicas import (
    MOST,
    NoProposalError,
    Reading,
    Situation,
    Tolerances,
    average_replicas,
    grouped,
    requests_by_pod,
    shared_replicas,
    utilization_replicas,
    value_replicas,
)

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def pod(
    name: str,
    *,
    cpu: str | None = "1",
    phase: str = "Running",
    ready: bool = True,
    age: timedelta = timedelta(hours=1),
    ready_for: timedelta = timedelta(minutes=59),
    deleted: bool = False,
) -> Obj:
    resources: Obj = {"requests": {"cpu": cpu}} if cpu is not None else {}
    metadata: Obj = {"name": name, **({"deletionTimestamp": format_time(NOW)} if deleted else {})}
    condition = {
        "type": "Ready",
        "status": "True" if ready else "False",
        "lastTransitionTime": format_time(NOW - ready_for),
    }
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "main", "resources": resources}]},
        "status": {"phase": phase, "startTime": format_time(NOW - age), "conditions": [condition]},
    }


def pods(count: int, **how: Any) -> list[Obj]:
    return [pod(f"p{number}", **how) for number in range(count)]


def used(*milli: int, at: datetime = NOW) -> dict[str, Reading]:
    return {f"p{number}": Reading(each, at, MINUTE) for number, each in enumerate(milli)}


def of(found: list[Obj], tolerances: Tolerances | None = None) -> Situation:
    return Situation(tuple(found), NOW, tolerances or Tolerances())


def by_cpu(
    current: int, target: int, readings: dict[str, Reading], found: list[Obj], tolerances: Tolerances | None = None
) -> tuple[int, int | None]:
    given = utilization_replicas(current, target, readings, "cpu", "", of(found, tolerances))
    return given.replicas, given.percent


@pytest.mark.parametrize(
    ("milli", "target", "replicas", "percent"),
    [
        ((300, 500, 700), 30, 5, 50),
        ((300, 500, 700), 50, 3, 50),
        ((300, 500, 700), 100, 2, 50),
        # Within a tenth of the target nothing is done, on either side.
        ((320, 320, 320), 30, 3, 32),
        ((330, 330, 330), 30, 3, 33),
        ((340, 340, 340), 30, 4, 34),
        ((270, 270, 270), 30, 3, 27),
        ((260, 260, 260), 30, 3, 26),
        ((100, 100, 100), 30, 1, 10),
        ((0, 0, 0), 30, 0, 0),
    ],
)
def test_replicas_follow_the_utilization(milli: tuple[int, ...], target: int, replicas: int, percent: int) -> None:
    assert by_cpu(3, target, used(*milli), pods(3)) == (replicas, percent)


def test_the_average_is_told_with_the_percentage() -> None:
    given = utilization_replicas(3, 30, used(300, 500, 700), "cpu", "", of(pods(3)))

    assert (given.percent, given.average) == (50, 500)


@pytest.mark.parametrize(("up", "down", "replicas"), [(0.0, 0.1, 4), (0.05, 0.1, 4), (0.1, 0.1, 3), (0.5, 0.0, 3)])
def test_tolerance_is_counted_in_each_direction(up: float, down: float, replicas: int) -> None:
    assert by_cpu(3, 100, used(1060, 1060, 1060), pods(3), Tolerances(up, down)) == (replicas, 106)


@pytest.mark.parametrize(("down", "replicas"), [(0.1, 10), (0.0, 10), (0.02, 10)])
def test_no_tolerance_for_shrinking_does_not_round_down(down: float, replicas: int) -> None:
    # 95 % of ten is nine and a half: ten.
    assert by_cpu(10, 100, used(*[950] * 10), pods(10), Tolerances(0.1, down))[0] == replicas


def test_pods_without_a_reading_count_as_idle_when_the_others_ask_for_more() -> None:
    # Two of three at 100 %, target 50 %: 4 by themselves; with an idle third 67 % of 3, which is 4.
    assert by_cpu(3, 50, used(1000, 1000), pods(3)) == (4, 100)
    # One of three: the second look says 33 %, which turns the other way.
    assert by_cpu(3, 50, used(1000), pods(3)) == (3, 100)


def test_pods_without_a_reading_count_as_busy_when_the_others_ask_for_fewer() -> None:
    # Three of four at 20 %, target 60 %: with a fourth at 100 % it is 40 %, so 3 instead of 1.
    assert by_cpu(4, 60, used(200, 200, 200), pods(4)) == (3, 20)
    # One of two: 60 % is the target.
    assert by_cpu(2, 60, used(200), pods(2)) == (2, 20)


def test_a_target_above_all_that_is_requested_is_what_a_missing_pod_is_taken_to_use() -> None:
    # At 200 % of 200 % there is nothing to gain; at 100 % there would be.
    assert by_cpu(2, 200, used(1000), pods(2)) == (2, 100)
    assert by_cpu(4, 200, used(200, 200, 200), pods(4)) == (2, 20)


def test_pods_that_are_not_ready_count_as_idle_when_the_others_ask_for_more() -> None:
    young = {"age": timedelta(seconds=20), "ready_for": timedelta(seconds=10), "ready": False}
    found = [pod("p0"), pod("p1"), pod("p2", **young)]

    # 4 of two by themselves; 67 % of 50 % of three.
    assert by_cpu(3, 50, used(1000, 1000, 5000), found) == (4, 100)
    # Where the others ask for fewer, they are left aside.
    assert by_cpu(3, 50, used(100, 100, 5000), found) == (1, 10)


def test_pods_that_wait_to_be_placed_count_as_not_ready() -> None:
    found = [pod("p0"), pod("p1"), pod("p2", phase="Pending")]

    assert grouped(found, used(1, 1), "cpu", of(found)).unready == {"p2"}
    assert by_cpu(3, 50, used(1000, 1000), found) == (4, 100)


def test_pods_that_end_or_have_failed_do_not_count() -> None:
    found = [pod("p0"), pod("p1", deleted=True), pod("p2", phase="Failed")]

    groups = grouped(found, used(1, 1, 1), "cpu", of(found))

    assert (groups.counted, groups.ignored) == (1, {"p1", "p2"})
    assert by_cpu(1, 50, used(1000, 9000, 9000), found) == (2, 100)


@pytest.mark.parametrize(
    ("how", "at", "counts"),
    [
        # In its first five minutes a pod counts once it has been ready for a whole window.
        ({"age": 2 * MINUTE, "ready_for": timedelta(seconds=90)}, NOW, True),
        ({"age": 2 * MINUTE, "ready_for": timedelta(seconds=30)}, NOW, False),
        ({"age": 2 * MINUTE, "ready_for": timedelta(seconds=90)}, NOW - MINUTE, False),
        ({"age": 2 * MINUTE, "ready_for": 2 * MINUTE, "ready": False}, NOW, False),
        # Later, unless it has never been ready: one that was, and is not, may be so because of its load.
        ({"age": 10 * MINUTE, "ready_for": MINUTE, "ready": False}, NOW, True),
        ({"age": 10 * MINUTE, "ready_for": 10 * MINUTE - timedelta(seconds=20), "ready": False}, NOW, False),
        ({"age": 10 * MINUTE, "ready_for": timedelta(seconds=1)}, NOW, True),
    ],
)
def test_when_the_cpu_of_a_young_pod_counts(how: dict[str, Any], at: datetime, counts: bool) -> None:
    found = [pod("p0", **how)]

    assert bool(grouped(found, used(1, at=at), "cpu", of(found)).counted) is counts
    # Memory always does.
    assert grouped(found, used(1, at=at), "memory", of(found)).counted == 1


@pytest.mark.parametrize(
    ("found", "readings", "words"),
    [
        ([], {}, "no pods returned by selector while calculating replica count"),
        (pods(1), {}, "did not receive metrics for targeted pods (pods might be unready)"),
        (pods(1, phase="Pending"), used(1), "did not receive metrics for targeted pods (pods might be unready)"),
        (pods(1, cpu=None), used(1), "missing request for cpu in container main of Pod p0"),
        (pods(1), {"other": Reading(1, NOW, MINUTE)}, "no metrics returned matched known pods"),
    ],
)
def test_what_is_said_where_nothing_can_be_said(found: list[Obj], readings: dict[str, Reading], words: str) -> None:
    with pytest.raises(NoProposalError) as error:
        by_cpu(1, 50, readings, found)

    assert str(error.value) == words


def test_sidecars_are_part_of_what_a_pod_requests_and_init_steps_are_not() -> None:
    found = pod("p")
    small = {"requests": {"cpu": "100m"}}
    found["spec"]["initContainers"] = [
        {"name": "side", "restartPolicy": "Always", "resources": small},
        {"name": "step", "resources": {"requests": {"cpu": "4"}}},
    ]

    assert requests_by_pod([found], "cpu", "") == {"p": 1100}
    assert requests_by_pod([found], "cpu", "side") == {"p": 100}
    with pytest.raises(NoProposalError, match="container step not found in Pod p"):
        requests_by_pod([found], "cpu", "step")


def test_what_a_pod_states_as_a_whole_is_what_it_requests() -> None:
    found = pod("p", cpu=None)
    found["spec"]["resources"] = {"requests": {"cpu": "2"}}

    assert requests_by_pod([found], "cpu", "") == {"p": 2000}
    with pytest.raises(NoProposalError, match="missing pod-level request for memory in Pod p"):
        requests_by_pod([found], "memory", "")
    with pytest.raises(NoProposalError, match="missing request for cpu in container main of Pod p"):
        requests_by_pod([found], "cpu", "main")


@pytest.mark.parametrize(
    ("milli", "target", "replicas", "average"),
    [
        ((20000, 10000, 30000), 15000, 4, 20000),
        ((12000, 12000, 12000), 20000, 2, 12000),
        ((20977, 20977, 20977), 20000, 3, 20977),
        # A missing one is at the target when fewer are asked for, and at nothing when more are.
        ((10000, 10000), 20000, 2, 10000),
        ((40000, 40000), 20000, 4, 40000),
    ],
)
def test_replicas_follow_an_average(milli: tuple[int, ...], target: int, replicas: int, average: int) -> None:
    given = average_replicas(3, target, used(*milli), "", of(pods(3)))

    assert (given.replicas, given.average) == (replicas, average)


@pytest.mark.parametrize(
    ("current", "target", "value", "replicas"),
    [
        (3, 15000, 20000, 4),
        (3, 20000, 20000, 3),
        (3, 20000, 21900, 3),
        (3, 20000, 10000, 2),
        # From nothing, by the value alone; whatever there is asks for one at least.
        (0, 20000, 100000, 5),
        (0, 20000, 1, 1),
        (0, 20000, 0, 0),
        (3, 1, 2**62, MOST),
    ],
)
def test_replicas_follow_a_value_in_proportion_to_the_ready(
    current: int, target: int, value: int, replicas: int
) -> None:
    assert value_replicas(current, target, value, of(pods(3))) == replicas


def test_only_ready_pods_carry_a_value() -> None:
    found = [*pods(2), pod("p2", ready=False)]

    assert value_replicas(3, 10000, 20000, of(found)) == 4
    with pytest.raises(NoProposalError, match="unable to calculate ready pods: no pods returned by selector"):
        value_replicas(3, 10000, 20000, of([]))


@pytest.mark.parametrize(
    ("existing", "target", "value", "replicas", "average"),
    [
        (3, 50000, 300000, 6, 100000),
        (3, 100000, 300000, 3, 100000),
        (3, 100000, 320000, 3, 106667),
        (3, 100000, 100000, 1, 33334),
        (0, 100000, 300000, 3, 300000),
    ],
)
def test_a_shared_value_is_divided_among_as_many_as_it_takes(
    existing: int, target: int, value: int, replicas: int, average: int
) -> None:
    given = shared_replicas(existing, target, value, Tolerances())

    assert (given.replicas, given.average) == (replicas, average)
