"""Settings that are missing from a cluster's folder while it runs."""

from __future__ import annotations

from pathlib import Path

from navarch.cluster.config import ClusterConfig
from navarch.cluster.vanished import keep_settings


def test_settings_are_written_anew_only_where_they_stay_away(tmp_path: Path) -> None:
    config = ClusterConfig("kept", str(tmp_path / "kept"))
    config.save()
    settings = config.root / "cluster.json"
    assert not keep_settings(config, missed=False)

    settings.unlink()

    assert keep_settings(config, missed=False)
    assert not settings.exists(), "somebody may be deleting the folder"
    assert keep_settings(config, missed=True)
    assert ClusterConfig.load(config.root) == config
    assert not keep_settings(config, missed=True)


def test_a_folder_that_goes_after_its_settings_is_not_made_again(tmp_path: Path) -> None:
    config = ClusterConfig("gone", str(tmp_path / "gone"))
    config.root.mkdir()

    missed = keep_settings(config, missed=False)
    config.root.rmdir()

    assert missed
    assert not config.root.exists()
