"""`navarch up`: create or start a cluster, wait until it is ready, then stay in the foreground or leave it running."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from navarch.api.version import DEFAULT_VERSION
from navarch.cli.options import (
    check_proxy,
    data_dir_option,
    duration_s,
    kubelet_config_option,
    name_option,
    output_option,
    pod_network_option,
    proxy_options,
    read_config_file,
    scheduler_config_option,
)
from navarch.cli.steps import phases, say
from navarch.cluster import kubeconfig, lifecycle
from navarch.cluster.config import (
    DEFAULT_NAME,
    EMBEDDED,
    ClusterConfig,
    ConfigError,
    disabled_parts,
    flags_of,
    further_names,
    planning,
)
from navarch.cluster.state import ClusterState
from navarch.world import MACHINE

_SETTINGS = (
    *("nodes", "workers", "store", "kubernetes_version", "port", "bind_address"),
    *("static_pods", "kubeconfig", "seed", "pod_network", "pod_cidr", "service_cidr"),
    *("proxy_mode", "proxy_config", "scheduler_config"),
    *lifecycle.KUBELET_FILES,
)
_SUCCESSOR_S = 30.0
_STOP_S = 60.0
_PORT_ATTEMPTS = 4


@click.command()
@name_option
@click.option(
    "--nodes",
    envvar="NAVARCH_NODES",
    type=click.IntRange(0, 200_000),
    help="Simulated nodes.  [default: 1, with containerd 0]",
)
@click.option(
    "--workers",
    envvar="NAVARCH_WORKERS",
    type=click.IntRange(0, 100),
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
    type=click.IntRange(1, 65535),
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
@click.option(
    "--image-credential-provider-config",
    envvar="NAVARCH_IMAGE_CREDENTIAL_PROVIDER_CONFIG",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="The kubelet's plugins for credentials of registries, as a CredentialProviderConfig.",
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
@click.option(
    "--wait",
    envvar="NAVARCH_WAIT",
    metavar="DURATION",
    default="2m",
    show_default=True,
    help="How long to wait for readiness.",
)
@click.option(
    "--config",
    envvar="NAVARCH_CONFIG",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="A `kind: Cluster` file.",
)
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
    from_file = _from_file(ctx, options.pop("config"))

    def stated(key: str, value: Any) -> bool:
        return value is not None and ctx.get_parameter_source(key) != ParameterSource.DEFAULT

    if not stated("name", name):
        name = str(from_file.get("name", name))
    if not stated("wait", wait):
        wait = str(from_file.get("wait", wait))
    timeout_s = duration_s(wait)
    changes: dict[str, Any] = {key: from_file[key] for key in _SETTINGS if key in from_file}
    changes.update({key: options[key] for key in _SETTINGS if stated(key, options.get(key))})
    if event_ttl := options["event_ttl"] or from_file.get("event_ttl"):
        changes["event_ttl_s"] = round(duration_s(str(event_ttl)))
        if changes["event_ttl_s"] < 1:
            raise ConfigError(f"invalid --event-ttl {event_ttl!r}: events are kept for at least a second")
    if "apiserver" in from_file:
        changes["apiserver_flags"] = _apiserver_flags(from_file["apiserver"])
    if "controller_manager" in from_file:
        changes["controller_flags"] = _controller_flags(from_file["controller_manager"])
    if runtime_config := options["runtime_config"] or [from_file.get("runtime_config", "")]:
        changes.update(_runtime_config(runtime_config))
    if options["disable"] or "disable" in from_file:
        changes["disable"] = disabled_parts(options["disable"] or [str(from_file["disable"])])
    if options["tls_san"] or "tls_san" in from_file:
        changes["tls_san"] = further_names(options["tls_san"] or [str(from_file["tls_san"])])
    _check(changes)
    if not stated("runtime", runtime):
        runtime = str(from_file.get("runtime", runtime))
    with ExitStack() as choosing:
        choosing.enter_context(planning())
        config, reason = _settle(name, options["data_dir"] or from_file.get("data_dir"), runtime, changes)
        _check_versions(config)
        check_kubelet(config)
        check_scheduler(config)
        for warning in check_proxy(config):
            say(f"--proxy-config: {warning}")
        kubeconfig.check(config)
        if options["accept_loss"]:
            _accept_loss(config)
        _bring_up(config, reason, timeout_s, detach, output, stated_port="port" in changes, chosen=choosing.close)


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
                config = lifecycle.with_another_port(config)
        _introduce(config, str(kubeconfig.merge(config)), output)
        if not detach and process is not None:
            sys.exit(stay(process, config))
    except KeyboardInterrupt:
        if process is not None:
            say("Interrupted; stopping what was started.")
            abandon(process, config)
        sys.exit(130)


def _apiserver_flags(stated: Any) -> dict[str, str]:
    """kube-apiserver's flags by name, files by their full paths.  Raises ConfigError."""
    from navarch.cluster.flags.apiserver_settings import cluster_flags
    from navarch.cluster.flags.pflag import FlagError

    if not isinstance(stated, dict):
        raise ConfigError(
            "spec.apiserver: flags of kube-apiserver by their names, such as `audit-log-path: /var/log/a`"
        )
    flags: dict[str, str] = {}
    for name, value in stated.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if isinstance(value, bool):
            text = text.lower()
        is_file = str(name).endswith(("-file", "-config", "-path"))
        flags[str(name)] = str(Path(text).absolute()) if is_file and text not in ("", "-") else text
    try:
        cluster_flags(flags)
    except FlagError as error:
        raise ConfigError(f"spec.apiserver: {error}") from None
    return flags


