"""Options that several commands share, and the `--config` file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from navarch.cluster.config import (
    DEFAULT_NAME,
    POD_NETWORKS,
    ClusterConfig,
    ConfigError,
    check_name,
    data_dir_of,
    known_clusters,
)

F = TypeVar("F", bound=Callable[..., Any])


def file_option(flag: str, what: str) -> Callable[[F], F]:
    """A flag that names a file, as the processes of a cluster find it, which have another folder."""
    return click.option(
        flag,
        envvar="NAVARCH_" + flag.removeprefix("--").replace("-", "_").upper(),
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, resolve_path=True),
        help=what,
    )


def wait_option(what: str) -> Callable[[F], F]:
    """`--wait`, whose default is long enough for a machine that is slow."""
    return click.option("--wait", envvar="NAVARCH_WAIT", metavar="DURATION", default="2m", show_default=True, help=what)


def config_option(kind: str) -> Callable[[F], F]:
    """`--config`, whose settings count where no flag does."""
    return click.option(
        "--config",
        "file",
        envvar="NAVARCH_CONFIG",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        help=f"A `kind: {kind}` file.",
    )


class WholeNumber(click.IntRange):
    """A range of integers that is not called an "integer range" to those who write something else."""

    name = "integer"


def _cluster_names(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    return [CompletionItem(config.name) for config in known_clusters() if config.name.startswith(begun)]


name_option = click.option(
    "--name",
    shell_complete=_cluster_names,
    default=DEFAULT_NAME,
    show_default=True,
    envvar="NAVARCH_NAME",
    help="The cluster's name.",
)
data_dir_option = click.option(
    "--data-dir",
    envvar="NAVARCH_DATA_DIR",
    type=click.Path(file_okay=False),
    help="The cluster's folder.  [default: /var/lib/navarch/NAME as root, else ~/.local/share/navarch/NAME]",
)
pod_network_option = click.option(
    "--pod-network",
    envvar="NAVARCH_POD_NETWORK",
    type=click.Choice(POD_NETWORKS),
    help="How pods of other nodes are reached: routes (the network between nodes knows the way), vxlan (a tunnel), "
    "or auto: a route to a node on the same link, else a tunnel.  [default: auto]",
)
kubelet_config_option = file_option(
    "--kubelet-config", "The real node's kubelet, as a KubeletConfiguration (kubelet.config.k8s.io/v1beta1)."
)
scheduler_config_option = file_option(
    "--scheduler-config", "The scheduler, as a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1)."
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format."
)


def cluster_options(command: F) -> F:
    """`--name` and `--data-dir`."""
    return name_option(data_dir_option(command))


def proxy_options(command: F) -> F:
    """`--proxy-mode` and `--proxy-config`."""
    mode = click.option(
        "--proxy-mode",
        envvar="NAVARCH_PROXY_MODE",
        type=click.Choice(["nftables", "iptables", "userspace"]),
        help="How the real node proxies services.  [default: the first that the machine has]",
    )
    file = file_option(
        "--proxy-config", "The same and more, as a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1)."
    )
    return mode(file(command))


def load_cluster(name: str, data_dir: str | None) -> ClusterConfig:
    """The existing cluster that the options name.  Raises ConfigError."""
    folder = data_dir_of(check_name(name), data_dir)
    try:
        return ClusterConfig.load(folder)
    except ConfigError:
        if not (folder / "cluster.json").exists():
            raise ConfigError(
                f"there is no cluster named {name!r}; `navarch ls` lists them, `navarch up --name {name}` makes it"
            ) from None
        raise


def duration_s(text: str) -> float:
    """Seconds in a duration such as `90s`, `5m`, `1m30s` or `2h`; a bare number counts seconds.  Raises ConfigError."""
    import re

    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text, re.ASCII):
        raise ConfigError(f"invalid duration {text!r}: write it like 30s, 5m or 1h30m")
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(
        float(number) * units[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h)", text, re.ASCII)
    )
