"""`navarch up`: create or start a cluster, wait until it is ready, then stay in the foreground or leave it running."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import click
from click.core import ParameterSource

from navarch.cli.options import data_dir_option, duration_s, name_option, output_option, read_config_file
from navarch.cli.steps import say, step
from navarch.cluster import kubeconfig, lifecycle
from navarch.cluster.config import ClusterConfig, ConfigError

_SETTINGS = ("nodes", "store", "kubernetes_version", "port", "kubeconfig", "seed")


@click.command()
@name_option
@click.option("--nodes", type=click.IntRange(0, 200_000), help="Simulated nodes.  [default: 1, with containerd 0]")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "containerd", "simulated"]),
    default="auto",
    show_default=True,
    help="Real containers or simulated nodes; auto takes containerd where it can run.",
)
@click.option("--store", metavar="sqlite|memory", help="Where the cluster's state lives.  [default: sqlite]")
@click.option("--kubernetes-version", metavar="1.37", help="The Kubernetes API version to serve.")
@click.option("--port", type=click.IntRange(1, 65535), help="The API server's port.  [default: 6443 or the next free]")
@data_dir_option
@click.option("--kubeconfig", type=click.Path(dir_okay=False), help="Merge into this file.  [default: as kubectl]")
@click.option("--seed", type=int, help="Make random choices (names, placements) repeatable.")
@click.option("--detach", "-d", is_flag=True, help="Return when ready and leave the cluster running.")
@click.option("--wait", metavar="DURATION", default="2m", show_default=True, help="How long to wait for readiness.")
@click.option("--config", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="A `kind: Cluster` file.")
@output_option
@click.pass_context
def up(ctx: click.Context, /, name: str, runtime: str, detach: bool, wait: str, output: str, **options: Any) -> None:
    """Create or start a cluster.

    \b
    Examples:
      navarch up                          a cluster in the foreground; Ctrl-C stops it
      navarch up -d --nodes 100           in the background, with 100 simulated nodes
      navarch up -d --name two            a second one beside the first
    """
    try:
        _up(ctx, name, runtime, detach, wait, output, options)
    except (lifecycle.StartError, kubeconfig.KubeconfigError) as error:
        say(f"navarch: {error}")
        sys.exit(1)


def _up(
    ctx: click.Context, name: str, runtime: str, detach: bool, wait: str, output: str, options: dict[str, Any]
) -> None:
    from_file = read_config_file(options.pop("config"))

    def stated(key: str, value: Any) -> bool:
        return value is not None and ctx.get_parameter_source(key) != ParameterSource.DEFAULT

    if not stated("name", name):
        name = str(from_file.get("name", name))
    if not stated("wait", wait):
        wait = str(from_file.get("wait", wait))
    timeout_s = duration_s(wait)
    changes: dict[str, Any] = {key: from_file[key] for key in (*_SETTINGS, "pod_cidr", "service_cidr")
                               if key in from_file}  # fmt: skip
    changes.update({key: options[key] for key in _SETTINGS if stated(key, options.get(key))})
    _check(changes)
    if not stated("runtime", runtime):
        runtime = str(from_file.get("runtime", runtime))
    data_dir = options["data_dir"] or from_file.get("data_dir")
    config, reason = _settle(name, data_dir, runtime, changes)
    process = lifecycle.start(config)
    title = f"Cluster {config.name!r}: {reason}"
    if process is None:
        say(f"{title}; it is running already")
    try:
        with step(title) as progress:
            lifecycle.wait_ready(config, timeout_s, lambda what: progress.update(f"{title}: waiting for {what}"))
            progress.update(f"{title}, ready at {config.server_url}")
    except KeyboardInterrupt:
        if process is not None:
            say("Interrupted; stopping what was started.")
            lifecycle.stop(config)
        sys.exit(130)
    path = kubeconfig.merge(config)
    _introduce(config, str(path), output)
    if not detach and process is not None:
        sys.exit(_stay(process, config))


def _settle(name: str, data_dir: str | None, runtime: str, changes: dict[str, Any]) -> tuple[ClusterConfig, str]:
    """The configuration and, for people, what runs the pods and why."""
    from navarch.cluster.config import ClusterConfig, data_dir_of

    folder = data_dir_of(name, data_dir)
    if runtime == "auto" and (folder / "cluster.json").exists():
        runtime = ClusterConfig.load(folder).runtime
    chosen, reason = lifecycle.choose_runtime(runtime)
    changes["runtime"] = chosen
    config, _ = lifecycle.plan(name, data_dir, changes)
    return config, reason


def _check(changes: dict[str, Any]) -> None:
    store = str(changes.get("store", "sqlite"))
    if store.startswith("etcd"):
        raise ConfigError("etcd is not supported as a store yet; use sqlite or memory")
    if store not in ("sqlite", "memory"):
        raise ConfigError(f"unknown store {store!r}: sqlite or memory")
    version = str(changes.get("kubernetes_version", "1.37")).removeprefix("v")
    if "kubernetes_version" in changes:
        from navarch.api.schema import versions

        version = ".".join(version.split(".")[:2])
        if version not in versions():
            raise ConfigError(f"unknown Kubernetes version {version!r}: this package has {', '.join(versions())}")
        changes["kubernetes_version"] = version


def _introduce(config: ClusterConfig, path: str, output: str) -> None:
    if output == "json":
        described = {
            "name": config.name,
            "server": config.server_url,
            "runtime": config.runtime,
            "nodes": config.nodes,
            "kubeconfig": path,
            "context": config.context,
            "dataDir": config.data_dir,
        }
        click.echo(json.dumps(described))
        return
    say(f"Context {config.context!r} is current in {path}. Try:")
    suffix = "" if config.name == "default" else f" --name {config.name}"
    say(f"  navarch kubectl{suffix} get nodes     (or plain kubectl)")
    say(f"  navarch status{suffix}")


def _stay(process: subprocess.Popen[bytes], config: ClusterConfig) -> int:
    """In the foreground until Ctrl-C or SIGTERM, which stop the cluster's processes in order."""
    say("Running in the foreground; Ctrl-C stops the cluster, --detach leaves it running.")
    signal.signal(signal.SIGINT, lambda *_: process.terminate())
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    say(f"Stopped. Its data and its containers stay; `navarch down --name {config.name}` removes the containers.")
    return code
