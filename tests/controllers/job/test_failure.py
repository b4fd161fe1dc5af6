"""How long a Job waits after failures in a row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from navarch.api.meta import Obj
from navarch.api.time import format_time
from navarch.controllers.job.failure import Streak
from tests.controllers.objects import job

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def ended(name: str, phase: str, ago_s: float) -> Obj:
    stamp = format_time(NOW - timedelta(seconds=ago_s))
    container = {"name": "main", "state": {"terminated": {"exitCode": int(phase == "Failed"), "finishedAt": stamp}}}
    return {
        "metadata": {"name": name, "uid": name, "namespace": "default", "creationTimestamp": stamp},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": phase, "containerStatuses": [container]},
    }


def streak(*pods: Obj) -> Streak:
    seen = Streak("job")
    seen.see(job(), pods)
    return seen


@pytest.mark.parametrize(("failures", "wait_s"), [(0, 0.0), (1, 10.0), (2, 20.0), (3, 40.0), (20, 600.0)])
def test_each_failure_doubles_the_wait_up_to_ten_minutes(failures: int, wait_s: float) -> None:
    assert streak(*(ended(f"p{n}", "Failed", 0) for n in range(failures))).wait_s(NOW) == wait_s


def test_the_wait_counts_from_the_last_failure() -> None:
    assert streak(ended("a", "Failed", 30), ended("b", "Failed", 5)).wait_s(NOW) == 15.0


def test_a_success_ends_the_row() -> None:
    seen = streak(ended("a", "Failed", 30), ended("b", "Failed", 20))

    seen.see(job(), [ended("c", "Succeeded", 10)])
    assert seen.wait_s(NOW) == 0.0

    seen.see(job(), [ended("c", "Succeeded", 10), ended("d", "Failed", 4)])
    assert seen.wait_s(NOW) == 6.0


def test_failures_count_when_their_pods_are_gone() -> None:
    seen = streak(ended("a", "Failed", 3), ended("b", "Failed", 2))

    seen.see(job(), [])

    assert seen.wait_s(NOW) == 18.0
