"""`navarch up`: create or start a cluster, wait until it is ready, then stay in the foreground or leave it running."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import click
from click.core import ParameterSource

from navarch.api.version import DEFAULT_VERSION
from navarch.cli.checks import (
    apiserver_flags,
    check_kubelet,
    check_proxy,
    check_scheduler,
    check_settings,
    check_versions,
    controller_flags,
    runtime_config_of,
)
from navarch.cli.config_file import read_config_file
from navarch.cli.foreground import abandon, ending_with_signals, stay, wait_until_usable
from navarch.cli.options import (
    WholeNumber,
    config_option,
    data_dir_option,
    duration_s,
    file_option,
    kubelet_config_option,
    name_option,
    output_option,
    pod_network_option,
    proxy_options,
    scheduler_config_option,
    wait_option,
)
from navarch.cli.steps import say
from navarch.cluster import kubeconfig, lifecycle
from navarch.cluster.config import (
    DEFAULT_NAME,
    EMBEDDED,
    ClusterConfig,
    ConfigError,
    disabled_parts,
    flags_of,
    further_names,
)
from navarch.cluster.neighbours import planning
from navarch.cluster.planning import KUBELET_FILES, choose_runtime, plan, with_another_port
from navarch.cluster.readiness import wait_ready
from navarch.cluster.state import ClusterState

_SETTINGS = (
    *("nodes", "workers", "store", "kubernetes_version", "port", "bind_address"),
    *("static_pods", "kubeconfig", "seed", "pod_network", "pod_cidr", "service_cidr"),
    *("proxy_mode", "proxy_config", "scheduler_config"),
    *KUBELET_FILES,
)
_PORT_ATTEMPTS = 4


@click.command()
@name_option
@click.option(
    "--nodes",
    envvar="NAVARCH_NODES",
    type=WholeNumber(0, 200_000),
    help="Simulated nodes.  [default: 1, with containerd 0]",
)
@click.option(
    "--workers",
    envvar="NAVARCH_WORKERS",
    type=WholeNumber(0, 100),
    help="Further real nodes on this machine, each with a network of its own.  [default: 0]",
)
@click.option(
    "--runtime",
    envvar="NAVARCH_RUNTIME",
    type=click.Choice(["auto", "containerd", "simulated"]),
    default="auto",
    show_default=True,
    help="Real containers or simulated nodes; auto takes containerd where it can run.",
)
@click.option(
    "--store",
    envvar="NAVARCH_STORE",
    metavar="sqlite|memory|etcd://HOST:PORT[,…]",
    help="Where the cluster's state lives.  [default: sqlite]",
)
@click.option(
    "--event-ttl",
    envvar="NAVARCH_EVENT_TTL",
    metavar="DURATION",
    help="How long events are kept after they were last written.  [default: 1h]",
)
@click.option(
    "--kubernetes-version",
    envvar="NAVARCH_KUBERNETES_VERSION",
    metavar=DEFAULT_VERSION,
    help="The Kubernetes API version to serve.",
)
@click.option(
    "--runtime-config",
    envvar="NAVARCH_RUNTIME_CONFIG",
    multiple=True,
    metavar="VERSION=true|false[,…]",
    help="Serve versions of groups, or not: api/all, api/beta, api/alpha, group/version.  [default: stable ones]",
)
@click.option(
    "--port",
    envvar="NAVARCH_PORT",
    type=WholeNumber(1, 65535),
    help="The API server's port.  [default: 6443 or the next free]",
)
@click.option(
    "--bind-address",
    envvar="NAVARCH_BIND_ADDRESS",
    metavar="ADDRESS",
    help="Listen for the API at this address, too; 0.0.0.0 for every one.  [default: loopback, and where pods need it]",
)
@click.option(
    "--tls-san",
    envvar="NAVARCH_TLS_SAN",
    multiple=True,
    metavar="NAME[,…]",
    help="Further names and addresses that the API server's certificate is good for.",
)
@click.option(
    "--static-pods",
    envvar="NAVARCH_STATIC_PODS",
    metavar="FOLDER",
    type=click.Path(file_okay=False, resolve_path=True),
    help="Manifests of pods that the node runs by itself.  [default: manifests in the cluster's folder]",
)
@click.option(
    "--disable",
    envvar="NAVARCH_DISABLE",
    multiple=True,
    metavar="PART[,…]",
    help=f"Leave embedded parts out: {', '.join(EMBEDDED)}.",
)
@proxy_options
@kubelet_config_option
@scheduler_config_option
@file_option(
    "--image-credential-provider-config",
    "The kubelet's plugins for credentials of registries, as a CredentialProviderConfig.",
)
@click.option(
    "--image-credential-provider-bin-dir",
    envvar="NAVARCH_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Where these plugins are.",
)
@click.option(
    "--pod-cidr",
    envvar="NAVARCH_POD_CIDR",
    metavar="RANGE[,RANGE]",
    help="Where pods' addresses come from: a range, or an IPv4 and an IPv6 one.  [default: 10.42.0.0/16 or the next]",
)
@click.option(
    "--service-cidr",
    envvar="NAVARCH_SERVICE_CIDR",
    metavar="RANGE[,RANGE]",
    help="Where services' addresses come from, likewise.  [default: 10.43.0.0/16 or the next]",
)
@pod_network_option
@data_dir_option
@click.option(
    "--kubeconfig",
    envvar="NAVARCH_KUBECONFIG",
    type=click.Path(dir_okay=False, resolve_path=True),
    help="Merge into this file.  [default: as kubectl]",
)
@click.option("--seed", envvar="NAVARCH_SEED", type=int, help="Make random choices (names, placements) repeatable.")
@click.option("--accept-loss", is_flag=True, help="Go on with what is left of a damaged or incomplete database.")
@click.option("--detach", "-d", is_flag=True, help="Return when ready and leave the cluster running.")
@wait_option("How long to wait for readiness.")
@config_option("Cluster")
@output_option
@click.pass_context
def up(ctx: click.Context, /, name: str, runtime: str, detach: bool, wait: str, output: str, **options: Any) -> None:
    """Create or start a cluster.

    \b
    Examples:
      navarch up                          a cluster in the foreground; Ctrl-C stops it
      navarch up -d --nodes 100           in the background, with 100 simulated nodes
      navarch up -d --workers 2           three real nodes, all on this machine
      navarch up -d --name two            a second one beside the first
    """
    from_file = _from_file(ctx, options.pop("file"))
    if not _stated(ctx, "name", name):
        name = str(from_file.get("name", name))
    if not _stated(ctx, "wait", wait):
        wait = str(from_file.get("wait", wait))
    timeout_s = duration_s(wait)
    changes = _changes(ctx, options, from_file)
    if not _stated(ctx, "runtime", runtime):
        runtime = str(from_file.get("runtime", runtime))
    with ExitStack() as choosing:
        choosing.enter_context(planning())
        config, reason = _settle(name, options["data_dir"] or from_file.get("data_dir"), runtime, changes)
        check_versions(config)
        check_kubelet(config)
        check_scheduler(config)
        for warning in check_proxy(config):
            say(f"--proxy-config: {warning}")
        kubeconfig.check(config)
        if options["accept_loss"]:
            _accept_loss(config)
        _bring_up(config, reason, timeout_s, detach, output, stated_port="port" in changes, chosen=choosing.close)


def _stated(ctx: click.Context, key: str, value: Any) -> bool:
    return value is not None and ctx.get_parameter_source(key) != ParameterSource.DEFAULT


def _changes(ctx: click.Context, options: dict[str, Any], from_file: dict[str, Any]) -> dict[str, Any]:
    """What was stated of the cluster, by flags or else in the file.  Raises ConfigError."""
    changes: dict[str, Any] = {key: from_file[key] for key in _SETTINGS if key in from_file}
    changes.update({key: options[key] for key in _SETTINGS if _stated(ctx, key, options.get(key))})
    if event_ttl := options["event_ttl"] or from_file.get("event_ttl"):
        changes["event_ttl_s"] = round(duration_s(str(event_ttl)))
        if changes["event_ttl_s"] < 1:
            raise ConfigError(f"invalid --event-ttl {event_ttl!r}: events are kept for at least a second")
    if "apiserver" in from_file:
        changes["apiserver_flags"] = apiserver_flags(from_file["apiserver"])
    if "controller_manager" in from_file:
        changes["controller_flags"] = controller_flags(from_file["controller_manager"])
    if runtime_config := options["runtime_config"] or [from_file.get("runtime_config", "")]:
        changes.update(runtime_config_of(runtime_config))
    if options["disable"] or "disable" in from_file:
        changes["disable"] = disabled_parts(options["disable"] or [str(from_file["disable"])])
    if options["tls_san"] or "tls_san" in from_file:
        changes["tls_san"] = further_names(options["tls_san"] or [str(from_file["tls_san"])])
    check_settings(changes)
    return changes


def _bring_up(
    config: ClusterConfig,
    reason: str,
    timeout_s: float,
    detach: bool,
    output: str,
    *,
    stated_port: bool,
    chosen: Callable[[], None],
) -> None:
    """Start the cluster and wait; `chosen` is called once its ports and networks are written down."""
    # Only who has not chosen a port, now or earlier, is given another one.
    attempts = 1 if stated_port or (config.root / "cluster.json").exists() else _PORT_ATTEMPTS
    title = f"Cluster {config.name!r}: {reason}"
    ending_with_signals()
    process = None
    try:
        for attempts_left in reversed(range(attempts)):
            try:
                process = lifecycle.start(config)
                chosen()
                say(title if process is not None else f"{title}; it is running already")
                _wait(config, process, timeout_s, detach)
                break
            except lifecycle.PortTaken:
                if not attempts_left:
                    raise
                say(f"Port {config.port} went to another program in between; taking another one.")
                config = with_another_port(config)
        _introduce(config, str(kubeconfig.merge(config)), output)
        if not detach and process is not None:
            sys.exit(stay(process, config))
    except KeyboardInterrupt:
        if process is not None:
            say("Interrupted; stopping what was started.")
            abandon(process, config)
        sys.exit(130)


def _from_file(ctx: click.Context, path: str | None) -> dict[str, Any]:
    """The settings of the file, held to what the flags of the same names take."""
    found = read_config_file(path)
    for parameter in ctx.command.params:
        if parameter.name in found:
            try:
                found[parameter.name] = parameter.type.convert(str(found[parameter.name]), parameter, ctx)
            except click.BadParameter as error:
                raise ConfigError(f"{path}: {parameter.name}: {error.message}") from None
    return found


def _wait(config: ClusterConfig, process: subprocess.Popen[bytes] | None, timeout_s: float, detach: bool) -> None:
    took_s = wait_until_usable(
        lambda report: wait_ready(config, timeout_s, report, process), config, process, detach=detach
    )
    say(f"Ready at {config.server_url} ({took_s:.1f} s)")


def _settle(name: str, data_dir: str | None, runtime: str, changes: dict[str, Any]) -> tuple[ClusterConfig, str]:
    """The configuration and, for people, what runs the pods and why."""
    from navarch.cluster.config import ClusterConfig, data_dir_of

    folder = data_dir_of(name, data_dir)
    if runtime == "auto" and (folder / "cluster.json").exists():
        runtime = ClusterConfig.load(folder).runtime
    chosen, reason = choose_runtime(runtime)
    changes["runtime"] = chosen
    config, _ = plan(name, data_dir, changes)
    return config, reason


def _accept_loss(config: ClusterConfig) -> None:
    """Go on with what is left of the cluster's data, and say what is not.  Raises ConfigError."""
    from navarch.store.base import StoreUnavailable
    from navarch.store.lock import holder
    from navarch.store.recovery import accept_loss

    if holder(config.database) is None and ClusterState.load(config.run).supervisor_alive:
        # It tries again and again to start an API server that refuses.
        lifecycle.stop(config)
    if config.store != "sqlite":
        # etcd keeps what it has; what was known of it is forgotten.
        config.store_record.unlink(missing_ok=True)
        return
    try:
        report = accept_loss(config.database, config.store_record)
    except (StoreUnavailable, OSError) as error:
        raise ConfigError(f"{error}; stop the cluster first: `navarch down{flags_of(config)}`") from error
    if report.last_lost:
        say(f"Lost: what was written from revision {report.first_lost} to {report.last_lost}.")
    for key in report.lost:
        say(f"Lost: {key}, which cannot be read.")
    say(f"Kept: {report.kept} objects." + (f" The files as they were: {report.aside}" if report.aside else ""))


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
    suffix = flags_of(config).removeprefix(f" --name {DEFAULT_NAME}")
    say(f"  navarch kubectl{suffix} get nodes     (or plain kubectl)")
    say(f"  navarch status{suffix}")
