"""The floors that the golden scores may not sink below: `floors.json`, a count of equal steps per area and measure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.golden.replay import MEASURES, Score

FILE = Path(__file__).with_name("floors.json")

Floors = dict[str, dict[str, int]]


def load() -> Floors:
    found: Floors = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def below(area: str, score: Score, floors: Floors) -> list[str]:
    """What is worse than it was, a line each."""
    floor = floors.get(area, {})
    return [
        f"{area}: {score.same[measure]} of {score.steps} steps have the same {measure}; it was {floor[measure]}"
        for measure in MEASURES
        if score.same[measure] < floor.get(measure, 0)
    ]


def lift(runs: Sequence[Mapping[str, Score]]) -> None:
    """Write what every run reached, where it is more than before."""
    floors = load()
    for area in runs[0]:
        if area == "total":
            continue
        before = floors.get(area, {})
        reached = {measure: min(run[area].same[measure] for run in runs) for measure in MEASURES}
        floors[area] = {measure: max(reached[measure], before.get(measure, 0)) for measure in MEASURES}
    FILE.write_text(json.dumps(floors, indent=2, sort_keys=True) + "\n")
