"""Who has a store's file open: a lock that its process holds as long as it lives, and whose file says who that is."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO, Final

from navarch.numbers import is_digits
from navarch.store.base import StoreUnavailable
from navarch.world import MACHINE

_ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.02


def lock_path(database: Path) -> Path:
    """Beside the file itself, however it is called: who comes by a symbolic link opens the same database."""
    found = database.resolve()
    return found.with_name(found.name + ".lock")


class FileLock:
    """Held from `take` to `give` (or the end of the process, however it comes)."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._file: IO[str] | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    def take(self) -> None:
        """Raises StoreUnavailable."""
        descriptor = os.open(lock_path(self._database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        file = os.fdopen(descriptor, "r+")
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                # Perhaps only `holder` looks at it, for a moment.
                if attempts_left:
                    MACHINE.pause(_PAUSE_S)
                    continue
                pid = _pid(file)
                file.close()
                who = f"process {pid}" if pid else "another process"
                raise StoreUnavailable(f"{self._database} is in use by {who}") from error
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def give(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def holder(database: Path) -> int | None:
    """The pid of the process that has the database open (0 if it does not say); None if nobody has."""
    try:
        file = open(lock_path(database), "r+")  # noqa: SIM115 - closed below, and with it what was locked
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _pid(file)
        return None


def _pid(file: IO[str]) -> int:
    file.seek(0)
    text = file.read(20).strip()
    return int(text) if is_digits(text) else 0
