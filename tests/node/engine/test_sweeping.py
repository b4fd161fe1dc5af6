"""Sweeping takes nothing away from pods that have just come."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.node.engine import gc
from tests.node.engine.conftest import Simulated


@pytest.mark.parametrize("comes", [False, True])
async def test_a_pod_that_comes_while_folders_are_looked_through_keeps_its_own(
    simulated: Simulated, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    sweeper, config = simulated.kubelet.sweeper, simulated.config
    own = [config.pods / "late", config.logs / "default_late_late"]
    for folder in own:
        folder.mkdir(parents=True)
    known: set[str] = set()
    children = gc._children

    def while_it_comes(place: Path) -> list[Path]:
        found = children(place)
        if comes:
            known.add("late")
        return found

    monkeypatch.setattr(gc, "_children", while_it_comes)
    monkeypatch.setattr(sweeper, "_known", lambda: known)

    await sweeper.remove_stale_volumes()
    await sweeper.remove_stale_directories()

    assert [folder.exists() for folder in own] == [comes, comes]
