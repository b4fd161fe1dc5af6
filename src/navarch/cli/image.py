"""`navarch image`: images for a cluster that runs containers, without a registry."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from navarch.cli.options import cluster_options, load_cluster, output_option
from navarch.cli.steps import step
from navarch.cluster import workers
from navarch.cluster.config import ClusterConfig, ConfigError, flags_of
from navarch.cluster.state import ClusterState


@click.group()
def image() -> None:
    """Load and list container images."""


@image.command()
@click.argument("archives", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@cluster_options
def load(archives: tuple[Path, ...], name: str, data_dir: str | None) -> None:
    """Load images from tar ARCHIVES (OCI layouts or `docker save`) into the containerd of each node of this machine."""
    from navarch.node.images.archives import load_image

    config = _with_containers(name, data_dir)
    for archive in archives:
        with step(f"Loading {archive}") as progress:
            try:
                for node in (config, *(workers.config_of(config, name) for name in workers.names(config))):
                    references = asyncio.run(load_image(_socket_of(node), archive))
            except RuntimeError as error:
                raise ConfigError(f"{archive}: {error}") from error
            progress.update(f"Loaded {', '.join(references)}")


@image.command(name="ls")
@cluster_options
@output_option
def list_images(name: str, data_dir: str | None, output: str) -> None:
    """List the images that the cluster's containerd has."""
    from navarch.node.runtime.cri import CRIRuntime

    config = _with_containers(name, data_dir)

    async def collect() -> list[tuple[str, str, int]]:
        runtime = CRIRuntime(_socket_of(config))
        try:
            images = await runtime.list_images()
        finally:
            await runtime.close()
        return [(tag, image.id, image.size_bytes) for image in images for tag in image.tags or [image.id]]

    try:
        rows = sorted(asyncio.run(collect()))
    except RuntimeError as error:
        raise ConfigError(f"containerd does not answer: {error}") from error
    if output == "json":
        click.echo(json.dumps([{"name": tag, "id": identity, "bytes": size} for tag, identity, size in rows], indent=2))
        return
    for tag, identity, size in rows:
        click.echo(f"{tag:<60} {identity[:19]}  {size / 1e6:8.1f} MB")


def _socket_of(config: ClusterConfig) -> Path:
    from navarch.node.containerd import ContainerdPaths

    return ContainerdPaths(config.root / "node", config.run).socket


def _with_containers(name: str, data_dir: str | None) -> ClusterConfig:
    config = load_cluster(name, data_dir)
    if config.runtime != "containerd":
        raise ConfigError(f"cluster {config.name!r} has simulated nodes, which need no images")
    # The socket's file outlives a containerd that was killed.
    if not _socket_of(config).exists() or not ClusterState.load(config.run).supervisor_alive:
        raise ConfigError(f"cluster {config.name!r} is not running; start it with `navarch up{flags_of(config)}`")
    return config