def _controller_flags(stated: Any) -> dict[str, str]:
    """kube-controller-manager's flags by name.  Raises ConfigError."""
    from navarch.cluster.flags.controller_settings import changed
    from navarch.cluster.flags.pflag import FlagError
    from navarch.controllers.base import ControllerConfig

    if not isinstance(stated, dict):
        raise ConfigError(
            "spec.controllerManager: flags of kube-controller-manager by their names, such as "
            "`node-monitor-grace-period: 20s`"
        )
    flags = {str(name): str(value) for name, value in stated.items()}
    try:
        changed(ControllerConfig(), flags)
    except FlagError as error:
        raise ConfigError(f"spec.controllerManager: {error}") from None
    return flags


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
    """Until the cluster is ready. What runs for the foreground alone is stopped again if it does not get there."""
    started_s = MACHINE.monotonic()
    try:
        with phases() as row:
            lifecycle.wait_ready(config, timeout_s, row.now, process)
    except lifecycle.StartError as error:
        if process is not None and not detach:
            abandon(process, config)
            raise
        if process is not None and process.poll() is not None:
            raise
        raise lifecycle.StartError(
            f"{error}\nIt goes on in the background; `navarch down{flags_of(config)}` ends it."
        ) from None
    say(f"Ready at {config.server_url} ({MACHINE.monotonic() - started_s:.1f} s)")


def abandon(process: subprocess.Popen[bytes], config: ClusterConfig) -> None:
    """Stop what was started here, even a supervisor that has not written down yet that it is there."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    lifecycle.stop(config)


def ending_with_signals() -> None:
    """Until there is something to stop in order, SIGTERM and the terminal's end are like Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


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


def _runtime_config(texts: Sequence[str]) -> dict[str, str]:
    """The setting, in one text.  Raises ConfigError."""
    from navarch.kinds.enablement import parse

    try:
        return {"runtime_config": ",".join(parse(texts).texts())} if any(texts) else {}
    except ValueError as error:
        raise ConfigError(f"--runtime-config: {error}") from None


def _check_versions(config: ClusterConfig) -> None:
    """Whether the served Kubernetes has the versions that are switched on.  Raises ConfigError."""
    if not config.runtime_config:
        return
    from navarch.api import schema
    from navarch.kinds.enablement import parse
    from navarch.kinds.registry import builtin

    try:
        builtin(schema.load(config.kubernetes_version), parse([config.runtime_config]))
    except ValueError as error:
        raise ConfigError(f"--runtime-config: {error}") from None


