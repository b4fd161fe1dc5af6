"""The files of a container's log: the one that is written, and beside it those that were rotated, `0.log.<time>` and,
compressed, `0.log.<time>.gz`.  A step that fails leaves nothing half done behind."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path
from typing import Final

_COMPRESSED: Final = ".gz"
_PARTIAL: Final = ".tmp"


def size_of(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def rotated(path: Path) -> list[Path]:
    """What was rotated of a log, the oldest first."""
    return sorted(path.parent.glob(f"{path.name}.*"))


def make_way(path: Path, keep: int) -> None:
    """Remove all but the `keep` newest of a log's rotated files, and compress those.  Raises OSError."""
    found = set(rotated(path))
    left_over = {one for one in found if one.suffix == _PARTIAL or one.with_name(one.name + _COMPRESSED) in found}
    for one in left_over:
        one.unlink(missing_ok=True)
    files = sorted(found - left_over)
    excess = max(len(files) - max(keep, 0), 0)
    for one in files[:excess]:
        one.unlink(missing_ok=True)
    for one in files[excess:]:
        if one.suffix != _COMPRESSED:
            _compress(one)


def _compress(path: Path) -> None:
    partial = path.with_name(path.name + _PARTIAL)
    try:
        with path.open("rb") as plain:
            mode = os.fstat(plain.fileno()).st_mode & 0o777
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file, gzip.GzipFile("", "wb", 6, file) as packed:
                shutil.copyfileobj(plain, packed, 1 << 20)
        partial.replace(path.with_name(path.name + _COMPRESSED))
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    path.unlink()


def remove_logs(path: Path) -> None:
    """Take away a container's log with all that was rotated of it."""
    for one in [path, *rotated(path)]:
        one.unlink(missing_ok=True)
