"""`navarch down`: stop a cluster and everything that it runs; with `--purge` delete it."""

from __future__ import annotations

import click

from navarch.cli.options import cluster_options, duration_s, load_cluster
from navarch.cli.steps import say, step
from navarch.cluster import kubeconfig, lifecycle, teardown
from navarch.cluster.config import flags_of


@click.command()
@cluster_options
@click.option("--purge", is_flag=True, help="Delete its data, keys and kubeconfig entries, too.")
@click.option(
    "--grace",
    envvar="NAVARCH_GRACE",
    metavar="DURATION",
    default="10s",
    show_default=True,
    help="What pods have to end in, if their own grace period is not shorter.",
)
def down(name: str, data_dir: str | None, purge: bool, grace: str) -> None:
    """Stop a cluster.

    Its processes and containers end, its network devices and mounts go away. Its objects are kept, and `navarch up`
    brings it back, unless --purge deletes them. On a machine that has joined a cluster elsewhere (`navarch agent`) it
    is the node that stops; --purge makes it forget the cluster.
    """
    grace_s = duration_s(grace)
    config = load_cluster(name, data_dir)
    with lifecycle.taking_down(config):
        what = f"node {config.node_name!r}" if config.is_agent else f"cluster {config.name!r}"
        with step(f"Stopping {what}"):
            ran = lifecycle.stop(config)
        if not ran:
            say("It was not running.")
        if config.runtime == "containerd":
            with step("Removing its containers, mounts and network"):
                teardown.remove_traces(config, keep_images=not purge, grace_s=grace_s)
        if purge:
            with step("Deleting its data"):
                lifecycle.delete(config)
            return
    kubeconfig.remove(config)
    again = "agent" if config.is_agent else "up"
    say(f"Its data stay in {config.root}; `navarch {again}{flags_of(config)}` starts it again.")
