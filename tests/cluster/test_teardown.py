"""Taking a cluster down never reaches into what is mounted in its folder."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from navarch.cluster import teardown
from navarch.cluster.config import ClusterConfig, ConfigError

_MS_BIND = 4096


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_folder_with_a_mount_that_stays_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, other = tmp_path / "c/node/volume", tmp_path / "other"
    place.mkdir(parents=True)
    other.mkdir()
    monkeypatch.setattr("navarch.node.agent.purge_node", lambda *_, **__: None)
    config = ClusterConfig("c", str(tmp_path / "c"))
    libc = ctypes.CDLL(None)
    assert libc.mount(str(other).encode(), str(place).encode(), None, _MS_BIND, None) == 0
    try:
        with pytest.raises(ConfigError, match="still mounted"):
            teardown.remove_traces(config)
        teardown.remove_traces(config, keep_images=True)
    finally:
        libc.umount2(str(place).encode(), 2)
    teardown.remove_traces(config)
