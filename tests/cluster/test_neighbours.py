"""Clusters of one machine: a new one gets ports and networks that no other has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from navarch.cluster import neighbours as beside
from navarch.cluster.config import ClusterConfig
from navarch.cluster.neighbours import free_index, neighbours, note
from navarch.cluster.planning import plan


def test_clusters_with_folders_elsewhere_keep_what_is_theirs_until_they_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "_planning_file", lambda: tmp_path / "planning")
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path / "one"))
    first, _ = plan("a", None, {})
    first.save()
    note(first)
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path / "two"))

    second, _ = plan("b", None, {})

    assert second.index != first.index
    assert second.port != first.port
    # It was stopped long ago, and may be started again.
    os.utime(first.root / "cluster.json", (0, 0))
    assert neighbours() == [first]
    (first.root / "cluster.json").unlink()
    assert neighbours() == []


def test_where_all_networks_are_claimed_those_of_clusters_that_are_down_are_given_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "_routed_networks", list)
    every = [ClusterConfig(f"c{index}", str(tmp_path / f"c{index}"), index=index) for index in range(100)]
    for cluster in every:
        cluster.save()
    for down in (every[7], every[50]):
        os.utime(down.root / "cluster.json", (0, 0))

    assert free_index(every) == 7
