"""`navarch logs`: what a cluster's processes say, in the files that are there and in those to come."""

from __future__ import annotations

import glob
import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click
from click.shell_completion import CompletionItem

from navarch.cli.options import WholeNumber, cluster_options, load_cluster
from navarch.cli.steps import say
from navarch.cluster.config import DEFAULT_NAME, ConfigError, flags_of
from navarch.cluster.logfiles import rotated
from navarch.world import MACHINE

_LOOK_EVERY_S = 0.2


def _processes(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    try:
        config = load_cluster(ctx.params.get("name") or DEFAULT_NAME, ctx.params.get("data_dir"))
    except ConfigError:
        return []
    return [CompletionItem(file.stem) for file in sorted(config.logs.glob(f"{glob.escape(begun)}*.log"))]


@click.command()
@click.argument("process", required=False, shell_complete=_processes)
@cluster_options
@click.option("--follow", "-f", is_flag=True, help="Go on as lines are written.")
@click.option("--tail", type=WholeNumber(0), default=200, show_default=True, help="Lines of each log to begin with.")
def logs(process: str | None, name: str, data_dir: str | None, follow: bool, tail: int) -> None:
    """Show the logs of a cluster's processes, or of one PROCESS (apiserver, controllers, node, …)."""
    config = load_cluster(name, data_dir)
    files = sorted(config.logs.glob("*.log")) if config.logs.is_dir() else []
    if process is not None:
        names = [file.stem for file in files]
        files = [file for file in files if file.stem == process]
        if not files:
            raise ConfigError(f"there is no log of {process!r}; there are {', '.join(names) or 'none yet'}")
    if not files:
        say(f"There are no logs yet; `navarch up{flags_of(config)}` starts the cluster.")
    prefix = len(files) > 1
    readers = [LogReader(file) for file in files]
    for reader in readers:
        for line in reader.last(tail):
            _print(reader.path, line, prefix)
    while follow and readers:
        MACHINE.pause(_LOOK_EVERY_S)
        for reader in readers:
            for line in reader.more():
                _print(reader.path, line, prefix)


class LogReader:
    """Reads a log that is rotated while it is read: `<name>.log.N` to `<name>.log`, each line once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._rest = b""

    def last(self, count: int) -> list[str]:
        """The last lines that are there, from as many files as that takes; `more` goes on after them."""
        found: deque[str] = deque(maxlen=count)
        for opened in _open_all(self.path):
            self._go_on_in(opened)
            found.extend(self._lines())
        return list(found)

    def more(self) -> Iterator[str]:
        """The lines that have been written since."""
        yield from self._lines()
        while (following := self._following()) is not None:
            # Nothing is added to a file that has been followed by another; what came in between is read first.
            yield from self._lines()
            self._go_on_in(following)
            yield from self._lines()

    def _go_on_in(self, file: IO[bytes]) -> None:
        if self._file is not None:
            self._file.close()
        self._file = file

    def _lines(self) -> Iterator[str]:
        """Whole lines; the beginning of one waits for its end."""
        if self._file is None:
            return
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            # Emptied by hand: from its new beginning.
            self._file.seek(0)
        while data := self._file.readline():
            self._rest += data
            if data.endswith(b"\n"):
                yield self._rest.decode(errors="replace")
                self._rest = b""

    def _following(self) -> IO[bytes] | None:
        """The file after the one that is read, if that has been rotated; the oldest, if that is gone already."""
        own = os.fstat(self._file.fileno()) if self._file is not None else None
        if own is not None and _is_there(self.path, own):
            return None
        files = _open_all(self.path)
        mine = [own is not None and os.path.samestat(own, os.fstat(file.fileno())) for file in files]
        wanted = mine.index(True) + 1 if any(mine) else 0
        for number, file in enumerate(files):
            if number != wanted:
                file.close()
        return files[wanted] if wanted < len(files) else None


def _is_there(path: Path, own: os.stat_result) -> bool:
    try:
        return os.path.samestat(own, path.stat())
    except FileNotFoundError:
        return False


def _open_all(path: Path) -> list[IO[bytes]]:
    """The files of a log, oldest first, all of one moment."""
    while True:
        files = [opened for each in rotated(path) if (opened := _open(each)) is not None]
        now = [opened for each in rotated(path) if (opened := _open(each)) is not None]
        same = [os.fstat(file.fileno()).st_ino for file in files] == [os.fstat(file.fileno()).st_ino for file in now]
        for file in now if same else (*files, *now):
            file.close()
        if same:
            return files


def _open(path: Path) -> IO[bytes] | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _print(file: Path, line: str, prefix: bool) -> None:
    label = click.style(f"{file.stem:<12}", dim=True) + " " if prefix else ""
    click.echo(label + line.rstrip("\n"))
    sys.stdout.flush()
