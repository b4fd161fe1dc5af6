"""`navarch down`: stop a cluster and everything that it runs; with `--purge` delete it."""

from __future__ import annotations

import click

from navarch.cli.options import cluster_options, load_cluster
from navarch.cli.steps import say, step
from navarch.cluster import kubeconfig, lifecycle, teardown


@click.command()
@cluster_options
@click.option("--purge", is_flag=True, help="Delete its data, keys and kubeconfig entries, too.")
def down(name: str, data_dir: str | None, purge: bool) -> None:
    """Stop a cluster.

    Its processes and containers end, its network devices and mounts go away. Its objects are kept, and `navarch up`
    brings it back, unless --purge deletes them.
    """
    config = load_cluster(name, data_dir)
    with step(f"Stopping cluster {config.name!r}"):
        ran = lifecycle.stop(config)
    if not ran:
        say("It was not running.")
    if config.runtime == "containerd":
        with step("Removing its containers, mounts and network"):
            teardown.remove_traces(config, keep_images=not purge)
    if purge:
        with step("Deleting its data"):
            lifecycle.delete(config)
    else:
        kubeconfig.remove(config)
        say(f"Its data stay in {config.root}; `navarch up --name {config.name}` starts it again.")
