"""`navarch logs`: what a cluster's processes say."""

from __future__ import annotations

import os
import sys
from collections import deque
from pathlib import Path

import click

from navarch.cli.options import cluster_options, load_cluster
from navarch.cli.steps import say
from navarch.cluster.config import ConfigError, flags_of
from navarch.world import MACHINE


@click.command()
@click.argument("process", required=False)
@cluster_options
@click.option("--follow", "-f", is_flag=True, help="Go on as lines are written.")
@click.option("--tail", type=click.IntRange(0), default=200, show_default=True, help="Lines of each log to begin with.")
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
    positions: dict[Path, int] = {}
    for file in files:
        with open(file, errors="replace") as lines:
            for line in deque(lines, maxlen=tail):
                _print(file, line, prefix)
            positions[file] = lines.tell()
    while follow and files:
        MACHINE.pause(0.2)
        for file in files:
            with open(file, errors="replace") as lines:
                if os.fstat(lines.fileno()).st_size < positions[file]:
                    # Emptied by hand: from its new beginning.
                    positions[file] = 0
                lines.seek(positions[file])
                for line in lines:
                    _print(file, line, prefix)
                positions[file] = lines.tell()


def _print(file: Path, line: str, prefix: bool) -> None:
    label = click.style(f"{file.stem:<12}", dim=True) + " " if prefix else ""
    click.echo(label + line.rstrip("\n"))
    sys.stdout.flush()
