"""Kubernetes' recorded answers: as many are given as before, or more.

`python tools/golden.py` shows what differs, and `--raise` lifts the floors to what was reached.  Areas whose cases wait
for seconds (controllers, the scheduler, groups that are not served) are left to that tool.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.golden import floors
from tests.golden.replay import Step, areas, differences, folder, replay, scores

_FAST = (
    "aggregation",
    "apply",
    "bootstrap",
    "content",
    "custom",
    "defaulting",
    "deleting",
    "discovery",
    "generic",
    "patches",
    "policies",
    "reading",
    "reviews",
    "subresources",
    "updates",
    "validation",
    "watch",
    "webhooks",
)

pytestmark = [
    pytest.mark.skipif(folder() is None, reason="shared/golden is not beside this repository"),
    # Some cases wait for controllers, for as long as Kubernetes took: nothing may keep them.
    pytest.mark.alone,
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    return asyncio.run(replay([area for area in areas() if area in _FAST]))


def test_no_fewer_answers_are_those_of_kubernetes_than_before(steps: list[Step]) -> None:
    known = floors.load()
    found = scores(steps)
    del found["total"]

    assert [line for area, score in found.items() for line in floors.below(area, score, known)] == []


def test_no_recorded_request_is_an_internal_error(steps: list[Step]) -> None:
    internal = [step for step in steps if step.codes[1] >= 500 > step.codes[0] or step.codes[1] == 0]

    assert [f"{step.case}#{step.number}: {step.codes}" for step in internal] == []


def test_what_differs_on_purpose_differs(steps: list[Step]) -> None:
    """What is the same by now is no longer listed."""
    differing = {f"{step.case}#{step.number}" for step in steps if step.on_purpose and not step.judged["body"]}

    assert sorted(differences()) == sorted(differing)
