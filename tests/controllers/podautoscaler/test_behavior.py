"""Limits, rates and windows between what metrics ask for and what is done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from navarch.api.meta import Obj
from navarch.controllers.podautoscaler.behavior import History, Outcome, settled
from tests.clocks import SetClock

HUNDRED_PERCENT = {"type": "Percent", "value": 100, "periodSeconds": 15}


class Scaled:
    """A target that does what is settled, by a spec."""

    def __init__(self, current: int, spec: Obj, least: int = 1) -> None:
        self.current = current
        self.clock = SetClock()
        self._spec = {"maxReplicas": 1000, **spec}
        self._least = least
        self._history = History()
        self._history.begin(current, self.clock.now())

    def wish(self, desired: int, after_s: float = 0) -> Outcome:
        self.clock.pass_s(after_s)
        now = self.clock.now()
        outcome = settled(self._spec, self._least, self.current, desired, self._history, now)
        if outcome.replicas != self.current:
            self._history.changed(self._spec.get("behavior"), self.current, outcome.replicas, now)
        self.current = outcome.replicas
        return outcome


def behavior(up: Obj | None = None, down: Obj | None = None) -> Obj:
    """As the API server completes it."""
    pods = {"type": "Pods", "value": 4, "periodSeconds": 15}
    grow = {"selectPolicy": "Max", "stabilizationWindowSeconds": 0, "policies": [pods, HUNDRED_PERCENT]}
    shrink: Obj = {"selectPolicy": "Max", "policies": [HUNDRED_PERCENT]}
    return {"behavior": {"scaleUp": {**grow, **(up or {})}, "scaleDown": {**shrink, **(down or {})}}}


@pytest.mark.parametrize(("current", "replicas"), [(1, 4), (2, 4), (3, 6), (10, 20)])
def test_without_behavior_a_target_doubles_or_comes_to_four_at_a_time(current: int, replicas: int) -> None:
    outcome = Scaled(current, {}).wish(500)

    assert outcome.replicas == replicas
    assert outcome.is_limited
    assert outcome.limited == (
        "ScaleUpLimit",
        "the desired replica count is increasing faster than the maximum scale rate",
    )


@pytest.mark.parametrize(
    ("desired", "replicas", "reason"),
    [(9, 7, "TooManyReplicas"), (1, 5, "TooFewReplicas"), (6, 6, "DesiredWithinRange")],
)
def test_the_bounds_hold(desired: int, replicas: int, reason: str) -> None:
    scaled = Scaled(5, {"maxReplicas": 7}, least=5)
    scaled.wish(desired)

    outcome = scaled.wish(desired, after_s=400)

    assert (outcome.replicas, outcome.is_limited, outcome.limited[0]) == (
        replicas,
        reason != "DesiredWithinRange",
        reason,
    )


def test_without_behavior_a_target_shrinks_to_the_highest_wish_of_five_minutes() -> None:
    scaled = Scaled(10, {})

    outcome = scaled.wish(4, after_s=15)
    assert (outcome.replicas, outcome.able[0]) == (10, "ScaleDownStabilized")
    assert scaled.wish(6, after_s=200).replicas == 10
    # The ten of the beginning is five minutes old.
    outcome = scaled.wish(3, after_s=90)
    assert (outcome.replicas, outcome.able[0]) == (6, "ScaleDownStabilized")
    assert scaled.wish(3, after_s=299).replicas == 3
    assert scaled.wish(3, after_s=301).able == ("ReadyForNewScale", "recommended size matches current size")


def test_with_default_behavior_it_grows_by_the_larger_of_four_and_double_per_period() -> None:
    scaled = Scaled(1, behavior())

    assert scaled.wish(100).replicas == 5
    assert scaled.wish(100, after_s=14).replicas == 5
    assert scaled.wish(100, after_s=1).replicas == 10
    assert scaled.wish(100, after_s=15).replicas == 20


@pytest.mark.parametrize(("select", "replicas"), [("Max", 20), ("Min", 14), ("Disabled", 10)])
def test_policies_are_selected(select: str, replicas: int) -> None:
    assert Scaled(10, behavior({"selectPolicy": select})).wish(100).replicas == replicas


@pytest.mark.parametrize(("select", "replicas"), [("Max", 50), ("Min", 95), ("Disabled", 100)])
def test_policies_for_shrinking_are_selected(select: str, replicas: int) -> None:
    policies = [
        {"type": "Percent", "value": 50, "periodSeconds": 60},
        {"type": "Pods", "value": 5, "periodSeconds": 60},
    ]
    down = {"selectPolicy": select, "stabilizationWindowSeconds": 0, "policies": policies}

    outcome = Scaled(100, behavior(down=down)).wish(1)

    assert outcome.replicas == replicas
    assert outcome.limited[0] == "ScaleDownLimit"


def test_a_percentage_is_rounded_so_that_something_happens() -> None:
    ten_percent = [{"type": "Percent", "value": 10, "periodSeconds": 60}]
    rules = {"policies": ten_percent, "stabilizationWindowSeconds": 0}

    assert Scaled(5, behavior(rules)).wish(100).replicas == 6
    assert Scaled(5, behavior(down=rules)).wish(1).replicas == 4


def test_a_rate_counts_from_what_there_was_when_its_period_began() -> None:
    two_a_minute = [{"type": "Pods", "value": 2, "periodSeconds": 60}]
    scaled = Scaled(10, behavior({"policies": two_a_minute}, {"stabilizationWindowSeconds": 0}))

    assert scaled.wish(20).replicas == 12
    assert scaled.wish(20, after_s=30).replicas == 12
    # What was taken away meanwhile may come back beside what the policy allows.
    assert scaled.wish(9).replicas == 9
    assert scaled.wish(20, after_s=10).replicas == 12
    assert scaled.wish(20, after_s=31).replicas == 14


def test_growth_waits_for_its_window() -> None:
    scaled = Scaled(2, behavior({"stabilizationWindowSeconds": 60}))

    outcome = scaled.wish(5, after_s=15)
    assert (outcome.replicas, outcome.able) == (
        2,
        (
            "ScaleUpStabilized",
            "recent recommendations were lower than current one, applying the lowest recent recommendation",
        ),
    )
    assert scaled.wish(4, after_s=40).replicas == 2
    # Since the two of the beginning, nobody has asked for fewer than four.
    assert scaled.wish(5, after_s=10).replicas == 4


def test_shrinking_without_a_window_of_its_own_waits_five_minutes() -> None:
    scaled = Scaled(10, behavior())

    assert scaled.wish(3, after_s=299).replicas == 10
    assert scaled.wish(3, after_s=2).replicas == 3


def test_what_is_remembered_does_not_grow() -> None:
    history = History()
    now = SetClock().now()
    spec: Any = {"maxReplicas": 1000, **behavior()}
    for step in range(1000):
        now += timedelta(seconds=15)
        wish = 10 + step % 2
        settled(spec, 1, 10, wish, history, now)
        history.changed(spec["behavior"], 10, wish, now)

    assert len(history.wishes) < 50
    assert len(history.ups) + len(history.downs) < 10
