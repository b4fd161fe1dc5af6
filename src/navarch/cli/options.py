"""Options that several commands share, and the `--config` file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from navarch.cluster.config import DEFAULT_NAME, POD_NETWORKS, ClusterConfig, ConfigError, check_name, data_dir_of

F = TypeVar("F", bound=Callable[..., Any])

name_option = click.option(
    "--name",
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
kubelet_config_option = click.option(
    "--kubelet-config",
    envvar="NAVARCH_KUBELET_CONFIG",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="The real node's kubelet, as a KubeletConfiguration (kubelet.config.k8s.io/v1beta1).",
)
scheduler_config_option = click.option(
    "--scheduler-config",
    envvar="NAVARCH_SCHEDULER_CONFIG",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="The scheduler, as a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1).",
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
    file = click.option(
        "--proxy-config",
        envvar="NAVARCH_PROXY_CONFIG",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, resolve_path=True),
        help="The same and more, as a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1).",
    )
    return mode(file(command))


def check_proxy(config: ClusterConfig) -> tuple[str, ...]:
    """What the file for the proxy says in vain.  Raises ConfigError where it cannot be used."""
    if not config.proxy_config:
        return ()
    from navarch.node.proxy.configuration import ProxyConfigError, read_settings

    try:
        return read_settings(Path(config.proxy_config), config.proxy_mode).warnings
    except ProxyConfigError as error:
        raise ConfigError(f"invalid --proxy-config: {error}") from None


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


def read_config_file(path: str | None) -> dict[str, Any]:
    """The settings of a `kind: Cluster` file, by the names of the flags (with underscores).  Raises ConfigError."""
    if path is None:
        return {}
    known = {"name", "nodes", "workers", "runtime", "store", "kubernetesVersion", "port", "dataDir", "kubeconfig",
             "wait", "seed", "podCIDR", "serviceCIDR", "bindAddress", "eventTTL", "runtimeConfig", "apiserver",
             "controllerManager", "kubeletConfig", "schedulerConfig", "imageCredentialProviderConfig",
             "imageCredentialProviderBinDir", "disable", "podNetwork", "tlsSANs",
             "proxyMode", "proxyConfig"}  # fmt: skip
    settings = _read_document(path, "Cluster", known)
    names = {"kubernetesVersion": "kubernetes_version", "dataDir": "data_dir", "podCIDR": "pod_cidr",
             "podNetwork": "pod_network", "serviceCIDR": "service_cidr", "bindAddress": "bind_address",
             "eventTTL": "event_ttl", "tlsSANs": "tls_san",
             "proxyMode": "proxy_mode", "proxyConfig": "proxy_config",
             "runtimeConfig": "runtime_config", "kubeletConfig": "kubelet_config",
             "schedulerConfig": "scheduler_config",
             "controllerManager": "controller_manager",
             "imageCredentialProviderConfig": "image_credential_provider_config",
             "imageCredentialProviderBinDir": "image_credential_provider_bin_dir"}  # fmt: skip
    versions = settings.get("runtimeConfig")
    if isinstance(versions, dict):
        # As flags are: `{api/beta: true}` is `api/beta=true`.
        settings["runtimeConfig"] = ",".join(f"{name}={str(on).lower()}" for name, on in versions.items())
    for several in ("disable", "tlsSANs", "podCIDR", "serviceCIDR"):
        if isinstance(settings.get(several), list):
            settings[several] = ",".join(map(str, settings[several]))
    return {names.get(str(key), str(key)): value for key, value in settings.items()}


def _read_document(path: str, kind: str, known: set[str]) -> dict[str, Any]:
    """The `spec` of a configuration file, with the name from its metadata.  Raises ConfigError."""
    import yaml

    try:
        document = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        # A YAML error draws where it is over several lines; one says it.
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise ConfigError(f"{path}: expected `apiVersion: navarch.dev/v1` and `kind: {kind}`")
    if document.get("apiVersion") != "navarch.dev/v1":
        raise ConfigError(f"{path}: unknown apiVersion {document.get('apiVersion')!r}, expected 'navarch.dev/v1'")
    spec, metadata = document.get("spec") or {}, document.get("metadata") or {}
    if not isinstance(spec, dict) or not isinstance(metadata, dict):
        raise ConfigError(f"{path}: spec and metadata must be objects, such as `spec: {{nodes: 3}}`")
    settings = dict(spec)
    if name := metadata.get("name"):
        settings.setdefault("name", name)
    for key in settings:
        if key not in known:
            raise ConfigError(f"{path}: unknown setting {key!r} in spec; known are {', '.join(sorted(known))}")
    return settings


_AGENT = {
    "server": "server", "token": "token", "caHash": "ca_hash", "nodeName": "node_name", "nodeIP": "node_ip",
    "proxyMode": "proxy_mode", "proxyConfig": "proxy_config",
    "nodeLabels": "node_label", "nodeTaints": "node_taint", "name": "name", "dataDir": "data_dir", "wait": "wait",
    "podNetwork": "pod_network", "kubeletConfig": "kubelet_config",
}  # fmt: skip


def read_agent_file(path: str | None) -> dict[str, Any]:
    """The settings of a `kind: Agent` file, by the names of the flags (with underscores).  Raises ConfigError."""
    spec = _read_document(path, "Agent", set(_AGENT)) if path is not None else {}
    return {_AGENT[key]: value for key, value in spec.items()}


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
