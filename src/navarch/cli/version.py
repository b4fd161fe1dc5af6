"""`navarch version`: this program's version, and the server's where a cluster runs."""

from __future__ import annotations

import json
from importlib.metadata import version as package_version

import click

from navarch.cli.options import cluster_options, output_option
from navarch.cluster.config import ClusterConfig, ConfigError, check_name, data_dir_of


@click.command()
@cluster_options
@output_option
def version(name: str, data_dir: str | None, output: str) -> None:
    """Show the versions of this program and of the cluster's API server."""
    found: dict[str, str | None] = {"navarch": package_version("navarch"), "server": None}
    try:
        config = ClusterConfig.load(data_dir_of(check_name(name), data_dir))
        found["server"] = _server_version(config)
    except (ConfigError, OSError):
        # No cluster, or it does not run: the program's own version is still worth showing.
        pass
    if output == "json":
        click.echo(json.dumps(found))
        return
    click.echo(f"navarch {found['navarch']}")
    click.echo(f"Kubernetes API {found['server'] or '(no cluster is running)'}")


def _server_version(config: ClusterConfig) -> str | None:
    from navarch.cluster.readiness import Probe

    status, body = Probe(config).get("/version")
    return str(json.loads(body)["gitVersion"]) if status == 200 else None
