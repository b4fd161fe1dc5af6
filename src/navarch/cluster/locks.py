"""Who lives: each process of a cluster holds a lock on `run/<name>.lock` for as long as it lives, whatever else is
written down anywhere.

These are POSIX record locks. The kernel takes them back when the process ends, in whatever way; it tells whoever asks
the holder's pid; they survive `exec`, and children do not get them, so that a shim is not taken for the containerd that
started it. A process loses its lock when it closes any descriptor of the file: hence all asking goes through `holder`,
which leaves files that this process holds alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

LIVES = 0
# On the supervisor's file alone: held by who takes the cluster down, so that no supervisor starts meanwhile.
STOPPING = 1

SUPERVISOR = "supervisor"

# struct flock: type, whence, start, length, pid.
_FLOCK = "hhqqi"
_held: dict[Path, tuple[int, set[int]]] = {}


class HeldError(Exception):
    """Another process holds the lock: `pid`, or 0 if it is gone by now or cannot be seen from here."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"process {pid or '(unknown)'} holds {path}")
        self.pid = pid


def path_of(run: Path, name: str) -> Path:
    return run / f"{name}.lock"


def hold(run: Path, name: str, byte: int = LIVES, *, inheritable: bool = False) -> None:
    """Take the lock, to be kept until `release` or the end of the process; taking what one has changes nothing.
    `inheritable` keeps it over an `exec`.  Raises HeldError, and OSError where the file cannot be opened."""
    path = path_of(run, name)
    known = _held.get(path)
    if known is not None and byte in known[1]:
        return
    if known is None:
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    else:
        descriptor = known[0]
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        pid = max(_asked(descriptor, byte), 0)
        if known is None:
            os.close(descriptor)
        raise HeldError(path, pid) from None
    os.set_inheritable(descriptor, inheritable)
    _held.setdefault(path, (descriptor, set()))[1].add(byte)


def release(run: Path, name: str, byte: int = LIVES) -> None:
    path = path_of(run, name)
    known = _held.get(path)
    if known is None or byte not in known[1]:
        return
    known[1].discard(byte)
    if known[1]:
        fcntl.lockf(known[0], fcntl.LOCK_UN, 1, byte)
    else:
        del _held[path]
        os.close(known[0])


def forget() -> None:
    """In a child by `fork`: it has none of its parent's locks, and is about to close their files."""
    _held.clear()


def holder(run: Path, name: str, byte: int = LIVES) -> int:
    """The pid of the process that holds the lock; 0 where none does, -1 for one that cannot be seen from here."""
    path = path_of(run, name)
    known = _held.get(path)
    if known is not None:
        return os.getpid() if byte in known[1] else _asked(known[0], byte)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return _asked(descriptor, byte)
    finally:
        os.close(descriptor)


def names(run: Path) -> list[str]:
    """Whose lock files there are, the supervisor's aside."""
    return sorted(path.stem for path in run.glob("*.lock") if path.stem != SUPERVISOR)


def _asked(descriptor: int, byte: int) -> int:
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    if kind == fcntl.F_UNLCK:
        return 0
    return pid if pid > 0 else -1