def check_kubelet(config: ClusterConfig) -> None:
    """Whether the kubelet can be as its files say; what they say in vain is told.  Raises ConfigError."""
    if config.image_credential_provider_config:
        from navarch.node.images.providers import ProviderError
        from navarch.node.images.providers import read as read_providers

        try:
            read_providers(Path(config.image_credential_provider_config))
        except ProviderError as error:
            raise ConfigError(str(error)) from None
    if not config.kubelet_config:
        return
    from navarch.cluster.run_node import agent_config
    from navarch.node.configuration.reading import ConfigurationError, read, warnings

    if config.runtime != "containerd":
        say(f"--kubelet-config: cluster {config.name!r} has simulated nodes, which it says nothing of.")
    try:
        for words in warnings(read(Path(config.kubelet_config), config.kubernetes_version)):
            say(words)
        if config.runtime == "containerd":
            agent_config(config).kubelet()
    except ConfigurationError as error:
        raise ConfigError(str(error)) from None


def check_scheduler(config: ClusterConfig) -> None:
    """Whether the scheduler can be as its file says; what it says in vain is told.  Raises ConfigError."""
    if not config.scheduler_config:
        return
    from navarch.scheduler.configuration.reading import ConfigurationError, configured, read, warnings

    try:
        document = read(Path(config.scheduler_config))
        configured(document)
    except ConfigurationError as error:
        raise ConfigError(f"--scheduler-config: {error}") from None
    for words in warnings(document):
        say(words)


def _check(changes: dict[str, Any]) -> None:
    for key in ("proxy_config", "scheduler_config", *lifecycle.KUBELET_FILES):
        if changes.get(key):
            # The processes of the cluster have another folder.
            changes[key] = str(Path(str(changes[key])).absolute())
    if bind := changes.get("bind_address"):
        try:
            changes["bind_address"] = str(ip_address(str(bind)))
        except ValueError:
            raise ConfigError(f"invalid address {bind!r}: write it like 192.168.1.20; 0.0.0.0 is every one") from None
    store = str(changes.get("store", "sqlite"))
    if store.startswith("etcd:"):
        from navarch.store.etcd.target import TargetError, parse

        try:
            parse(store)
        except TargetError as error:
            raise ConfigError(str(error)) from error
    elif store not in ("sqlite", "memory"):
        raise ConfigError(f"unknown store {store!r}: sqlite, memory or etcd://HOST:PORT[,…]")
    version = str(changes.get("kubernetes_version", DEFAULT_VERSION)).removeprefix("v")
    if "kubernetes_version" in changes:
        from navarch.api.schema import versions

        version = ".".join(version.split(".")[:2])
        if version not in versions():
            raise ConfigError(f"unknown Kubernetes version {version!r}: this package has {', '.join(versions())}")
        changes["kubernetes_version"] = version


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


def stay(process: subprocess.Popen[bytes], config: ClusterConfig) -> int:
    """In the foreground until Ctrl-C, SIGTERM or the terminal's end, which stop the cluster's processes in order, or
    until `navarch down` has stopped them."""
    pid, asked = process.pid, False

    def stop(*_: object) -> None:
        nonlocal asked
        asked = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    say("Running in the foreground; Ctrl-C stops the cluster, --detach leaves it running.")
    while True:
        _wait_for_end(pid)
        process.poll()
        successor = 0 if asked else _successor(config, pid)
        if not successor:
            break
        pid = successor
        if asked:
            # While it was looked for, and the one before had nothing to be told any more.
            stop()
        say("The supervisor died; another one has taken over.")
    # As `down` does: a context whose server is gone is in the way.
    kubeconfig.remove(config)
    again = "agent" if config.is_agent else "up"
    say(f"Stopped. Its data stay in {config.root}; `navarch {again}{flags_of(config)}` starts it again.")
    if config.runtime == "containerd":
        say(f"Its containers stay, too; `navarch down{flags_of(config)}` removes them.")
    return 0


def _wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Signals are handled in between; select then goes on waiting.
        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


def _successor(config: ClusterConfig, pid: int) -> int:
    """The pid of the supervisor that follows one that was killed; 0 where the cluster was stopped or none comes."""
    give_up_s = MACHINE.monotonic() + _SUCCESSOR_S
    while MACHINE.monotonic() < give_up_s:
        state = ClusterState.load(config.run)
        if state.stopping:
            return 0
        if state.supervisor_alive and state.supervisor_pid != pid:
            return state.supervisor_pid
        MACHINE.pause(0.1)
    return 0
