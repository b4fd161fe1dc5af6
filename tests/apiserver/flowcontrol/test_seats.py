"""How many seats levels have, lend and borrow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.apiserver.flowcontrol.objects import defaults
from navarch.apiserver.flowcontrol.seats import (
    Demand,
    LevelConfig,
    Limits,
    Wish,
    config_of,
    current_limits,
    limits_of,
    shared_out,
)
from navarch.kinds.resources import PRIORITY_LEVEL_CONFIGURATIONS


def test_kubernetes_own_levels_have_the_seats_that_they_have_there() -> None:
    stored = [each.obj for each in defaults() if each.resource == PRIORITY_LEVEL_CONFIGURATIONS]

    limits = limits_of([config_of(obj) for obj in stored], 600)

    # As apiserver_flowcontrol_nominal_limit_seats shows them for 600 seats.
    assert {name: limit.nominal for name, limit in limits.items()} == {
        "exempt": 0,
        "catch-all": 13,
        "global-default": 49,
        "leader-election": 25,
        "node-high": 98,
        "system": 74,
        "workload-high": 98,
        "workload-low": 245,
    }
    assert limits["workload-low"].least == 245 - 220
    assert limits["workload-low"].most == 845


def test_a_level_borrows_no_more_than_it_may() -> None:
    level = LevelConfig("l", "", False, 10, lendable_percent=50, borrowing_percent=20)

    assert limits_of([level, LevelConfig("m", "", False, 10)], 100)["l"] == Limits(50, 25, 60)


def test_what_one_does_not_need_another_has() -> None:
    limits = {"busy": Limits(50, 25, 150), "idle": Limits(50, 25, 150)}

    found = current_limits(limits, {"busy": (90, 90.0), "idle": (0, 0.0)}, 100)

    assert found == {"busy": 75, "idle": 25}


def test_who_wants_as_much_gets_as_much() -> None:
    limits = {"a": Limits(50, 10, 150), "b": Limits(50, 10, 150)}

    assert current_limits(limits, {"a": (50, 50.0), "b": (50, 50.0)}, 100) == {"a": 50, "b": 50}


_WISHES = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    st.tuples(st.floats(0, 100), st.floats(0.1, 200), st.floats(0, 100)).map(
        lambda each: Wish(each[1], each[0], each[0] + each[2])
    ),
    min_size=1,
)


@given(_WISHES, st.floats(0, 1000))
def test_all_seats_are_given_away_within_bounds(wishes: dict[str, Wish], total: float) -> None:
    found = shared_out(total, wishes)

    for name, wish in wishes.items():
        assert wish.least - 1e-6 <= found[name] <= wish.most + 1e-6
    least, most = sum(wish.least for wish in wishes.values()), sum(wish.most for wish in wishes.values())
    assert sum(found.values()) == pytest.approx(min(max(total, least), most), abs=1e-3)


def test_demand_rises_at_once_and_falls_slowly() -> None:
    demand = Demand()
    demand.change(10, 0.0)
    assert demand.turn(10.0) == 10
    assert demand.smoothed == pytest.approx(10)

    demand.change(-10, 10.0)
    assert demand.turn(20.0) == 10
    assert demand.smoothed == pytest.approx(9.77)
    assert demand.turn(30.0) == 0


def test_demand_counts_the_deviation_too() -> None:
    demand = Demand()
    demand.change(10, 0.0)
    demand.change(-10, 5.0)

    demand.turn(10.0)

    assert demand.smoothed == pytest.approx(5 + 5)
