"""nfs: what is asked of `mount`, and what it says where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from navarch.node.volumes.base import VolumeError
from navarch.node.volumes.nfs import mount_export

STATED = {"server": "files.example.com", "path": "/export"}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `mount` that writes down what it is asked and succeeds; the file that it writes."""
    programs, said = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    (programs / "mount").write_text(f'#!/bin/sh\necho "$@" > {said}\n')
    (programs / "mount").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return said


def test_an_export_is_mounted_with_its_options(asked: Path, tmp_path: Path) -> None:
    place = tmp_path / "v"

    assert mount_export(STATED, ["nfsvers=4.1", "hard"], place, read_only=True) == place

    assert asked.read_text().strip() == f"-t nfs -o ro,nfsvers=4.1,hard files.example.com:/export {place}"


def test_what_mount_says_is_told(asked: Path, tmp_path: Path) -> None:
    (asked.parent / "bin" / "mount").write_text("#!/bin/sh\necho 'you might need a helper program' >&2\nexit 32\n")

    with pytest.raises(VolumeError) as caught:
        mount_export(STATED, [], tmp_path / "v", read_only=False)

    assert str(caught.value) == (
        "mount failed: exit status 32\nMounting command: mount\n"
        f"Mounting arguments: -t nfs files.example.com:/export {tmp_path / 'v'}\n"
        "Output: you might need a helper program\n"
    )
