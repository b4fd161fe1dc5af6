"""A copy of a database while its server goes on writing: one moment's state, whole, without what is history.

SQLite reads it in one transaction beside the writer, which is not held up; only its log cannot be shortened meanwhile.
What cannot be read is an error, not a smaller copy.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from navarch.store import sqlite_file
from navarch.store.base import StoreUnavailable
from navarch.store.sqlite_open import hide


def copy(database: Path, target: Path) -> int:
    """Write the copy, durably, and return its revision. Blocks.  Raises StoreUnavailable, OSError."""
    if not database.exists():
        raise StoreUnavailable(f"{database} is missing")
    target.unlink(missing_ok=True)
    # Made first, so that it is never anybody else's to read.
    hide(target)
    try:
        with contextlib.closing(sqlite_file.look(database)) as source:
            source.execute("VACUUM INTO ?", (str(target),))
        return check(target)
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise StoreUnavailable(f"cannot copy {database}: {error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            _sync(target)


def check(database: Path) -> int:
    """The revision of a database that is whole.  Raises sqlite3.Error where it is damaged, or none at all."""
    with contextlib.closing(sqlite_file.look(database)) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(str(found))
    generation, revision = sqlite_file.inspect(database)
    if not generation:
        raise sqlite3.DatabaseError("it holds no cluster")
    return revision


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
