"""Logs that do not grow for ever: `<name>.log`, then `<name>.log.1` (the one before) up to `<name>.log.4`.

A process of ours rotates its own log: the files are renamed and its standard output and error go on in a new one, so
that no line is lost or cut. containerd cannot do that; it writes into a pipe that it holds open for reading, too (the
supervisor may die and be replaced meanwhile), and the supervisor writes the file.
Only the owner may read them: requests, and with them secrets, are in there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
from pathlib import Path

MAX_BYTES = int(os.environ.get("NAVARCH_LOG_MAX_BYTES") or 10 << 20)
"""A file that is longer is rotated."""
FILES = int(os.environ.get("NAVARCH_LOG_FILES") or 5)
"""How many files there are of each log, the newest one included."""
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CHUNK = 64 << 10
_PIPE_BYTES = 1 << 20


def secure(folder: Path) -> None:
    """Make the folder of logs, and have it and what is in it be its owner's alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
        for file in folder.glob("*.log*"):
            file.chmod(0o600)


def open_log(path: Path) -> int:
    """A descriptor that appends to a log.  Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def rotated(path: Path) -> list[Path]:
    """The files of a log, oldest first."""
    older = [path.with_name(f"{path.name}.{number}") for number in range(1, 100)]
    there = [file for file in older if file.exists()]
    return [*reversed(there), *([path] if path.exists() else [])]


def rotate(path: Path, files: int = FILES) -> int:
    """Make room: the log begins anew, and what it was is `.1`.  Returns a descriptor of the new file.

    Raises OSError where that cannot be made (a full disk); everything is then as it was."""
    fresh = path.with_name(f"{path.name}.new")
    descriptor = open_log(fresh)
    try:
        for number in range(files - 1, 0, -1):
            source = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                source.rename(path.with_name(f"{path.name}.{number}"))
        fresh.rename(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class OwnLog(logging.StreamHandler):  # type: ignore[type-arg]
    """Logging to standard error, which is the log `path`; rotates it. Where standard error is something else (a
    terminal), it does nothing else than log."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, files: int = FILES) -> None:
        super().__init__(sys.stderr)
        self._path = path
        self._max_bytes = max_bytes
        self._files = files

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        try:
            if os.fstat(2).st_size >= self._max_bytes and self._is_ours():
                self._rotate()
        except OSError:
            # A full disk: what was going to be written here goes on being written where it was.
            return

    def _is_ours(self) -> bool:
        # Another process may have begun a new one (two supervisors, for a moment).
        return os.path.samestat(os.fstat(2), os.stat(self._path))

    def _rotate(self) -> None:
        descriptor = rotate(self._path, self._files)
        sys.stdout.flush()
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        os.close(descriptor)


def log_to(path: Path, level: str = "INFO") -> None:
    """Have this process log to its standard error, which is the file `path`."""
    logging.basicConfig(level=level, format=FORMAT, handlers=[OwnLog(path)])


class PipeLog:
    """The log of a process that cannot rotate it: a named pipe on one side, files on the other."""

    def __init__(self, pipe: Path, path: Path, max_bytes: int = MAX_BYTES, files: int = FILES) -> None:
        """Raises OSError."""
        if not pipe.is_fifo():
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe, 0o600)
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._rest = b""
        self._pipe = pipe
        # For writing, too, or it would count as ended whenever nobody else has it.
        self.descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._file = open_log(path)

    def writing_end(self) -> int:
        """For the process. It can read it, too, so that it is not killed by SIGPIPE while nobody else does."""
        descriptor = os.open(self._pipe, os.O_RDWR | os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return descriptor

    def pump(self) -> None:
        """Write down what has come; whole lines, as a file must not end within one."""
        while True:
            try:
                data = os.read(self.descriptor, _CHUNK)
            except BlockingIOError:
                return
            whole, newline, rest = (self._rest + data).rpartition(b"\n")
            if not newline and len(rest) > _CHUNK:
                whole, rest = rest, b""
            self._rest = rest
            self._write(whole + newline)

    def _write(self, data: bytes) -> None:
        # On a full disk there is nowhere to say it.
        with contextlib.suppress(OSError):
            os.write(self._file, data)
            if os.fstat(self._file).st_size >= self._max_bytes:
                fresh = rotate(self._path, self._files)
                os.close(self._file)
                self._file = fresh

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.pump()
        self._write(self._rest)
        os.close(self.descriptor)
        os.close(self._file)
