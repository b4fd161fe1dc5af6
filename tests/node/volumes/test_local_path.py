"""Directories that are volumes: made for a pod, limited where the file system can, wiped when the cluster says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from navarch.api.meta import Obj
from navarch.node.volumes.local_path import have_directory, remove_directory
from navarch.node.volumes.project_quota import limit_directory

NAME = "pvc-01234567-89ab-cdef-0123-456789abcdef"


def volume(size: str = "4Mi") -> Obj:
    return {"metadata": {"name": NAME}, "spec": {"capacity": {"storage": size}}}


def test_whoever_runs_in_the_pod_may_write(tmp_path: Path) -> None:
    have_directory(tmp_path / "local-path" / NAME, volume())

    assert (tmp_path / "local-path" / NAME).stat().st_mode & 0o7777 == 0o777


def test_a_directory_that_is_there_keeps_its_mode_and_files(tmp_path: Path) -> None:
    place = tmp_path / "local-path" / NAME
    place.mkdir(parents=True, mode=0o700)
    (place / "f").write_text("kept")

    have_directory(place, volume())

    assert place.stat().st_mode & 0o7777 == 0o700
    assert (place / "f").read_text() == "kept"


def test_a_directory_is_wiped(tmp_path: Path) -> None:
    place = tmp_path / "local-path" / NAME
    (place / "below").mkdir(parents=True)

    assert remove_directory(tmp_path, NAME) == ""
    assert not place.exists()
    assert remove_directory(tmp_path, NAME) == ""


@pytest.mark.parametrize("name", ["", "..", "../pods", "pvc-1", f"{NAME}/..", "pods"])
def test_nothing_else_is_wiped(tmp_path: Path, name: str) -> None:
    (tmp_path / "pods").mkdir()
    (tmp_path / "local-path").mkdir()

    assert "is not the name of such a volume" in remove_directory(tmp_path, name)
    assert (tmp_path / "pods").exists()


def test_a_file_system_without_project_quotas_is_told_of(tmp_path: Path) -> None:
    if "prjquota" in Path("/proc/self/mountinfo").read_text():
        pytest.skip("a file system here counts by projects")

    assert limit_directory(tmp_path, 1 << 20).endswith("is mounted without project quotas")


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Path]:
    """A file system that counts by projects."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("making a file system needs root and mkfs.ext4")
    image, place = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop,prjquota", image, place], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"the kernel mounts no ext4 with project quotas: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_volume_grows_to_its_size_and_no_further(counted: Path) -> None:
    place = counted / "local-path" / NAME
    have_directory(place, volume("4Mi"))
    (place / "small").write_bytes(b"x" * (1 << 20))
    (counted / "other").write_bytes(b"x" * (8 << 20))

    with pytest.raises(OSError, match="quota"):
        _write_through(place / "big", 8 << 20)


def _write_through(file: Path, size: int) -> None:
    with file.open("wb") as opened:
        opened.write(b"x" * size)
        opened.flush()
        os.fsync(opened.fileno())
