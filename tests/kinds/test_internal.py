"""Kubernetes' internal form of objects, and what differs between two."""

from __future__ import annotations

from difflib import unified_diff
from random import Random
from typing import Any

from navarch.kinds.internal import difference
from tests.growth import grows_with_size


def spec(*values: str) -> dict[str, Any]:
    env = [{"name": f"e{index}", "value": value} for index, value in enumerate(values)]
    return {"containers": [{"name": "c", "image": "i", "env": env}]}


def test_a_small_difference_is_told_as_the_best_diff_tells_it() -> None:
    random = Random(1)
    for _ in range(50):
        old = [random.choice("abc") for _ in range(20)]
        new = [value for value in old if random.random() > 0.1]
        before, after = (
            [line[1:] for line in difference(None, each, "PodSpec").splitlines() if line.startswith("+")]
            for each in (spec(*old), spec(*new))
        )
        best = list(unified_diff(before, after, lineterm=""))[2:]

        assert difference(spec(*old), spec(*new), "PodSpec") == "".join(f"{line}\n" for line in best)


def test_of_many_changes_each_is_told() -> None:
    told = difference(spec(*["a"] * 2000), spec(*["b"] * 2000), "PodSpec")

    assert told.count('"Value": "a"') == told.count('"Value": "b"') == 2000
    assert all(line[0] in "-+ @" for line in told.splitlines())


def test_of_many_lines_that_are_no_longer_as_many_those_that_went_are_told() -> None:
    told = difference(spec(*["a"] * 2000), spec(*["a"] * 1000, *["b"] * 500), "PodSpec")

    assert told.count('+     "Value": "b"') == 500
    assert told.count('-     "Value": "a"') == 1000


def test_differences_take_no_quadratic_time() -> None:
    def differ(size: int) -> None:
        difference(spec(*["a"] * size), spec(*["b"] * size), "PodSpec")

    # Quadratic work would take a quarter of a minute.
    assert grows_with_size(differ, 4000, never_much_s=1)
