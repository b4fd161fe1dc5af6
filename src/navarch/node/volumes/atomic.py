"""Files that change all at once: a directory whose visible names are links through `..data` to a dated directory.

Writing a new set makes a new dated directory and moves `..data` to it in one rename, so that a reader sees either the
old files or the new ones, never a mixture. Nothing is touched where nothing differs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath

from navarch.node.volumes.base import Payload, VolumeError

_DATA = "..data"


def write_payload(place: Path, payload: Mapping[str, Payload], *, mode: int, group: int | None, now: datetime) -> bool:
    """Make `payload` (by relative path) what `place` shows, a directory of that mode; returns whether anything
    changed."""
    for path in payload:
        _check_path(path)
    place.mkdir(parents=True, exist_ok=True)
    if group is not None:
        os.chown(place, -1, group)
    place.chmod(mode if group is None else mode | 0o2000)
    link = place / _DATA
    if _shows(link, payload, group):
        return False
    fresh = Path(tempfile.mkdtemp(prefix=now.strftime("..%Y_%m_%d_%H_%M_%S."), dir=place))
    old = os.readlink(link) if link.is_symlink() else None
    try:
        _fill(fresh, payload, group)
        staged = place / "..data_tmp"
        staged.unlink(missing_ok=True)
        staged.symlink_to(fresh.name)
        staged.rename(link)
    except OSError:
        # Where the disk is full, what is tried again and again must not fill it further.
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _show_names(place, payload)
    if old is not None:
        shutil.rmtree(place / old, ignore_errors=True)
    return True


def _fill(folder: Path, payload: Mapping[str, Payload], group: int | None) -> None:
    folder.chmod(0o755)
    for path, file in payload.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)
        # Ownership first: changing it clears set-user-id bits.
        if file.uid is not None or group is not None:
            os.chown(target, -1 if file.uid is None else file.uid, -1 if group is None else group)
        target.chmod(file.mode if group is None else file.mode | 0o440)


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or any(part == ".." for part in parts) or parts[0].startswith(".."):
        raise VolumeError(f"invalid path {path!r}: must be relative, without '..'")


def _shows(link: Path, payload: Mapping[str, Payload], group: int | None) -> bool:
    if not link.is_symlink():
        return False
    base = link.parent / os.readlink(link)
    present = {str(path.relative_to(base)) for path in base.rglob("*") if not path.is_dir()}
    if present != set(payload):
        return False
    for path, file in payload.items():
        target = base / path
        if target.read_bytes() != file.data:
            return False
        status = target.stat()
        if file.uid is not None and status.st_uid != file.uid:
            return False
        if group is not None and status.st_gid != group:
            return False
        wanted = file.mode if group is None else file.mode | 0o440
        if status.st_mode & 0o7777 != wanted:
            return False
    return True


def _show_names(place: Path, payload: Mapping[str, Payload]) -> None:
    """Link the first part of every path through `..data`; remove links that lead nowhere now."""
    wanted = {PurePosixPath(path).parts[0] for path in payload}
    for entry in list(place.iterdir()):
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    for name in sorted(wanted):
        if not (place / name).is_symlink():
            (place / name).symlink_to(f"{_DATA}/{name}")
