"""`navarch agent`: make this machine a node of a cluster whose API server is on another one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from navarch.cli.checks import check_kubelet, check_proxy
from navarch.cli.config_file import read_agent_file
from navarch.cli.foreground import abandon, ending_with_signals, stay, wait_until_usable
from navarch.cli.options import (
    config_option,
    data_dir_option,
    duration_s,
    kubelet_config_option,
    name_option,
    output_option,
    pod_network_option,
    proxy_options,
    wait_option,
)
from navarch.cli.steps import say, step
from navarch.cluster import config as settings
from navarch.cluster import joining, lifecycle
from navarch.cluster.config import ClusterConfig, ConfigError, flags_of
from navarch.cluster.neighbours import free_index, free_port, neighbours, planning
from navarch.cluster.planning import choose_runtime
from navarch.cluster.readiness import wait_joined
from navarch.cluster.state import ClusterState

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@click.command()
@click.option("--server", envvar="NAVARCH_SERVER", metavar="URL", help="The cluster's API server.")
@click.option("--token", envvar="NAVARCH_TOKEN", metavar="TOKEN", help="A token of `navarch token create`.")
@click.option(
    "--ca-hash",
    "--discovery-token-ca-cert-hash",
    "ca_hash",
    envvar="NAVARCH_CA_HASH",
    metavar="sha256:HASH",
    help="The hash of the cluster's CA.  [default: the cluster proves by signature that it knows the token]",
)
@click.option("--node-name", envvar="NAVARCH_NODE_NAME", metavar="NAME", help="[default: the machine's name]")
@click.option(
    "--node-ip",
    envvar="NAVARCH_NODE_IP",
    metavar="ADDRESS",
    help="This machine's address as a node.  [default: that by which it reaches the server]",
)
@click.option("--node-label", multiple=True, metavar="KEY=VALUE", help="A label of the node; several times for more.")
@click.option(
    "--node-taint", multiple=True, metavar="KEY[=VALUE]:EFFECT", help="A taint that the node is registered with."
)
@pod_network_option
@kubelet_config_option
@proxy_options
@name_option
@data_dir_option
@click.option("--detach", "-d", is_flag=True, help="Return when the node is Ready and leave it running.")
@wait_option("How long to wait until the node is Ready.")
@config_option("Agent")
@output_option
@click.pass_context
def agent(ctx: click.Context, /, file: str | None, output: str, **options: Any) -> None:
    """Join a cluster: run its pods on this machine, too.

    On the server, which has to listen where this machine reaches it (`navarch up --bind-address 0.0.0.0`),
    `navarch token create` prints the whole command. The token is needed once; started again without it, the machine
    is the node that it was. `navarch down` stops it, with --purge it forgets the cluster; the Node object goes with
    `kubectl delete node`.

    \b
    Examples:
      navarch agent --server https://192.168.1.20:6443 --token abcdef.0123456789abcdef --ca-hash sha256:…
      navarch agent -d                    the same node again
    """
    from click.core import ParameterSource

    stated = read_agent_file(file)
    for key, value in options.items():
        if ctx.get_parameter_source(key) != ParameterSource.DEFAULT or key not in stated:
            stated[key] = value
    timeout_s = duration_s(str(stated["wait"]))
    _, reason = choose_runtime("containerd", instead="")
    with planning():
        config = _settle(stated)
        check_kubelet(config)
        process = _start(config)
    title = f"Node {config.node_name!r} of {config.server_url}: {reason}"
    say(title if process is not None else f"{title}; it is running already")
    detach = bool(stated["detach"])
    ending_with_signals()
    try:
        _wait(config, process, timeout_s, detach)
        if output == "json":
            described = {"node": config.node_name, "server": config.server_url, "dataDir": config.data_dir}
            click.echo(json.dumps(described))
        if not detach and process is not None:
            ctx.exit(stay(process, config))
    except KeyboardInterrupt:
        if process is not None:
            say("Interrupted; stopping what was started.")
            abandon(process, config)
        ctx.exit(130)


def _settle(stated: dict[str, Any]) -> ClusterConfig:
    """The configuration, with what the cluster says of itself where it is joined now.  Raises ConfigError,
    StartError."""
    name = settings.check_name(str(stated["name"]))
    folder = settings.data_dir_of(name, stated["data_dir"])
    existing = ClusterConfig.load(folder) if (folder / "cluster.json").exists() else None
    if existing is not None and not existing.is_agent:
        raise ConfigError(f"there is a cluster {name!r} on this machine; another --name beside it names this node")
    server, token = stated.get("server"), stated.get("token")
    if existing is not None and (not token or ClusterState.load(existing.run).supervisor_alive):
        if server and joining.url_of(str(server)) != existing.server:
            raise ConfigError(
                f"this machine is a node of {existing.server}; `navarch down{flags_of(existing)} --purge` ends that"
            )
        return replace(existing, **_node_settings(stated, existing))
    if not server or not token:
        raise ConfigError("--server and --token are needed to join; `navarch token create` on the server prints both")
    invitation = joining.Invitation.of(str(server), str(token), str(stated.get("ca_hash") or ""))
    others = neighbours()
    config = existing or ClusterConfig(
        name,
        str(folder),
        index=free_index(others),
        role="agent",
        runtime="containerd",
        node_name=settings.host_name(),
        kubelet_port=free_port(10250, {other.kubelet_port for other in others}),
    )
    config = replace(config, **_node_settings(stated, config))
    for warning in check_proxy(config):
        say(f"--proxy-config: {warning}")
    with step(f"Getting to know {invitation.server}"):
        found = joining.discover(invitation)
        joining.refuse_namesake(invitation, found, config.node_name)
    config = joining.as_agent(config, invitation, found)
    return replace(config, pod_network=str(stated.get("pod_network") or config.pod_network))


def _node_settings(stated: dict[str, Any], config: ClusterConfig) -> dict[str, Any]:
    """What was stated about the node.  Raises ConfigError."""
    from ipaddress import ip_address

    from navarch.node.names import HostNames

    changes: dict[str, Any] = {}
    if name := stated.get("node_name"):
        if config.server and name != config.node_name:
            raise ConfigError(f"this machine is the node {config.node_name!r}; --purge it before it gets another name")
        try:
            HostNames(config.name, str(name))
        except ValueError:
            raise ConfigError(f"invalid --node-name {name!r}: lower-case letters, digits, '-' and '.'") from None
        changes["node_name"] = str(name)
    if address := stated.get("node_ip"):
        try:
            changes["node_address"] = str(ip_address(str(address)))
        except ValueError:
            raise ConfigError(f"invalid --node-ip {address!r}: write it like 192.168.1.21") from None
    if pod_network := stated.get("pod_network"):
        if pod_network not in settings.POD_NETWORKS:
            raise ConfigError(f"invalid podNetwork {pod_network!r}: one of {', '.join(settings.POD_NETWORKS)}")
        changes["pod_network"] = str(pod_network)
    if file := stated.get("kubelet_config"):
        changes["kubelet_config"] = str(Path(str(file)).absolute())
    for name in ("proxy_mode", "proxy_config"):
        if stated.get(name):
            changes[name] = str(stated[name])
    if labels := stated.get("node_label"):
        changes["node_labels"] = labels_of(labels)
    if taints := stated.get("node_taint"):
        changes["node_taints"] = ",".join(checked_taint(str(taint)) for taint in taints)
    return changes


def labels_of(stated: Sequence[str] | dict[str, str]) -> dict[str, str]:
    """Raises ConfigError."""
    if isinstance(stated, dict):
        return {str(key): str(value) for key, value in stated.items()}
    labels = {}
    for text in stated:
        key, separator, value = str(text).partition("=")
        if not key or not separator:
            raise ConfigError(f"invalid --node-label {text!r}: write it like disk=ssd")
        labels[key] = value
    return labels


def checked_taint(text: str) -> str:
    """Raises ConfigError."""
    key, _, effect = text.rpartition(":")
    if not key.partition("=")[0] or effect not in _EFFECTS:
        raise ConfigError(
            f"invalid --node-taint {text!r}: write it like dedicated=gpu:NoSchedule; {', '.join(_EFFECTS)}"
        )
    return text


def _start(config: ClusterConfig) -> subprocess.Popen[bytes] | None:
    Path(config.data_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
    return lifecycle.start(config)


def _wait(config: ClusterConfig, process: subprocess.Popen[bytes] | None, timeout_s: float, detach: bool) -> None:
    took_s = wait_until_usable(
        lambda report: wait_joined(config, timeout_s, report, process), config, process, detach=detach
    )
    say(f"Node {config.node_name!r} is Ready ({took_s:.1f} s)")
