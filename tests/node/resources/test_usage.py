"""What folders occupy, and how often they are looked at."""

from __future__ import annotations

import os
from pathlib import Path

from navarch.node.resources.usage import DiskUsage, tree
from navarch.world import RealWorld
from tests.node.objects import pod


def test_a_folder_counts_with_all_below_it_and_a_file_of_several_names_once(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    before = tree(tmp_path)
    (tmp_path / "below" / "file").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "below" / "file", tmp_path / "other-name")
    (tmp_path / "link").symlink_to("/etc")

    after = tree(tmp_path)

    assert 100_000 <= after.bytes - before.bytes < 150_000
    assert after.inodes - before.inodes == 2


def test_a_folder_that_is_not_there_uses_nothing(tmp_path: Path) -> None:
    assert tree(tmp_path / "none") == (0, 0)


async def test_what_was_measured_is_kept_for_as_long_as_the_asker_allows(tmp_path: Path) -> None:
    asked = pod({"name": "c"}, volumes=[{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}])
    volume = tmp_path / "v"
    volume.mkdir()
    disks = DiskUsage(RealWorld())
    places = {"v": volume, "m": tmp_path}
    first = await disks.of(asked, places, tmp_path / "logs", max_age_s=3600)
    (volume / "file").write_bytes(b"x" * 100_000)

    assert (await disks.of(asked, places, tmp_path / "logs", max_age_s=3600)) is first
    assert (await disks.of(asked, places, tmp_path / "logs", max_age_s=0)).volumes["v"].bytes >= 100_000
    assert set(first.volumes) == {"v"}
