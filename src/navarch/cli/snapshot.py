"""`navarch snapshot`: save a cluster to a file while it runs, and put it back."""

from __future__ import annotations

from pathlib import Path

import click

from navarch.cli.options import cluster_options, data_dir_option, load_cluster
from navarch.cli.steps import say, step
from navarch.cluster.config import flags_of


@click.group()
def snapshot() -> None:
    """Save a cluster's state, and put it back."""


@snapshot.command()
@cluster_options
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def save(name: str, data_dir: str | None, file: Path) -> None:
    """Write a cluster's objects, keys and settings to FILE.

    The cluster may run: what is saved is its state at one moment. Keep the file safe, as it holds the cluster's keys.
    """
    from navarch.cluster import snapshot as snapshots

    config = load_cluster(name, data_dir)
    with step(f"Saving cluster {config.name!r}"):
        revision = snapshots.save(config, file)
    say(f"{file}: its state at revision {revision}.")


@snapshot.command()
@click.option("--name", help="Another name for it.  [default: its own]")
@data_dir_option
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(name: str | None, data_dir: str | None, file: Path) -> None:
    """Put back the cluster that was saved to FILE.

    If it is still there it must not run; its database as it is now is moved aside. Start it with `navarch up`.
    """
    from navarch.cluster import snapshot as snapshots

    with step(f"Restoring {file}"):
        config, report = snapshots.restore(file, name, data_dir)
    aside = f" What was there: {report.aside}" if report.aside else ""
    say(f"{report.kept} objects are back.{aside} `navarch up{flags_of(config)}` starts the cluster.")
