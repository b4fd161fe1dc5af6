"""Volumes' files: payloads and sub-paths."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from navarch.node.containerd import unmount_below
from navarch.node.volumes import sub_path
from navarch.node.volumes.atomic import write_payload
from navarch.node.volumes.base import Payload, VolumeError
from tests.node.objects import NOW


def test_a_payload_changes_all_at_once(tmp_path: Path) -> None:
    place = tmp_path / "v"
    assert write_payload(
        place, {"a": Payload(b"1", 0o644), "d/b": Payload(b"2", 0o600)}, mode=0o777, group=None, now=NOW
    )
    old = (place / "..data").resolve()

    assert not write_payload(
        place, {"a": Payload(b"1", 0o644), "d/b": Payload(b"2", 0o600)}, mode=0o777, group=None, now=NOW
    )
    assert write_payload(place, {"a": Payload(b"3", 0o644)}, mode=0o777, group=None, now=NOW)

    assert (place / "a").read_text() == "3"
    assert sorted(entry.name for entry in place.iterdir() if not entry.name.startswith("..")) == ["a"]
    assert not old.exists()


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../b", "..data"])
def test_a_payload_stays_in_its_place(tmp_path: Path, path: str) -> None:
    with pytest.raises(VolumeError):
        write_payload(tmp_path / "v", {path: Payload(b"", 0o644)}, mode=0o777, group=None, now=NOW)


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Path]:
    """Where sub-paths are bound; unmounted afterwards."""
    place = tmp_path / "bound"
    yield place
    unmount_below([place])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_sub_path_is_held_fast(tmp_path: Path, bound: Path) -> None:
    volume = tmp_path / "v"
    (volume / "dir").mkdir(parents=True)
    volume.chmod(0o777)
    (volume / "dir/file").write_text("one")
    (volume / "inner").symlink_to("dir/file")

    file = sub_path.bind_sub_path(volume, "inner", bound / "0")
    made = sub_path.bind_sub_path(volume, "new/er", bound / "1")
    # What a container may do at any moment.
    (volume / "new/er").rename(volume / "new/old")
    (volume / "new/er").symlink_to("/etc")
    (made / "out").write_text("x")

    assert file.read_text() == "one"
    assert (volume / "new/old/out").exists()
    assert made.stat().st_mode & 0o777 == 0o777
    again = sub_path.bind_sub_path(volume, "dir", bound / "0")
    assert [entry.name for entry in again.iterdir()] == ["file"]


@pytest.mark.parametrize("path", ["link/passwd", "../x", "/etc", "deep/link2"])
def test_a_sub_path_may_not_lead_out(tmp_path: Path, path: str) -> None:
    volume = tmp_path / "v"
    (volume / "deep").mkdir(parents=True)
    (volume / "link").symlink_to("/etc")
    (volume / "deep/link2").symlink_to("../../x")

    with pytest.raises(VolumeError):
        sub_path.bind_sub_path(volume, path, tmp_path / "bound")


def test_a_link_that_appears_during_the_walk_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    (volume / "dir").symlink_to("/etc")
    # As if the link had been a directory when it was looked at.
    monkeypatch.setattr(sub_path.os.path, "realpath", str)

    with pytest.raises(VolumeError, match="was changed"):
        sub_path.bind_sub_path(volume, "dir", tmp_path / "bound")


@pytest.mark.parametrize(("group", "folder", "file"), [(None, 0o777, 0o400), (1234, 0o2777, 0o440)])
def test_files_are_for_whom_kubernetes_has_them(tmp_path: Path, group: int | None, folder: int, file: int) -> None:
    if group is not None and os.geteuid() != 0:
        pytest.skip("giving files to a group needs root")
    write_payload(tmp_path / "v", {"a": Payload(b"1", 0o400)}, mode=0o777, group=group, now=NOW)

    assert stat.S_IMODE((tmp_path / "v").stat().st_mode) == folder
    assert stat.S_IMODE((tmp_path / "v/a").stat().st_mode) == file
    assert not write_payload(tmp_path / "v", {"a": Payload(b"1", 0o400)}, mode=0o777, group=group, now=NOW)
